"""What the dark blobs of one size look like on average: how far they reach, how round they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import trim_mean

from cryoemmae_plugin.core.sizes import Level, Response, blur, blur_widely, find_blobs, respond

THRESHOLDS = np.array([2.5, 3.0, 3.5, 4.0, 4.5, 5.0])
"""Blobs count from the threshold at which most surely more of them are dark than bright, which is chance."""
OUTSTANDING = 3.0
"""Blobs so many times stronger than the median one are contamination."""
MOST_BLOBS = 200
"""Blobs of one micrograph that are averaged: the strongest of those."""
SMOOTHING = 0.06
"""Gaussian width of the image that profiles are read from, in sizes."""
BACKGROUND = 1.5
"""Gaussian width of the background that is subtracted before, in sizes."""
TRIM = 0.15
"""Share of the blobs, at either end, that averages leave out: neighbours and contamination."""
RADII = np.arange(31) * 0.05
"""Radii of a profile, in sizes."""
ANGLES = 24
ORDERS = 3
"""Angular orders whose strength is kept: 1 (lopsided), 2 (long), 3 (triangular)."""
LEAST_INSIDE = 0.75
"""Share of a blob's profile that must lie inside the frame."""
APART = 0.8
"""Background is farther than this from every blob, in sizes."""
WINDOW = 1.0
"""Radius of the round window in which blobs are compared with themselves, in sizes."""
SHIFTS = np.arange(1, 25) * 0.05
"""Shifts by which they are, in sizes."""


@dataclass(frozen=True)
class Profile:
    """The average dark blob of one size.

    Attributes
    ----------
    blobs : int
        How many were averaged.
    mean : ndarray, shape (radii,)
        Their mean over the angle; protein positive.
    spread : ndarray, shape (radii,)
        Variance of that mean between blobs.
    orders : ndarray, shape (radii, ORDERS)
        Mean power of the angular orders: noise, and what is not round.
    overlap : ndarray, shape (shifts,)
        Mean product of a blob with itself shifted by `SHIFTS`, that of the background subtracted: 0 beyond what belongs
        to one particle.
    density : float
        Blobs per square of the size.
    noise : float
        Variance of the micrograph's pixels.
    """

    blobs: int
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    orders: NDArray[np.float64]
    overlap: NDArray[np.float64]
    density: float
    noise: float


def average_blobs(levels: tuple[Level, ...], size_A: float) -> Profile | None:
    """Average the dark blobs of one size in a micrograph; None where there are none to speak of."""
    response = respond(levels, size_A)
    if response is None:
        return None
    xy = _likely_blobs(response)
    level, size_px = response.level, response.size_px
    smooth = blur(level.pixels, SMOOTHING * size_px) - blur_widely(level.pixels, BACKGROUND * size_px)
    rings = _read_rings(smooth, xy[:MOST_BLOBS], size_px)
    if len(rings) < 2:
        return None
    means = rings.mean(axis=2)
    empty = _background(response, size_px)
    power = _angular_power(rings) - _angular_power(_read_rings(smooth, empty, size_px))
    overlap = _self_overlap(smooth, xy[:MOST_BLOBS], size_px) - _self_overlap(smooth, empty, size_px)
    area = np.count_nonzero(response.valid) / size_px**2
    return Profile(
        blobs=len(rings),
        mean=trim_mean(means, TRIM),
        spread=means.var(axis=0),
        orders=power,
        overlap=overlap,
        density=len(xy) / area,
        noise=float(smooth[response.valid].var()),
    )


def pool(profiles: Sequence[Profile | None]) -> Profile | None:
    """One profile of several micrographs, each counting by its blobs; None where there is none."""
    found = [profile for profile in profiles if profile is not None]
    if not found:
        return None
    blobs = np.array([profile.blobs for profile in found], float)
    share = blobs / blobs.sum()

    def mean(name: str) -> NDArray[np.float64]:
        return np.tensordot(share, np.array([getattr(profile, name) for profile in found]), 1)

    return Profile(
        int(blobs.sum()),
        mean("mean"),
        mean("spread"),
        mean("orders"),
        mean("overlap"),
        float(mean("density")),
        float(mean("noise")),
    )


