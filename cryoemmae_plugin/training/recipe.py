"""How an autoencoder is trained: length, batch, learning rate, precision."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from cryoemmae_plugin.settings import Options

DEFAULT_STEPS, DEFAULT_EPOCHS = 4000, 20
"""Without a number of epochs, the training has at least so many steps and so many passes over the tiles."""
LONGEST_WARMUP = 0.25
"""The warm-up takes at most this share of a short training."""

Tiles = Literal["crops", "grid"]
Arithmetic = Literal["auto", "float32", "bfloat16"]


class FitSettings(Options):
    """The training recipe. The defaults leave the plateau of the loss fast, see ``docs/training.md``.

    On the plateau the network predicts the mean of each tile. It leaves it after a number of steps that depends on the
    learning rate much more than on the batch. Small batches therefore need less time.
    """

    epochs: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Passes over the training tiles. By default 20, and at least 4000 steps.",
    )
    batch: int = Field(default=16, ge=1, le=65_536, description="Tiles in a step.")
    rate: float = Field(default=1e-3, gt=0, le=1, description="Peak of the learning rate.")
    least_rate: float = Field(default=1e-6, ge=0, description="Where the cosine ends.")
    warmup_steps: int = Field(default=100, ge=0, description="Least steps of linear warm-up.")
    warmup_epochs: float = Field(default=0.0, ge=0, description="Warm-up in epochs, if longer.")
    weight_decay: float = Field(default=1e-5, ge=0, description="AdamW's, not on biases and norms.")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="AdamW's memory of squared gradients.")
    clip_norm: float | None = Field(default=1.0, gt=0, description="Longer gradients are shortened to this.")
    query_key_gain: float = Field(
        default=1.4,
        ge=0,
        description="Size of the equal query and key projections that a new model begins with; 0: both at random.",
    )
    precision: Arithmetic = Field(
        default="auto",
        description="Arithmetic of matrix products; auto is bfloat16 where the processor has it.",
    )
    tiles: Tiles = Field(
        default="crops",
        description="crops: random places, symmetries and scales. grid: the published fixed grid (paper mode only).",
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of the weights, the masks and the order of the tiles.")
    least_skill: float = Field(default=0.02, lt=1, description="A model with less has learned nothing and is refused.")
    least_separation: float = Field(
        default=0.15,
        lt=1,
        description="Least share of the darkness at the particle's scale that the clusters explain (paper mode only).",
    )
    checkpoint_steps: int = Field(default=100, ge=1, description="Steps between two checkpoints.")

    def steps_an_epoch(self, tiles: int) -> int:
        """Steps in one pass over so many tiles."""
        return max(1, tiles // self.batch)

    def total_steps(self, tiles: int) -> int:
        """Steps of the whole training."""
        if self.epochs is not None:
            return self.epochs * self.steps_an_epoch(tiles)
        return max(DEFAULT_STEPS, DEFAULT_EPOCHS * self.steps_an_epoch(tiles))

    def warmup(self, tiles: int) -> float:
        """Steps of warm-up."""
        wanted = max(float(self.warmup_steps), self.warmup_epochs * self.steps_an_epoch(tiles))
        return min(wanted, LONGEST_WARMUP * self.total_steps(tiles))

    def rate_at(self, step: int, tiles: int) -> float:
        """Learning rate of a step; the first one is step 1. Linear warm-up, then half a cosine."""
        total, warmup = self.total_steps(tiles), self.warmup(tiles)
        if step < warmup:
            return self.rate * step / warmup
        done = min(1.0, (step - warmup) / max(total - warmup, 1e-9))
        return self.least_rate + (self.rate - self.least_rate) * 0.5 * (1 + math.cos(math.pi * done))

    def same_weights_as(self, other: FitSettings) -> bool:
        """Tell whether a training with `other` gives the same weights."""
        beside = {"checkpoint_steps", "least_skill", "least_separation"}
        return self.model_dump(exclude=beside) == other.model_dump(exclude=beside)


PUBLISHED = FitSettings(
    epochs=400,
    batch=128,
    rate=5e-4,
    warmup_steps=0,
    warmup_epochs=5.0,
    clip_norm=None,
    query_key_gain=0.0,
    tiles="grid",
)
"""The recipe of Zamanos et al. 2025, "Implementation details": learning rate 1e-3 × batch / 256."""
