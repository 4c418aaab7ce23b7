"""From what was measured at a candidate to its figure of merit.

A small perceptron, fixed on simulated micrographs, whose answers are known by construction; no annotation of a real
one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cryoemmae_plugin.core.features import FEATURES

HIDDEN = 16
PREFIX = "scorer."
"""Names of its tensors in a model's arrays begin with this."""


class Scorer(nn.Module):
    """Measurements (N, features) to figures of merit (N,) in 0..1."""

    centre: Tensor
    scale: Tensor

    def __init__(self, features: int = len(FEATURES), hidden: int = HIDDEN) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.layers = nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, measured: Tensor) -> Tensor:
        """Return the log-odds (N,) of being a particle."""
        standard = ((measured - self.centre) / self.scale).clamp(-5, 5)
        out: Tensor = self.layers(standard)[:, 0]
        return out

    def score(self, measured: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return figures of merit (N,) for measurements (N, features)."""
        with torch.no_grad():
            odds = self.forward(torch.from_numpy(measured).double())
        return torch.sigmoid(odds).float().numpy()

    def arrays(self) -> dict[str, Tensor]:
        """Return the tensors that a model folder keeps."""
        return {PREFIX + name: tensor.float() for name, tensor in self.state_dict().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor]) -> Scorer:
        """Build the scorer from a model's arrays.

        Raises
        ------
        KeyError
            If the model has no scorer.
        """
        state = {name.removeprefix(PREFIX): t for name, t in arrays.items() if name.startswith(PREFIX)}
        weight = state["layers.0.weight"]
        scorer = cls(weight.shape[1], weight.shape[0]).double()
        scorer.load_state_dict(state)
        return scorer.eval()
