"""What a head finds in the middle of one micrograph: enough to average its picks, in a fraction of the time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoemmae_plugin.core.class_averages import cut_patches
from cryoemmae_plugin.core.default import (
    GRID_DIAMETER_PX,
    extract_features,
    extract_features_without_embedding,
    find_candidates,
    refine_centres,
)
from cryoemmae_plugin.core.flattening import flatten_background
from cryoemmae_plugin.core.head import Head, total_log_odds
from cryoemmae_plugin.core.model import PickingModel
from cryoemmae_plugin.core.timing import StepTimer

FIELD_DIAMETERS = 24
"""Side of the square in the middle of the frame that is examined, in pixels of the grid."""
LEAST_PX = 8.0
"""Smaller diameters, in micrograph pixels, are not examined."""
LARGEST_SHARE = 1 / 4
"""Larger diameters, as a share of the shorter side of the frame, are not examined."""
LIKELY = 0.5
"""Least chance of a candidate that counts as a particle."""


@dataclass(frozen=True)
class CropDetections:
    """What a head finds in the middle of one micrograph.

    Attributes
    ----------
    pixels : ndarray, shape (rows, columns), float32
        Flattened; :data:`GRID_DIAMETER_PX` to a particle's diameter.
    area : float
        Of the image in it, in square diameters.
    xy : ndarray, shape (N, 2)
        Candidates in grid pixels, best first.
    chance : ndarray, shape (N,)
        Of each to be a particle: its figure of merit before the whole micrograph is judged.
    """

    pixels: NDArray[np.float32]
    area: float
    xy: NDArray[np.float64]
    chance: NDArray[np.float32]

    @property
    def likely(self) -> NDArray[np.float64]:
        """Where particles are likely: shape (M, 2)."""
        return self.xy[self.chance >= LIKELY]

    @property
    def density(self) -> float:
        """Particles to expect per square diameter."""
        return float(self.chance.sum()) / self.area if self.area else 0.0

    @property
    def total_log_odds(self) -> float:
        """Total log-odds of the likely candidates."""
        return total_log_odds(self.chance)

    def patches(self, least: float = LIKELY) -> NDArray[np.float32]:
        """Cut out the candidates with at least this chance, particles dark: shape (M, 2 REACH + 1, 2 REACH + 1)."""
        return cut_patches(self.pixels, self.xy[self.chance >= least])


def detect_on_crop(image: Tensor, diameter_px: float, head: Head, model: PickingModel | None = None) -> CropDetections:
    """Look for particles in the middle of a micrograph (ny, nx), particles dark, as the default mode does.

    Without a model it does so without the embedding, which takes most of the time.
    """
    piece = central_crop(image, round(FIELD_DIAMETERS * diameter_px))
    with torch.inference_mode():
        seen = flatten_background(piece, diameter_px, GRID_DIAMETER_PX)
        features = (
            extract_features(seen, model, StepTimer()) if model else extract_features_without_embedding(seen, head)
        )
        xy, chance = find_candidates(features, seen, head)
    xy = refine_centres(xy, chance, features.sigmas, seen.diameter_px)
    return CropDetections(seen.pixels.numpy(), seen.area, xy, chance)


def is_detectable(diameter_px: float, shape: tuple[int, ...]) -> bool:
    """Whether particles of a diameter are large enough, and small enough for a frame of this shape."""
    return LEAST_PX <= diameter_px <= LARGEST_SHARE * min(shape)


def with_dark_particles(image: NDArray[np.float32], bright: bool) -> Tensor:
    """An image (ny, nx) as a tensor, inverted where particles are lighter than the ice."""
    return torch.from_numpy(np.ascontiguousarray(-image if bright else image, np.float32))


def central_crop(pixels: Tensor, side: int) -> Tensor:
    """The middle of an image (ny, nx), of at most this many pixels per side."""
    top, left = (max(0, (n - side) // 2) for n in pixels.shape)
    return pixels[top : top + side, left : left + side]
