"""Micrograph files in, arrays out: MRC, TIFF, PNG and JPEG.

One convention for every format: array row 0 is the first row stored in the file, and nothing is flipped, rotated or
rescaled. (RELION turns TIFF files upside down when it reads them; undoing that is the business of its adapter.)
"""

from cryoemmae_plugin.images.header import ImageHeader, StackError, pixel_size_of
from cryoemmae_plugin.images.reading import READABLE_SUFFIXES, is_readable, read_header, read_image

__all__ = [
    "READABLE_SUFFIXES",
    "ImageHeader",
    "StackError",
    "is_readable",
    "pixel_size_of",
    "read_header",
    "read_image",
]
