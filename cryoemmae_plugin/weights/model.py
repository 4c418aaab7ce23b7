"""A model in memory."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoemmae_plugin.core.encoder import Encoder
from cryoemmae_plugin.errors import ModelError
from cryoemmae_plugin.weights.card import CARD_FILE, ModelCard

CENTROIDS = "centroids"
"""Name of the centroids' tensor in the clusters file."""


@dataclass(frozen=True)
class Model:
    """A verified model, ready to encode.

    Attributes
    ----------
    encoder : Encoder
        In evaluation mode, float32.
    clusters : dict of Tensor
        Everything in the clusters file; floats are float32.
    sha256 : str
        Identity of all that picks depend on: tensors and the card's numbers, but not its prose nor the decoder.
    """

    card: ModelCard
    encoder: Encoder
    clusters: dict[str, Tensor]
    sha256: str

    @property
    def mean(self) -> float:
        """Mean of the training set's pixels."""
        return self.card.mean

    @property
    def std(self) -> float:
        """Standard deviation of the training set's pixels."""
        return self.card.std

    @property
    def has_clusters(self) -> bool:
        """Whether there are centroids."""
        return CENTROIDS in self.clusters

    @property
    def centroids(self) -> Tensor:
        """Centres of the training set's clusters, shape (k, embed_dim), float32; `ModelError` if there are none."""
        if not self.has_clusters:
            raise ModelError(
                f"model {self.card.name!r} has no clusters",
                remedy=("import it with a file of centroids ($kmeans)", "train one with clusters"),
            )
        return self.clusters[CENTROIDS]

    @property
    def particle_cluster(self) -> int:
        """Which centroid is particles; `ModelError` if that is not known."""
        if self.card.particle_cluster is None:
            raise ModelError(
                f"model {self.card.name!r} does not know which cluster is particles",
                remedy=("import it with $particle_cluster", f"write particle_cluster = N into its {CARD_FILE}"),
            )
        return self.card.particle_cluster

    @property
    def arrays(self) -> dict[str, Tensor]:
        """Tensors of the clusters file besides the centroids."""
        return {name: tensor for name, tensor in self.clusters.items() if name != CENTROIDS}

    def to(self, device: torch.device | str) -> Model:
        """Return a copy on another device."""
        clusters = {name: tensor.to(device) for name, tensor in self.clusters.items()}
        return replace(self, encoder=copy.deepcopy(self.encoder).to(device), clusters=clusters)
