"""What a micrograph file says about its image before the pixels are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from cryoemmae_plugin.errors import ImageError, PixelSizeError

MAX_PIXELS = 2**28
"""Largest image that is read: 16384 x 16384, four times a K3 camera's super-resolution frame. Headers that claim more
are broken or hostile, and nothing is allocated for them."""

MIN_PIXEL_SIZE_A, MAX_PIXEL_SIZE_A = 0.05, 100.0
"""A micrograph's pixel size lies between these; what a header says beyond them is not a pixel size."""

UNSET_PIXEL_SIZE_A = 1.0
"""What programs write into a header when they do not know the pixel size."""


class StackError(ImageError):
    """A file holds a movie or a stack, not one micrograph."""


@dataclass(frozen=True)
class ImageHeader:
    """Shape, type and pixel size of a stored image.

    Attributes
    ----------
    shape : tuple of int
        (ny, nx): rows and columns in pixels.
    pixel_size_A : float or None
        Å per pixel as the file has it; None if it has none, or different ones in x and y.
    format : str
        "mrc", "tiff", "png" or "jpeg".
    dtype : str
        numpy name of the stored pixels' type, such as "int16".
    """

    shape: tuple[int, int]
    pixel_size_A: float | None
    format: str
    dtype: str


def check_shape(path: Path, shape: tuple[int, int]) -> None:
    """Refuse dimensions that no micrograph has.

    Raises
    ------
    ImageError
        A side is zero or negative, or there are more than `MAX_PIXELS` pixels.
    """
    ny, nx = shape
    if ny < 1 or nx < 1:
        raise ImageError(f"{path}: the header says {nx} x {ny} px; the file is corrupt, write it again")
    if ny * nx > MAX_PIXELS:
        limit = math.isqrt(MAX_PIXELS)
        raise ImageError(
            f"{path}: the header says {nx} x {ny} px, more than {limit} x {limit}; "
            "the file is corrupt, or a montage to be cut into micrographs"
        )


def pixel_size_of(path: Path, header: ImageHeader, override: float | None = None) -> float:
    """Return a micrograph's pixel size in Å.

    Parameters
    ----------
    path : Path
        The file, for messages.
    override : float or None
        Å per pixel that the user gave; wins over the header, and may be 1.0.

    Raises
    ------
    PixelSizeError
        The override is not a pixel size, or there is none and the header's is missing, out of range, or 1.0, which
        programs write when they do not know it.
    """
    if override is not None:
        if not 0 < override < math.inf:
            raise PixelSizeError(
                f"{path}: $pixel_size_A is {override}",
                setting="pixel_size_A",
                value=override,
                remedy="give Å per pixel, greater than 0",
            )
        return float(override)
    found = header.pixel_size_A
    remedy = "give it with $pixel_size_A, in Å per pixel"
    if found is None:
        raise PixelSizeError(f"{path}: the file holds no pixel size", remedy=remedy)
    if math.isclose(found, UNSET_PIXEL_SIZE_A, rel_tol=1e-6):
        raise PixelSizeError(
            f"{path}: the header's pixel size is {found:g} Å, which usually means that it was never set",
            remedy=f"{remedy} ($pixel_size_A=1.0 if it is true)",
        )
    if not MIN_PIXEL_SIZE_A <= found <= MAX_PIXEL_SIZE_A:
        raise PixelSizeError(f"{path}: the header's pixel size is {found:g} Å, which no micrograph has", remedy=remedy)
    return found


def square_pixel_size(x_A: float, y_A: float) -> float | None:
    """Return the common pixel size of both axes in Å, or None if there is none or they differ by more than 1 %."""
    if not (0 < x_A < math.inf and 0 < y_A < math.inf) or not math.isclose(x_A, y_A, rel_tol=0.01):
        return None
    return x_A
