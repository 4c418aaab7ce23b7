"""The pictures of a report: each micrograph as it is, low-passed to the particle, and denoised."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cryoemmae_plugin.core.default import GRID_DIAMETER_PX
from cryoemmae_plugin.core.geometry import MicrographFrame
from cryoemmae_plugin.run.overlay_picture import LOW_PASS_DIAMETERS, STRETCH_PERCENTILES

LONG_SIDE_PX = 2048
"""Longest side of a picture."""
DIAMETER_PX = 40.0
"""Diameter of a particle in a picture: finer detail is noise after the low-pass."""
THUMBNAIL_PX = 96
JPEG_QUALITY = 85
DENOISE_DEVIATIONS = (2.0, 1.5, 0.7)
"""Detail below this many deviations of its scale is noise; from the second finest scale on. The finest is all noise."""
BACKGROUND_SIGMA, BACKGROUND_STEP = 1.5, 4
"""Gaussian width of the background in diameters, and by how much coarser than the model's grid it is taken."""
CLIP = 6.0
"""Flattened pixels are cut at plus and minus this many deviations."""
PERCENTILE_PIXELS = 100_000
"""Grey levels are stretched by percentiles of about this many pixels."""


@dataclass(frozen=True)
class MicrographPictures:
    """The pictures of one micrograph as contents of JPEG files, and what class averages are cut from.

    Attributes
    ----------
    flattened : ndarray, shape (rows, columns), float32
        Flat background, particles dark, on the model's grid.
    frame : MicrographFrame
        Map between pixels of the micrograph and of `flattened`.
    """

    low_passed: bytes
    denoised: bytes
    thumbnail: bytes
    flattened: NDArray[np.float32]
    frame: MicrographFrame


def draw_pictures(
    image: NDArray[np.float32], diameter_px: float, *, bright_particles: bool, note: str
) -> MicrographPictures:
    """Draw the pictures of one micrograph; row 0 of the image is the top row.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        Stored pixels.
    diameter_px : float
        Particle diameter in pixels of `image`.
    bright_particles : bool
        Whether particles are brighter than the ice.
    note : str
        Kept in the files as a comment.
    """
    scale = min(1.0, LONG_SIDE_PX / max(image.shape), DIAMETER_PX / diameter_px)
    shape = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    low_passed = stretch(cv2.GaussianBlur(small, (0, 0), max(LOW_PASS_DIAMETERS * diameter_px * scale, 0.5)))
    flattened = flatten(-small if bright_particles else small, diameter_px * scale)
    denoised = denoise(flattened)
    shrink = THUMBNAIL_PX / max(shape)
    thumbnail = cv2.resize(low_passed, (0, 0), fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return MicrographPictures(
        jpeg_bytes(low_passed, note),
        jpeg_bytes(stretch(-denoised if bright_particles else denoised), note),
        jpeg_bytes(thumbnail, note),
        flattened,
        MicrographFrame((image.shape[0], image.shape[1]), (flattened.shape[0], flattened.shape[1])),
    )


def flatten(image: NDArray[Any], diameter_px: float) -> NDArray[np.float32]:
    """Bring an image to the model's scale, subtract its background, and scale its noise to one.

    A quick likeness of the background flattening that picking does: good to look at and to average.
    """
    scale = GRID_DIAMETER_PX / diameter_px
    shape = (max(8, round(image.shape[1] * scale)), max(8, round(image.shape[0] * scale)))
    grid = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    small = (max(2, shape[0] // BACKGROUND_STEP), max(2, shape[1] // BACKGROUND_STEP))
    coarse = cv2.resize(grid, small, interpolation=cv2.INTER_AREA)
    coarse = cv2.GaussianBlur(coarse, (0, 0), BACKGROUND_SIGMA * GRID_DIAMETER_PX / BACKGROUND_STEP)
    flat = grid - cv2.resize(coarse, shape, interpolation=cv2.INTER_LINEAR)
    deviation = 1.4826 * float(np.median(np.abs(flat[::3, ::3])))
    return np.asarray(np.clip(flat / max(deviation, 1e-12), -CLIP, CLIP), np.float32)


def denoise(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Remove detail that noise alone explains: soft thresholds on à trous wavelets (Starck and Murtagh 1994).

    Parameters
    ----------
    pixels : ndarray, shape (rows, columns), float32
        Conditioned, on the model's grid. The result has the same shape and units.
    """
    smooth, kept = _blur(pixels, 0), np.zeros_like(pixels)
    for scale, deviations in enumerate(DENOISE_DEVIATIONS, 1):
        coarser = _blur(smooth, scale)
        detail = smooth - coarser
        least = deviations * float(np.median(np.abs(detail[::2, ::2]))) / 0.6745
        kept += np.sign(detail) * np.maximum(np.abs(detail) - least, 0)
        smooth = coarser
    return np.asarray(kept + smooth, np.float32)


def _blur(pixels: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    """Blur with the cubic B-spline that has 2**scale - 1 zeros between its values."""
    kernel = np.zeros(4 * 2**scale + 1, np.float32)
    kernel[:: 2**scale] = np.array([1, 4, 6, 4, 1], np.float32) / 16
    return np.asarray(cv2.sepFilter2D(pixels, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REFLECT))


def stretch(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Stretch grey levels to 0..255."""
    step = max(1, round((image.size / PERCENTILE_PIXELS) ** 0.5))
    low, high = np.percentile(image[::step, ::step], STRETCH_PERCENTILES)
    grey: NDArray[np.uint8] = np.clip((image - low) * (255 / max(high - low, 1e-12)), 0, 255).astype(np.uint8)
    return grey


def jpeg_bytes(grey: NDArray[Any], note: str) -> bytes:
    """The content of a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "JPEG", quality=JPEG_QUALITY, comment=note.encode())
    return buffer.getvalue()
