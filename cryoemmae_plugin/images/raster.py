"""PNG and JPEG, 8 and 16 bit; an orientation noted by a camera is not applied."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cryoemmae_plugin.images.grey import to_grey
from cryoemmae_plugin.images.header import ImageHeader, check_shape

SUFFIXES = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")
GREY_MODES = ("L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
PNG_BIT_DEPTH_BYTE = 24


def read_header(path: Path) -> ImageHeader:
    """Read the header of a PNG or JPEG file; neither holds a pixel size that can be trusted."""
    with Image.open(path, formats=FORMATS) as image:
        shape = (image.height, image.width)
        file_format = "png" if image.format == "PNG" else "jpeg"
    check_shape(path, shape)
    return ImageHeader(shape, None, file_format, "uint16" if _has_16_bits(path, file_format) else "uint8")


def read_pixels(path: Path) -> NDArray[np.float32]:
    """Read a PNG or JPEG file, shape (ny, nx); colours become grey."""
    header = read_header(path)
    if header.dtype == "uint16":  # Pillow would reduce 16-bit colours to 8
        return to_grey(imagecodecs.png_decode(path.read_bytes()))
    with Image.open(path, formats=FORMATS) as image:
        return to_grey(np.asarray(image if image.mode in GREY_MODES else image.convert("RGB")))


def _has_16_bits(path: Path, file_format: str) -> bool:
    if file_format != "png":
        return False
    with path.open("rb") as file:
        return file.read(PNG_BIT_DEPTH_BYTE + 1)[PNG_BIT_DEPTH_BYTE] == 16
