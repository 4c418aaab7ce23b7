"""From a mask of particle cells to particle centres: the published post-processing.

Source: Zamanos et al. 2025, and its released code for every constant. Not taken over from that code: on equal areas its
duplicate filter deletes both of a pair, and it rounds centres to whole cells of the fine grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cryoemmae_plugin.settings import PUBLISHED_FRACTION

FINE_PER_CELL = 2
"""Pixels of the fine grid per cell of the mask, along each axis: 512 for a mask of 256."""

THRESHOLDS = np.round(np.linspace(1.0, 0.0, 30), 2)

DUPLICATE_DISTANCE = 1 / 2
"""Of two centres closer than this (particle diameters), the smaller component goes."""

BORDER_DISTANCE = 1 / 1.5
"""Centres closer to the border than this (particle diameters) go."""

RING = 1.5
"""Outer diameter of the ring that a particle's contrast is measured against, in particle diameters."""


@dataclass(frozen=True)
class Components:
    """Connected components on the fine grid.

    Attributes
    ----------
    xy : ndarray, shape (N, 2), float64
        Intensity-weighted centres in pixels of the fine grid, the first pixel's centre being (0, 0).
    area : ndarray, shape (N,), int64
        Areas in pixels of the fine grid.
    """

    xy: NDArray[np.float64]
    area: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.area)

    def where(self, keep: NDArray[np.bool_]) -> Components:
        """Return those components for which `keep`, shape (N,), is true."""
        return Components(self.xy[keep], self.area[keep])


def find_particles(
    mask: Tensor,
    diameter_px: float,
    particle_fraction: float = PUBLISHED_FRACTION,
    max_radius_ratio: float | None = None,
) -> Components:
    """Find particle centres in a mask.

    Parameters
    ----------
    mask : Tensor, shape (rows, columns), bool
        Cells of the particles' cluster.
    diameter_px : float
        Particle diameter in pixels of the fine grid, which has two of them per cell.
    particle_fraction : float
        The threshold is lowered until more than this share of the image lies above.
    max_radius_ratio : float or None
        Components with a larger radius, in particle radii, are dropped; None keeps all, as the released code does. The
        paper speaks of such a threshold without giving it.

    Returns
    -------
    Components
        In pixels of the fine grid, in the order of their first rows.
    """
    density = cell_density(mask)
    found = label_components(density, choose_threshold(density, particle_fraction))
    keep = drop_duplicates_and_borders(found, diameter_px, density.shape)
    return found.where(keep & within_radius(found, diameter_px, max_radius_ratio))


