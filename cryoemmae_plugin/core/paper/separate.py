"""Particles of a mask where the share of the area that they cover is not known: one threshold for each of them.

The published method cuts all components at one threshold, which it sets by the share of the area that particles cover:
4 %, as in its training annotations. Where particles are crowded that loses some and joins others, and a ring that
is not closed has its centre off the particle's. Here the mask is averaged over the particle's disc first, which fills
rings, and each component has the lowest threshold at which it holds one particle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cryoemmae_plugin.core.paper.clusters import SMALL_DIAMETER_CELLS
from cryoemmae_plugin.core.paper.components import (
    FINE_PER_CELL,
    Components,
    double_grid,
    drop_duplicates_and_borders,
    within_radius,
)

SHARES = np.arange(0.975, 0.0, -0.05)
"""Thresholds that are tried, as shares of the particle's disc."""

LARGEST_DISCS = 1.5
"""A component grows to this area, in areas of the particle's disc."""


SMALL_DISC = 0.5
"""Particles of fewer than `SMALL_DIAMETER_CELLS` cells fill a disc of this diameter only, in particle diameters: their
rings are not resolved, and their clusters end within the diameter that users give."""


@dataclass(frozen=True)
class _Particle:
    """A component at the lowest threshold so far at which it was alone: centre (x, y), area, and its highest pixel."""

    xy: tuple[float, float]
    area: int
    peak: tuple[int, int]


def separate_particles(
    mask: Tensor, diameter_px: float, max_radius_ratio: float | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Find particle centres in a mask, whatever share of the area it covers.

    Parameters
    ----------
    mask : Tensor, shape (rows, columns), bool
        Cells of the particles' cluster.
    diameter_px : float
        Particle diameter in pixels of the fine grid, which has two of them per cell.
    max_radius_ratio : float or None
        Components with a larger radius, in particle radii, are dropped.

    Returns
    -------
    xy : ndarray, shape (N, 2)
        Centres in pixels of the fine grid.
    score : ndarray, shape (N,)
        Share of the particle's disc that lies in the mask, at the best place of the particle.
    """
    small = diameter_px / FINE_PER_CELL < SMALL_DIAMETER_CELLS
    share = share_of_disc(mask, diameter_px * (SMALL_DISC if small else 1.0))
    by_chance = float(mask.float().mean())
    largest = LARGEST_DISCS * math.pi / 4 * diameter_px**2
    found = _follow_components(share, SHARES[by_chance < SHARES], largest)
    components = Components(
        np.array([one.xy for one in found], float).reshape(-1, 2), np.array([one.area for one in found], np.int64)
    )
    score = np.array([share[one.peak] for one in found], np.float32)
    keep = drop_duplicates_and_borders(components, diameter_px, share.shape)
    keep &= within_radius(components, diameter_px, max_radius_ratio)
    return components.xy[keep], score[keep]


def share_of_disc(mask: Tensor, diameter_px: float) -> NDArray[np.float64]:
    """Tell which share of the particle's disc around each place lies in the mask.

    Parameters
    ----------
    mask : Tensor, shape (rows, columns), bool
    diameter_px : float
        In pixels of the fine grid.

    Returns
    -------
    ndarray, shape (2 * rows, 2 * columns), 0 to 1
        On the fine grid. Nothing beyond the border counts as particle.
    """
    radius = diameter_px / FINE_PER_CELL / 2
    reach = math.ceil(radius)
    line = torch.arange(-reach, reach + 1, device=mask.device)
    disc = (torch.hypot(line[:, None].float(), line.float()) <= radius).float()
    share = F.conv2d(mask.float()[None, None], (disc / disc.sum())[None, None], padding=reach)[0, 0]
    return double_grid(share).double().cpu().numpy()


def _follow_components(share: NDArray[np.float64], thresholds: NDArray[np.float64], largest: float) -> list[_Particle]:
    """Follow components down the thresholds, each as long as it holds one particle and is not too large."""
    particles: list[_Particle] = []
    for threshold in thresholds:
        labels, n = ndimage.label(share > threshold)
        if not n:
            continue
        index = np.arange(1, n + 1)
        centres = ndimage.center_of_mass(share, labels, index)
        areas = np.bincount(labels.ravel(), minlength=n + 1)
        members = [int(labels[one.peak]) for one in particles]
        held = np.bincount(members, minlength=n + 1)
        for at, label in enumerate(members):
            if held[label] == 1 and areas[label] <= largest:
                particles[at] = _particle(centres[label - 1], areas[label], particles[at].peak)
        peaks = ndimage.maximum_position(share, labels, index)
        particles += [
            _particle(centres[label - 1], areas[label], peaks[label - 1]) for label in index if not held[label]
        ]
    return particles


def _particle(centre_yx: tuple[float, float], area: int, peak: tuple[int, int]) -> _Particle:
    y, x = centre_yx
    return _Particle((float(x), float(y)), int(area), (int(peak[0]), int(peak[1])))