def _likely_blobs(response: Response) -> NDArray[np.float32]:
    """Centres of dark blobs that are hardly chance and hardly contamination, strongest first."""
    xy, height = find_blobs(response, THRESHOLDS[0])
    _, decoys = find_blobs(replace(response, sigmas=-response.sigmas), THRESHOLDS[0])
    dark, bright = ((values >= THRESHOLDS[:, None]).sum(axis=1) for values in (height, decoys))
    keep = height >= THRESHOLDS[np.argmax((dark - bright) / np.sqrt(dark + bright + 1))]
    if np.count_nonzero(keep) > 10:
        keep &= height <= OUTSTANDING * np.median(height[keep])
    return np.asarray(xy[keep])


def _background(response: Response, size_px: float) -> NDArray[np.float32]:
    """Places where there is no blob, not even a faint one, on a grid."""
    xy, _ = find_blobs(response, THRESHOLDS[0])
    free = response.valid.astype(np.uint8)
    for column, row in xy.astype(int).tolist():
        cv2.circle(free, (column, row), round(APART * size_px), 0, -1)
    step = max(1, round(size_px / 2))
    row, column = np.nonzero(free[::step, ::step])
    places = np.stack([column * step, row * step], axis=1).astype(np.float32)
    return places[:: max(1, -(-len(places) // MOST_BLOBS))]


def _angular_power(rings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean power of the angular orders from 1 on, shape (radii, ORDERS); 0 of nothing."""
    if not len(rings):
        return np.zeros((len(RADII), ORDERS))
    power = np.abs(np.fft.rfft(rings, axis=2)[..., 1 : ORDERS + 1]) ** 2 / ANGLES**2
    return np.asarray(trim_mean(power, TRIM))


def _self_overlap(smooth: NDArray[np.float32], xy: NDArray[np.float32], size_px: float) -> NDArray[np.float64]:
    """Autocorrelation of what lies in a round window about each centre, averaged over angle; shape (shifts,)."""
    reach = int(np.ceil(WINDOW * size_px))
    ny, nx = smooth.shape
    centres = np.rint(xy).astype(int)
    inside = ((centres >= reach) & (centres < np.array([nx, ny]) - reach)).all(axis=1)
    if not inside.any():
        return np.zeros(len(SHIFTS))
    line = np.arange(-reach, reach + 1)
    radius = np.hypot(line[:, None], line) / (WINDOW * size_px)
    window = np.where(radius < 1, np.cos(0.5 * np.pi * np.minimum(radius, 1)) ** 2, 0)
    centres = centres[inside]
    patches = smooth[centres[:, 1, None, None] + line[:, None], centres[:, 0, None, None] + line] * window
    side = 2 * len(line)
    power = np.abs(np.fft.rfft2(patches, s=(side, side))) ** 2
    power = trim_mean(power, TRIM)
    product, weight = (
        np.fft.irfft2(p, s=(side, side)) for p in (power, np.abs(np.fft.rfft2(window, s=(side, side))) ** 2)
    )
    shift = np.fft.fftfreq(side, 1 / side)
    bins = np.digitize(np.hypot(shift[:, None], shift) / size_px, SHIFTS - 0.025) - 1
    known = (bins >= 0) & (bins < len(SHIFTS))
    total, norm = (np.bincount(bins[known], p[known], len(SHIFTS)) for p in (product, weight))
    return np.asarray(total / norm.clip(1e-9))


def _read_rings(smooth: NDArray[np.float32], xy: NDArray[np.float32], size_px: float) -> NDArray[np.float64]:
    """Pixels around centres, shape (blobs, radii, angles); blobs that the frame cuts are left out."""
    angle = np.arange(ANGLES) * 2 * np.pi / ANGLES
    column = xy[:, 0, None, None] + RADII[:, None] * size_px * np.cos(angle)
    row = xy[:, 1, None, None] + RADII[:, None] * size_px * np.sin(angle)
    ny, nx = smooth.shape
    inside = ((column >= 0) & (column <= nx - 1) & (row >= 0) & (row <= ny - 1)).mean(axis=(1, 2)) > LEAST_INSIDE
    if not inside.any():
        return np.zeros((0, len(RADII), ANGLES))
    x, y = (np.asarray(part[inside].reshape(-1, ANGLES), np.float32) for part in (column, row))
    values = cv2.remap(smooth, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(values.reshape(-1, len(RADII), ANGLES), np.float64)
