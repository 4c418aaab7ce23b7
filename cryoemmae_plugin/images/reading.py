"""One door for every format: find the reader by suffix, and refuse images that cannot be picked."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cryoemmae_plugin.errors import ImageError
from cryoemmae_plugin.images import mrc, raster, tiff
from cryoemmae_plugin.images.header import ImageHeader

READABLE_SUFFIXES = (
    *mrc.SUFFIXES,
    *(image + compressed for image in mrc.SUFFIXES for compressed in mrc.COMPRESSED_SUFFIXES),
    *tiff.SUFFIXES,
    *raster.SUFFIXES,
)
"""Suffixes of the files that can be read, in lower case."""

MAX_PIXEL_VALUE = 1e15
"""Larger values are damage; their squares would no longer fit float32."""

DECODING_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    MemoryError,
    RuntimeError,
    SyntaxError,  # Pillow, for broken PNG chunks
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What the image libraries raise when a file is not what it says."""


class _Reader(Protocol):
    """What each format's module offers."""

    def read_header(self, path: Path) -> ImageHeader: ...

    def read_pixels(self, path: Path) -> NDArray[np.float32]: ...


def is_readable(path: Path) -> bool:
    """Say whether a file's name has one of `READABLE_SUFFIXES`."""
    return path.name.lower().endswith(READABLE_SUFFIXES)


def read_header(path: Path) -> ImageHeader:
    """Read a micrograph's shape, type and pixel size without its pixels.

    Raises
    ------
    ImageError
        The file is missing, empty, of an unknown kind, truncated, a stack, or its header makes no sense.
    """
    with _readable(path) as reader:
        return reader.read_header(path)


def read_image(path: Path) -> NDArray[np.float32]:
    """Read a micrograph.

    Parameters
    ----------
    path : Path
        MRC (modes 0, 1, 2, 6, 12; also .gz and .bz2), TIFF, PNG or JPEG, one image in the file.

    Returns
    -------
    ndarray, shape (ny, nx), float32
        Pixel values as stored; row 0 is the first row stored in the file, whatever the format.

    Raises
    ------
    ImageError
        As `read_header`; also an image with NaN or infinite pixels, or of one value throughout.
    """
    with _readable(path) as reader:
        image = reader.read_pixels(path)
    _check_content(path, image)
    return image


@contextmanager
def _readable(path: Path) -> Iterator[_Reader]:
    """Yield the reader for a file, and turn whatever a library raises while it reads into an `ImageError`."""
    reader = _reader_for(path)
    try:
        if not path.is_file():
            state = "not a file" if path.exists() else "no such file"
            raise ImageError(f"{path}: {state}; check the path")
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty; copy it again")
        yield reader
    except PermissionError as err:
        raise ImageError(f"{path}: you may not read it; check its permissions and those of its folder") from err
    except DECODING_ERRORS as err:
        raise ImageError(f"{path}: cannot be read ({err or type(err).__name__}); copy it again, or convert it") from err


def _reader_for(path: Path) -> _Reader:
    name = path.name.lower()
    stem = name.removesuffix(".gz").removesuffix(".bz2")
    if stem.endswith(mrc.SUFFIXES):
        return mrc
    if name.endswith(tiff.SUFFIXES):
        return tiff
    if name.endswith(raster.SUFFIXES):
        return raster
    raise ImageError(f"{path}: not a micrograph by its name; readable are {' '.join(READABLE_SUFFIXES)}")


def _check_content(path: Path, image: NDArray[np.float32]) -> None:
    """Refuse an image without information. NaN passes through min and max, so two quick passes see everything."""
    low, high = float(image.min()), float(image.max())
    if not np.isfinite(low) or not np.isfinite(high):
        bad = image.size - int(np.isfinite(image).sum())
        raise ImageError(
            f"{path}: {bad} of {image.size} pixels are NaN or infinite; "
            "repeat the motion correction or leave the file out"
        )
    if max(-low, high) > MAX_PIXEL_VALUE:
        raise ImageError(
            f"{path}: pixels lie between {low:g} and {high:g}, which no camera records; "
            "repeat the motion correction or leave the file out"
        )
    if low == high:
        raise ImageError(f"{path}: every pixel is {low:g}; there is nothing to pick, leave the file out")
