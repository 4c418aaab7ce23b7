"""Judge class averages without a person: which of them show the particle, and how well their halves agree.

**The rule.** A class average shows the particle when, turned and shifted (and mirrored) onto one of the averages of
known particles, it correlates with it by at least :data:`LEAST_LIKENESS` inside a circle of one diameter. Averages of
known particles are those of a classification of the reference picks, from another seed than any that is judged, that
hold at least :data:`LEAST_SHARE` of the particles. Images are low-passed to :data:`LOWPASS_DIAMETERS` before, so that
noise does not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, rotate

LEAST_LIKENESS = 0.8
LEAST_SHARE = 0.02
LOWPASS_DIAMETERS = 1 / 8
"""Width of the details that are compared, in particle diameters."""
ANGLES = range(0, 360, 10)
MOST_SHIFT = 0.15
"""Averages may be shifted by so many diameters."""
HALF_MAP_FRC = 0.143
Images = NDArray[np.float64]


def likeness(average: Images, known: Images, diameter_px: float) -> float:
    """Greatest correlation of an average (side, side) with one of the known (K, side, side), -1 to 1."""
    mask = _disc(average.shape[0], diameter_px / 2 * 1.05)
    smooth = gaussian_filter(average, LOWPASS_DIAMETERS * diameter_px / 2.35)
    reach = round(MOST_SHIFT * diameter_px)
    shifts = [(y, x) for y in range(-reach, reach + 1, 2) for x in range(-reach, reach + 1, 2)]
    moved = _standard(np.array([np.roll(smooth, shift, (0, 1))[mask] for shift in shifts]))
    best = -1.0
    for one in known:
        other = gaussian_filter(one, LOWPASS_DIAMETERS * diameter_px / 2.35)
        turned = [rotate(side, angle, reshape=False, order=1) for side in (other, other[:, ::-1]) for angle in ANGLES]
        best = max(best, float((moved @ _standard(np.array([image[mask] for image in turned])).T).max()))
    return best


def _standard(rows: Images) -> Images:
    """Rows (N, pixels) of mean 0 and length 1."""
    rows = rows - rows.mean(1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _disc(side: int, radius: float) -> NDArray[np.bool_]:
    line = np.arange(side) - side // 2
    return np.asarray(np.hypot(line[:, None], line) <= radius)


def known_averages(averages: Images, kind: NDArray[np.intp]) -> Images:
    """Averages of a reference's classification that enough of its particles are in."""
    share = np.bincount(kind, minlength=len(averages)) / max(len(kind), 1)
    return averages[share >= LEAST_SHARE]


def half_averages(
    images: Images, psi_deg: NDArray[np.float64], shift_px: NDArray[np.float64], seed: int
) -> tuple[Images, Images]:
    """Averages of two random halves of the images of a class, aligned as RELION has found them."""
    order = np.random.default_rng(seed).permutation(len(images))
    aligned = np.array([_aligned(images[i], psi_deg[i], shift_px[i]) for i in order])
    return aligned[::2].mean(0), aligned[1::2].mean(0)


def _aligned(image: Images, psi_deg: float, shift_px: NDArray[np.float64]) -> Images:
    """Turn and shift a particle onto its class average.

    RELION shifts an image by its origin and turns it by psi about the pixel side // 2.
    """
    side, angle = len(image), np.deg2rad(psi_deg)
    y, x = np.mgrid[:side, :side] - side // 2
    across = np.cos(angle) * x + np.sin(angle) * y - shift_px[0]
    down = -np.sin(angle) * x + np.cos(angle) * y - shift_px[1]
    return np.asarray(map_coordinates(image, [down + side // 2, across + side // 2], order=1))


def ring_correlation(one: Images, other: Images) -> NDArray[np.float64]:
    """Fourier ring correlation of two images (side, side), by whole frequencies from 0 to side // 2."""
    first, second = (np.fft.fftshift(np.fft.fft2(image)) for image in (one, other))
    side = len(one)
    line = np.arange(side) - side // 2
    ring = np.rint(np.hypot(line[:, None], line)).astype(int).ravel()
    cross = np.bincount(ring, (first * second.conj()).real.ravel())
    power = [np.bincount(ring, (np.abs(image) ** 2).ravel()) for image in (first, second)]
    return np.asarray((cross / np.maximum(np.sqrt(power[0] * power[1]), 1e-12))[: side // 2 + 1])


def resolution_at(frc: Sequence[float] | NDArray[np.float64], side: int, pixel_size_A: float) -> float:
    """Resolution in Å of the last ring before a ring correlation first falls below 0.143."""
    below = np.flatnonzero(np.asarray(frc)[1:] < HALF_MAP_FRC)
    ring = int(below[0]) if len(below) else len(frc) - 1
    return side * pixel_size_A / max(ring, 0.5)
