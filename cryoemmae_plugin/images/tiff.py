"""TIFF: one page, integers or floats, any compression that tifffile reads with imagecodecs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffFile, TiffPage

from cryoemmae_plugin.errors import ImageError
from cryoemmae_plugin.images.decoding import decode
from cryoemmae_plugin.images.grey import to_grey
from cryoemmae_plugin.images.header import (
    MAX_PIXEL_SIZE_A,
    MIN_PIXEL_SIZE_A,
    ImageHeader,
    StackError,
    check_shape,
    square_pixel_size,
)

SUFFIXES = (".tif", ".tiff")
UNCOMPRESSED = 1
MOST_COMPRESSED = 2000
"""No compression makes an image of a microscope smaller than by this factor: what claims more is not there."""

ANGSTROM_PER_RESOLUTION_UNIT = {2: 2.54e8, 3: 1e8}
"""The standard's units: inch and centimetre."""

ANGSTROM_PER_IMAGEJ_UNIT = {
    "a": 1.0,
    "å": 1.0,
    "angstrom": 1.0,
    "nm": 10.0,
    "nanometer": 10.0,
    "um": 1e4,
    "µm": 1e4,
    "\\u00b5m": 1e4,
    "micron": 1e4,
    "mm": 1e7,
    "cm": 1e8,
    "inch": 2.54e8,
}


def read_header(path: Path) -> ImageHeader:
    """Read the header of a TIFF file."""
    with TiffFile(path) as tiff:
        page = _only_page(path, tiff)
        return ImageHeader((page.imagelength, page.imagewidth), _pixel_size(tiff, page), "tiff", _dtype(page).name)


def read_pixels(path: Path) -> NDArray[np.float32]:
    """Read the one page of a TIFF file, shape (ny, nx); colours become grey."""
    with TiffFile(path) as tiff:
        page = _only_page(path, tiff)
        pixels = page.asarray() if page.compression == UNCOMPRESSED else decode(path)
        return to_grey(np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else pixels)


def _only_page(path: Path, tiff: TiffFile) -> TiffPage:
    """Return the file's page once its tags have been checked against each other and against the file's size."""
    images = (tiff.imagej_metadata or {}).get("images", 1)
    pages = max(len(tiff.pages), images if isinstance(images, int) else 1)
    if pages != 1:
        raise StackError(f"{path}: holds {pages} pages, not one; pick on motion-corrected micrographs, one a file")
    page = tiff.pages.first
    check_shape(path, (page.imagelength, page.imagewidth))
    if page.axes not in ("YX", "YXS", "SYX") or page.samplesperpixel > 4:
        raise ImageError(f"{path}: holds an image of shape {page.shape} ({page.axes}), not rows by columns")
    if page.photometric == 3:
        raise ImageError(f"{path}: holds a colour palette; convert it to grey values")
    if _dtype(page).kind not in "uif":
        raise ImageError(f"{path}: holds pixels of type {page.dtype}; convert it to integers or float32")
    ends = [start + size for start, size in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if not ends or min(page.databytecounts) == 0 or max(ends) > tiff.filehandle.size:
        raise ImageError(
            f"{path}: expected image data up to byte {max(ends, default=0)}, found {tiff.filehandle.size} bytes; "
            "the file is truncated: copy it again"
        )
    _check_claim(path, page)
    return page


def _check_claim(path: Path, page: TiffPage) -> None:
    """Refuse a page that claims more pixels than its data can hold; what is missing would be read as 0."""
    held, segments = sum(page.databytecounts), math.prod(page.chunked)
    most = held if page.compression == UNCOMPRESSED else held * MOST_COMPRESSED
    if page.nbytes > most or segments > len(page.dataoffsets):
        raise ImageError(
            f"{path}: claims {page.imagewidth} x {page.imagelength} px, but holds only {held} bytes of image data in "
            f"{len(page.dataoffsets)} parts; the file is damaged: copy it again"
        )


def _dtype(page: TiffPage) -> np.dtype[np.generic]:
    return np.dtype("V1") if page.dtype is None else page.dtype


def _pixel_size(tiff: TiffFile, page: TiffPage) -> float | None:
    """Return Å per pixel from the resolution tags, or None if they describe a print rather than a micrograph."""
    unit = (tiff.imagej_metadata or {}).get("unit")
    if unit is None:
        unit_tag = page.tags.valueof("ResolutionUnit", 1)
        unit_A = ANGSTROM_PER_RESOLUTION_UNIT.get(int(unit_tag))
    else:
        unit_A = ANGSTROM_PER_IMAGEJ_UNIT.get(str(unit).strip().lower())
    x, y = (page.tags.valueof(name) for name in ("XResolution", "YResolution"))
    if unit_A is None or not x or not y or not all((*x, *y)):
        return None
    found = square_pixel_size(unit_A * x[1] / x[0], unit_A * y[1] / y[0])
    return found if found is not None and MIN_PIXEL_SIZE_A <= found <= MAX_PIXEL_SIZE_A else None
