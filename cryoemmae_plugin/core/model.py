"""What picking needs of a model, whoever loaded it."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from cryoemmae_plugin.core.encoder import Encoder


class PickingModel(Protocol):
    """An encoder, its standardisation, the train-set clusters, and further tensors by name."""

    @property
    def encoder(self) -> Encoder:
        """Encoder in evaluation mode, on the device that does the work."""

    @property
    def mean(self) -> float:
        """Mean of the training pixels."""

    @property
    def std(self) -> float:
        """Standard deviation of the training pixels."""

    @property
    def centroids(self) -> Tensor:
        """Train-set clusters, shape (k, dim)."""

    @property
    def particle_cluster(self) -> int:
        """Which of them holds particles."""

    @property
    def arrays(self) -> dict[str, Tensor]:
        """Further tensors: those of the head, which only the default mode needs."""
