"""What a head sees in the middle of one micrograph: enough to average its picks, in a fraction of the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoemmae_plugin.core.condition import condition
from cryoemmae_plugin.core.default import (
    GRID_DIAMETER_PX,
    draw_to_maxima,
    find_candidates,
    look,
    look_without_embedding,
)
from cryoemmae_plugin.core.head import Head, evidence
from cryoemmae_plugin.core.model import PickingModel
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.core.views import cut_patches

FIELD_DIAMETERS = 24
"""Side of the piece, in the frame's middle, that is looked at."""
LEAST_PX = 8.0
"""Diameters of fewer micrograph pixels are not looked at."""
LARGEST_SHARE = 1 / 4
"""Nor are diameters beyond this share of the frame's shorter side."""
LIKELY, SURE = 0.5, 0.55
"""Chance of candidates that are taken for particles, and of those that are averaged."""
SHOWN_DENSITY = 0.065
"""A data set shows particles where half of its micrographs lead to expect so many or more per square diameter..."""
SHOWN_EVIDENCE = 2.0
"""...and where the mean evidence is so many times what a micrograph is taken to show particles for: micrographs with
nothing but ice have looked like faint particles on all of them, with 0.8 times that."""


@dataclass(frozen=True)
class Sighting:
    """What a head sees in the middle of one micrograph.

    Attributes
    ----------
    pixels : ndarray, shape (rows, columns), float32
        Conditioned; :data:`GRID_DIAMETER_PX` to a particle's diameter.
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

    def sure_patches(self) -> NDArray[np.float32]:
        """Cut out the sure ones, particles dark: shape (M, 2 REACH + 1, 2 REACH + 1)."""
        return cut_patches(self.pixels, self.xy[self.chance >= SURE])


def shown_density(sightings: Sequence[Sighting], least_evidence: float) -> float | None:
    """Particles per square diameter that a data set shows, the median of its micrographs; None where it may show none.

    What one micrograph leaves open, several of the same data set may tell: faint particles are on all of them, grains
    of ice on some.

    Parameters
    ----------
    sightings : sequence of Sighting
        One a micrograph.
    least_evidence : float
        Of a micrograph that is taken to show particles, see :attr:`Head.least_evidence`.
    """
    if not sightings or np.mean([evidence(seen.chance) for seen in sightings]) < SHOWN_EVIDENCE * least_evidence:
        return None
    density = float(np.median([seen.density for seen in sightings]))
    return density if density >= SHOWN_DENSITY else None


def sight(image: Tensor, diameter_px: float, head: Head, model: PickingModel | None = None) -> Sighting:
    """Look for particles in the middle of a micrograph (ny, nx), particles dark, as the default mode does.

    Without a model it does so without the embedding, which takes most of the time.
    """
    piece = middle(image, round(FIELD_DIAMETERS * diameter_px))
    with torch.inference_mode():
        seen = condition(piece, diameter_px, GRID_DIAMETER_PX)
        view = look(seen, model, StepTimer()) if model else look_without_embedding(seen, head)
        xy, chance = find_candidates(view, seen, head)
    return Sighting(seen.pixels.numpy(), seen.area, draw_to_maxima(xy, view.pixels[0, 1], seen.diameter_px), chance)


def can_be_seen(diameter_px: float, shape: tuple[int, ...]) -> bool:
    """Whether particles of a diameter are large enough, and small enough for a frame of this shape."""
    return LEAST_PX <= diameter_px <= LARGEST_SHARE * min(shape)


def with_dark_particles(image: NDArray[np.float32], bright: bool) -> Tensor:
    """An image (ny, nx) as a tensor, inverted where particles are lighter than the ice."""
    return torch.from_numpy(np.ascontiguousarray(-image if bright else image, np.float32))


def middle(pixels: Tensor, side: int) -> Tensor:
    """The middle of an image (ny, nx), at most so many pixels a side."""
    top, left = (max(0, (n - side) // 2) for n in pixels.shape)
    return pixels[top : top + side, left : left + side]
