"""One micrograph at every size: how strongly it responds to dark blobs of each size, and what these look like.

Nothing here knows the particle's diameter; lengths are in Å, or in units of the size that is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

SMALLEST_A, LARGEST_A = 50.0, 700.0
"""Sizes that are looked at."""
STEP = 1.12
SIZES_A = SMALLEST_A * STEP ** np.arange(int(np.log(LARGEST_A / SMALLEST_A) / np.log(STEP)) + 1)
LEAST_PX = 8.0
"""Pixels to a size: finer micrographs are reduced."""
COARSEST_PX = 6.0
"""Sizes of fewer pixels in the micrograph as it is are not looked at."""
LARGEST_SHARE = 1 / 3
"""Nor are sizes beyond this share of the frame's shorter side."""
BACKGROUND_A = 700.0
"""Gaussian width over which background and local deviation are taken."""
HOT_SIGMAS, CLIP_SIGMAS = 8.0, 6.0
"""Cut of raw pixels, and of pixels on the flat background."""
NARROW, WIDE = 0.22, 0.35
"""Gaussian widths whose difference answers to blobs, in sizes: most simulated shapes answer most at about their
diameter."""
RESPONSE_CLIP = 4.0
"""Response beyond so many deviations counts no further: contamination must not choose the size."""
PEAK_SPACING = 0.35
"""Least distance between two blobs, in sizes."""
LEAST_VALID_PX, LEAST_SIDE_PX = 300, 32
"""Pixels of image without which a size says nothing; side of the coarsest level."""
STANDS_OUT = 3.5
"""Response of a blob that stands out."""
SMEAR_BOX_PX, SMEAR_SHARE = 7, 0.3
"""Where pixels change, in a box, by less than this share of the median change, there is smear, not image."""
DEVIATION_FLOOR = 0.5
"""Least local deviation, as a share of the median one."""
SAMPLE = 200_000
"""Pixels from which quantiles are taken."""


@dataclass(frozen=True)
class Level:
    """The flat micrograph at one pixel size: protein positive, noise about 1; `valid` where there is image."""

    pixels: Image
    valid: Mask
    pixel_size_A: float


@dataclass(frozen=True)
class Response:
    """The answer to dark blobs of one size, in robust deviations, and where it can be trusted."""

    sigmas: Image
    valid: Mask
    level: Level
    size_px: float


@dataclass(frozen=True)
class SizeScan:
    """What one micrograph says of every size of `SIZES_A`.

    Attributes
    ----------
    levels : tuple of Level
        Finest first, each half of the one before.
    strength : ndarray, shape (sizes,)
        Skewness of the response, which noise leaves at 0; NaN for sizes that cannot be looked at.
    dark, bright : ndarray, shape (sizes,)
        Blobs that stand out, and as many bright ones.
    """

    levels: tuple[Level, ...]
    strength: NDArray[np.float64]
    dark: NDArray[np.int64]
    bright: NDArray[np.int64]


def scan_sizes(image: NDArray[np.float32], pixel_size_A: float, *, bright: bool = False) -> SizeScan:
    """Look at a micrograph at every size.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
        Stored pixels.
    pixel_size_A : float
        Å per pixel.
    bright : bool
        Whether particles are lighter than the ice.
    """
    levels = make_levels(-image if bright else image, pixel_size_A)
    strength = np.full(len(SIZES_A), np.nan)
    counts = np.zeros((2, len(SIZES_A)), np.int64)
    for at, size_A in enumerate(SIZES_A):
        response = respond(levels, float(size_A))
        if response is None:
            continue
        inside = response.sigmas[response.valid].clip(-RESPONSE_CLIP, RESPONSE_CLIP)
        strength[at] = (inside.astype(np.float64) ** 3).mean()
        counts[0, at] = len(find_blobs(response, STANDS_OUT)[0])
        counts[1, at] = len(find_blobs(replace(response, sigmas=-response.sigmas), STANDS_OUT)[0])
    return SizeScan(levels, strength, counts[0], counts[1])


def make_levels(image: NDArray[np.float32], pixel_size_A: float) -> tuple[Level, ...]:
    """Flatten a micrograph whose particles are dark, and reduce it step by step."""
    reduced, pixel_size_A = _reduce(_cut_hot_pixels(image), pixel_size_A)
    valid = _find_image(reduced)
    levels = [Level(_flatten(reduced, valid, pixel_size_A), valid, pixel_size_A)]
    while min(levels[-1].valid.shape) >= 2 * LEAST_SIDE_PX:
        levels.append(_halve(levels[-1]))
    return tuple(levels)


def respond(levels: tuple[Level, ...], size_A: float) -> Response | None:
    """Answer to blobs of one size; None where they are too small or too large to be seen, or nothing is valid."""
    finest = levels[0]
    if not COARSEST_PX <= size_A / finest.pixel_size_A <= LARGEST_SHARE * min(finest.valid.shape):
        return None
    level = level_for(levels, size_A)
    size_px = size_A / level.pixel_size_A
    difference = blur(level.pixels, NARROW * size_px) - blur(level.pixels, WIDE * size_px)
    valid = level.valid.copy()
    edge = int(np.ceil(0.5 * size_px))
    valid[:edge] = valid[-edge:] = valid[:, :edge] = valid[:, -edge:] = False
    if np.count_nonzero(valid) < LEAST_VALID_PX:
        return None
    inside = difference[valid]
    median = np.median(inside)
    sigma = max(1.4826 * float(np.median(np.abs(inside - median))), 1e-9)
    return Response((difference - median) / sigma, valid, level, size_px)