def drop_duplicates_and_borders(found: Components, diameter_px: float, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Tell which components, shape (N,), have no larger neighbour and lie away from the border of a grid."""
    margin, size_xy = BORDER_DISTANCE * diameter_px, np.array(shape[::-1])
    inside: NDArray[np.bool_] = np.all((found.xy >= margin) & (found.xy + margin <= size_xy), axis=1)
    return inside & ~has_larger_neighbour(found, DUPLICATE_DISTANCE * diameter_px)


def within_radius(found: Components, diameter_px: float, max_radius_ratio: float | None) -> NDArray[np.bool_]:
    """Tell which components, shape (N,), have at most this radius, in particle radii; all of them without a limit."""
    if max_radius_ratio is None:
        return np.ones(len(found), bool)
    small: NDArray[np.bool_] = np.sqrt(found.area / np.pi) <= max_radius_ratio * diameter_px / 2
    return small


def cell_density(mask: Tensor) -> NDArray[np.uint8]:
    """Count mask cells in 3 x 3, scale the largest count to 255, and double the grid, bilinearly; decimals are cut.

    Parameters
    ----------
    mask : Tensor, shape (rows, columns), bool

    Returns
    -------
    ndarray, shape (2 * rows, 2 * columns), uint8
    """
    counts = F.conv2d(mask.float()[None, None], torch.ones(1, 1, 3, 3, device=mask.device), padding=1)[0, 0]
    return double_grid(counts / counts.max().clamp(min=1) * 255).to(torch.uint8).cpu().numpy()


def double_grid(image: Tensor) -> Tensor:
    """Double the grid of (rows, columns), bilinearly; float32."""
    for _ in range(2):  # along rows, then along columns, in double precision: cutting decimals forgives no rounding
        image = _double_along_rows(image.double()).float().t()
    return image


def _double_along_rows(image: Tensor) -> Tensor:
    """Give every pixel two, at its quarters, interpolated linearly and held constant beyond the outermost centres."""
    before = torch.cat([image[:, :1], image[:, :-1]], dim=1)
    after = torch.cat([image[:, 1:], image[:, -1:]], dim=1)
    return torch.stack([0.25 * before + 0.75 * image, 0.75 * image + 0.25 * after], dim=2).flatten(1)


def choose_threshold(density: NDArray[np.uint8], particle_fraction: float = PUBLISHED_FRACTION) -> float | None:
    """Return the first threshold, from 1 down, above which more than this share of the image lies; None if none is."""
    for threshold in THRESHOLDS:
        if np.count_nonzero(density / 255 > threshold) > particle_fraction * density.size:
            return float(threshold)
    return None


def label_components(density: NDArray[np.uint8], threshold: float | None) -> Components:
    """Return the components (4 neighbours) of what lies above a threshold; none if that is None."""
    if threshold is None:
        return Components(np.zeros((0, 2)), np.zeros(0, np.int64))
    intensity = density / 255
    labels, n = ndimage.label(intensity > threshold)
    index = np.arange(1, n + 1)
    centres_yx = np.asarray(ndimage.center_of_mass(intensity, labels, index)).reshape(-1, 2)
    return Components(centres_yx[:, ::-1], np.bincount(labels.ravel(), minlength=n + 1)[1:])


def has_larger_neighbour(components: Components, distance: float) -> NDArray[np.bool_]:
    """Tell which components have a larger one, or on a tie an earlier one, nearer than `distance`; shape (N,), bool.

    A component counts as a neighbour even if it is itself dropped for a still larger one.
    """
    smaller = np.zeros(len(components), bool)
    if len(components) < 2:
        return smaller
    pairs = cKDTree(components.xy).query_pairs(distance, output_type="ndarray")  # (earlier, later)
    first, second = pairs.T
    pairs = pairs[np.linalg.norm(components.xy[first] - components.xy[second], axis=1) < distance]
    first, second = pairs.T
    first_larger = components.area[first] >= components.area[second]
    smaller[np.where(first_larger, second, first)] = True
    return smaller


def size_score(area: NDArray[np.int64], diameter_px: float) -> NDArray[np.float32]:
    """Turn areas into figures of merit, a / (1 + a) with a in areas of the particle's disc: 0.5 for one as large.

    The published method ranks nothing but areas, and that only among duplicates.
    """
    discs = area / (math.pi / 4 * diameter_px**2)
    return (discs / (1 + discs)).astype(np.float32)


def disc_contrast(image: Tensor, xy: NDArray[np.float64], diameter_xy: tuple[float, float]) -> NDArray[np.float32]:
    """Measure how dark discs are against the rings around them, in standard deviations of the image.

    Parameters
    ----------
    image : Tensor, shape (rows, columns), float32
        Particles dark.
    xy : ndarray, shape (N, 2)
        Centres in pixels of the image; what lies outside repeats the border.
    diameter_xy : tuple of float
        Particle diameter in pixels along x and y.

    Returns
    -------
    ndarray, shape (N,), float32
        Positive where the disc is darker.
    """
    diameter = np.asarray(diameter_xy)
    reach = np.ceil(RING * diameter / 2).astype(int)
    offsets = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach)), axis=-1).reshape(-1, 2)
    radius = np.linalg.norm(offsets / (diameter / 2), axis=1)
    pixels, size_xy = image.cpu().numpy(), np.array(image.shape[::-1])
    mean = {}
    for part, chosen in (("disc", radius <= 1), ("ring", (radius > 1) & (radius <= RING))):
        at = np.rint(xy).astype(int)[:, None] + offsets[chosen]
        column, row = np.moveaxis(at.clip(0, size_xy - 1), 2, 0)
        mean[part] = pixels[row, column].mean(axis=1) if len(xy) else np.zeros(0)
    return ((mean["ring"] - mean["disc"]) / max(float(pixels.std()), 1e-6)).astype(np.float32)
