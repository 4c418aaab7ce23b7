"""Class averages of picks: picks are aligned by rotation and averaged, and the extent of the averages is measured."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, zoom
from scipy.spatial.distance import pdist
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cryoemmae_plugin.core.default import GRID_DIAMETER_PX

REACH = round(GRID_DIAMETER_PX)
"""Distance from the centre of a patch to its edge, in grid pixels."""
MASK_EDGE = 0.05
"""Width of the edge of soft masks, in diameters."""
PICKS_PER_AVERAGE, AVERAGES = 40, (2, 8)
"""Picks per class average; smallest and largest number of class averages."""
ANGLES, ROUNDS = 36, 4
"""Number of orientations that are tried, and number of rounds."""
BLUR_PX = 1.0
"""Gaussian width by which averages are smoothed before their extent is measured, in grid pixels."""
ZOOM = 3
"""The extent is measured on a grid finer by this factor."""
EDGE_REACH = (8, 19)
"""Distances from the centre, in grid pixels, between which the background is searched: 1/3 to 4/5 of a diameter."""
EDGE_HEIGHT = 0.15
"""A particle ends where its average falls to this share of its height above the background."""
EDGE_VIEWS = 0.8
"""Most views show less than the longest extent, and junk shows more: the extent is this quantile over the views."""
FARTHEST_PIXELS = 1500
"""Only this many pixels of a view, the outermost ones, are compared."""


def cut_patches(pixels: NDArray[np.float32], xy: NDArray[np.float64]) -> NDArray[np.float32]:
    """Cut out patches (N, 2 REACH + 1, 2 REACH + 1) around centres (N, 2); 0 beyond the frame."""
    down, across = np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1]
    x, y = (xy[:, axis, None, None] for axis in (0, 1))
    return np.asarray(map_coordinates(pixels, [y + down, x + across], order=1), np.float32)


def soft_mask(radius: float) -> Tensor:
    """A patch that is 1 within a radius, in diameters, and 0 beyond, with a soft edge."""
    line = torch.arange(-REACH, REACH + 1) / GRID_DIAMETER_PX
    return torch.sigmoid((radius - torch.hypot(line[:, None], line)) / MASK_EDGE)


def average_classes(
    patches: NDArray[np.float32], mask: Tensor, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Align patches (N, side, side) by rotation, and average similar ones together.

    Parameters
    ----------
    patches : ndarray, shape (N, side, side), float32
    mask : Tensor, shape (side, side)
        Only pixels inside it count.

    Returns
    -------
    averages : ndarray, shape (K, side, side)
        Masked.
    shares : ndarray, shape (K,)
        Of the patches; they add up to 1.
    """
    data = torch.from_numpy(patches)
    count = int(np.clip(len(patches) // PICKS_PER_AVERAGE, *AVERAGES))
    kind = torch.from_numpy(rng.integers(count, size=len(patches)))
    angle = torch.from_numpy(rng.uniform(0, 2 * np.pi, len(patches))).float()
    turns = torch.arange(ANGLES) * (2 * torch.pi / ANGLES)
    for _ in range(ROUNDS):
        averages, members = _average(turned(data, -angle), kind, count)
        inside = averages * mask
        inside = inside - inside.sum((1, 2), keepdim=True) / mask.sum() * mask
        inside = inside / inside.square().sum((1, 2), keepdim=True).sqrt().clamp(min=1e-6)
        views = torch.stack([turned(inside, turn.expand(count)) for turn in turns], 1)
        match = torch.einsum("nst,kast->nka", data, views)
        match[:, members == 0] = -torch.inf
        best = match.flatten(1).argmax(1)
        kind, angle = best // ANGLES, turns[best % ANGLES]
    averages, members = _average(turned(data, -angle), kind, count)
    kept = members > 0
    return (averages[kept] * mask).double().numpy(), (members[kept].double() / len(patches)).numpy()


def longest_extent(averages: NDArray[np.float64], shares: NDArray[np.float64]) -> float:
    """Length of the particle in averages, in particle diameters.

    Parameters
    ----------
    averages, shares
        As :func:`average_classes` gives them, particles dark; masked well beyond the particle. Shares add up to 1.
    """
    extents = np.array([_extent(-average) for average in averages])
    order = extents.argsort()
    at = np.searchsorted(shares[order].cumsum(), EDGE_VIEWS)
    return float(extents[order][min(int(at), len(extents) - 1)])


def _extent(average: NDArray[np.float64]) -> float:
    """Greatest distance between two places of one view, particle bright, that are above the background."""
    smooth = gaussian_filter(average, BLUR_PX)
    line = np.arange(-REACH, REACH + 1)
    radius = np.hypot(line[:, None], line)
    ring = np.rint(radius).astype(int).ravel()
    profile = np.bincount(ring, smooth.ravel()) / np.bincount(ring)
    first, last = EDGE_REACH
    edge = first + int(profile[first : last + 1].argmin())
    fine, far = zoom(smooth - profile[edge], ZOOM, order=1), zoom(radius, ZOOM, order=1)
    outstanding = (far <= edge) & (fine >= EDGE_HEIGHT * fine[far <= edge].max())
    places = np.argwhere(outstanding)[far[outstanding].argsort()[-FARTHEST_PIXELS:]]
    return float(pdist(places).max(initial=0.0) + 1) / ZOOM / GRID_DIAMETER_PX


def _average(patches: Tensor, kind: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean patch of each class (count, side, side), and its number of patches."""
    members = torch.bincount(kind, minlength=count).float()
    total = torch.zeros(count, *patches.shape[1:]).index_add_(0, kind, patches)
    return total / members.clamp(min=1)[:, None, None], members


def turned(images: Tensor, angle: Tensor) -> Tensor:
    """Rotate each of (N, side, side) about its centre by its angle (N,)."""
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack([torch.stack([cosine, -sine, zero], 1), torch.stack([sine, cosine, zero], 1)], 1)
    grid = F.affine_grid(matrix, [len(images), 1, *images.shape[1:]], align_corners=False)
    return F.grid_sample(images[:, None], grid, align_corners=False)[:, 0]