def level_for(levels: tuple[Level, ...], size_A: float) -> Level:
    """The coarsest level that still has `LEAST_PX` pixels to the size."""
    fine = [level for level in levels if size_A / level.pixel_size_A >= LEAST_PX]
    return fine[-1] if fine else levels[0]


def find_blobs(response: Response, least: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Find local maxima of at least `least` deviations: columns and rows, shape (N, 2), and heights, highest first."""
    reach = max(1, int(PEAK_SPACING * response.size_px))
    highest = cv2.dilate(response.sigmas, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    row, column = np.nonzero((response.sigmas == highest) & (response.sigmas >= least) & response.valid)
    height = response.sigmas[row, column]
    order = np.argsort(-height, kind="stable")
    return np.stack([column, row], axis=1)[order].astype(np.float32), height[order]


def blur(image: Image, sigma_px: float) -> Image:
    """Gaussian blur, mirrored at the borders."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT), np.float32)


def _cut_hot_pixels(image: NDArray[np.float32]) -> Image:
    sample = image.reshape(-1)[:: max(1, image.size // SAMPLE) | 1]
    low, median, high = np.quantile(sample, [0.1587, 0.5, 0.8413])
    sigma = (high - low) / 2 or float(sample.std())
    return np.asarray(image.clip(median - HOT_SIGMAS * sigma, median + HOT_SIGMAS * sigma), np.float32)


def _reduce(image: Image, pixel_size_A: float) -> tuple[Image, float]:
    """Reduce to `LEAST_PX` pixels per smallest size, by areas; never enlarge."""
    factor = pixel_size_A * LEAST_PX / SMALLEST_A
    if factor >= 1:
        return image, pixel_size_A
    ny, nx = (max(8, round(n * factor)) for n in image.shape)
    reduced = cv2.resize(image, (nx, ny), interpolation=cv2.INTER_AREA)
    return np.asarray(reduced, np.float32), pixel_size_A * image.shape[0] / ny


def _halve(level: Level) -> Level:
    ny, nx = (n // 2 for n in level.valid.shape)
    pixels, valid = (
        cv2.resize(np.asarray(layer[: 2 * ny, : 2 * nx], np.float32), (nx, ny), interpolation=cv2.INTER_AREA)
        for layer in (level.pixels, level.valid)
    )
    return Level(np.asarray(pixels, np.float32), valid > 0.5, 2 * level.pixel_size_A)


def _find_image(reduced: Image) -> Mask:
    """Tell image from smeared or padded borders, where pixels repeat along an axis."""
    box = (SMEAR_BOX_PX, SMEAR_BOX_PX)
    along_y = cv2.blur(np.abs(np.diff(reduced, axis=0, append=reduced[-1:])), box)
    along_x = cv2.blur(np.abs(np.diff(reduced, axis=1, append=reduced[:, -1:])), box)
    change = np.minimum(along_y, along_x)
    repeated = (change < SMEAR_SHARE * np.median(change)).astype(np.uint8)
    core = cv2.erode(repeated, np.ones(box, np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    grown = cv2.dilate(core, np.ones((2 * SMEAR_BOX_PX - 1,) * 2, np.uint8))
    return np.asarray(grown == 0)


def _flatten(image: Image, valid: Mask, pixel_size_A: float) -> Image:
    """Protein positive on a flat background, divided by the local deviation, outliers cut; 0 outside `valid`."""
    mask, width = valid.astype(np.float32), BACKGROUND_A / pixel_size_A
    weight = np.maximum(blur_widely(mask, width), 1e-2)
    residual = (image - image[valid].mean() if valid.any() else image) * mask
    residual = (residual - blur_widely(residual, width) / weight) * mask
    spread = 1.4826 * float(np.median(np.abs(residual[valid]))) if valid.any() else 1.0
    tame = residual.clip(-4 * spread, 4 * spread)
    deviation = np.sqrt(np.maximum(blur_widely(tame**2, width) / weight, 0))
    deviation = np.maximum(deviation, DEVIATION_FLOOR * np.median(deviation))
    return np.asarray((-residual / np.maximum(deviation, 1e-9)).clip(-CLIP_SIGMAS, CLIP_SIGMAS), np.float32)


def blur_widely(image: Image, sigma_px: float) -> Image:
    """Gaussian blur on a reduced copy, of at most a third of the frame."""
    ny, nx = image.shape
    sigma = min(sigma_px, min(ny, nx) / 3)
    factor = max(1.0, sigma / 6)
    coarse = max(2, round(nx / factor)), max(2, round(ny / factor))
    small = np.asarray(cv2.resize(image, coarse, interpolation=cv2.INTER_AREA), np.float32)
    return np.asarray(cv2.resize(blur(small, sigma / factor), (nx, ny), interpolation=cv2.INTER_LINEAR), np.float32)
