"""MRC: modes 0, 1, 2, 6 and 12, either byte order, plain or compressed with gzip or bzip2.

Mode 0 is read as signed bytes, as the MRC2014 standard and mrcfile have it; old IMOD files that store unsigned bytes
under mode 0 appear wrapped at 128.
"""

from __future__ import annotations

import bz2
import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import mrcfile
import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import byte_order_from_machine_stamp, dtype_from_mode
from numpy.typing import NDArray

from cryoemmae_plugin.errors import ImageError
from cryoemmae_plugin.images.header import ImageHeader, check_shape, square_pixel_size

SUFFIXES = (".mrc", ".mrcs", ".rec", ".st", ".map")
COMPRESSED_SUFFIXES = (".gz", ".bz2")
MODES = (0, 1, 2, 6, 12)
MAX_EXTENDED_HEADER_BYTES = 2**26
HEADER_BYTES = HEADER_DTYPE.itemsize


@dataclass(frozen=True)
class _Layout:
    """Where a file's pixels are, and what they are."""

    shape: tuple[int, int]
    dtype: np.dtype[np.generic]
    offset: int
    pixel_size_A: float | None

    @property
    def data_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * self.dtype.itemsize


def read_header(path: Path) -> ImageHeader:
    """Read the header of an MRC file; a plain file's length is checked against it."""
    with _open(path) as stream:
        layout = _read_layout(path, stream)
    return ImageHeader(layout.shape, layout.pixel_size_A, "mrc", layout.dtype.newbyteorder("=").name)


def read_pixels(path: Path) -> NDArray[np.float32]:
    """Read the one image of an MRC file, shape (ny, nx)."""
    with _open(path) as stream:
        layout = _read_layout(path, stream)
        if _is_compressed(path):
            return _decompress(path, stream, layout)
    with mrcfile.mmap(path, mode="r", permissive=True) as mrc:
        return np.array(mrc.data, dtype=np.float32).reshape(layout.shape)


def _is_compressed(path: Path) -> bool:
    return path.suffix.lower() in COMPRESSED_SUFFIXES


def _open(path: Path) -> BinaryIO:
    match path.suffix.lower():
        case ".gz":
            return cast(BinaryIO, gzip.open(path))
        case ".bz2":
            return cast(BinaryIO, bz2.open(path))
    return path.open("rb")


def _read_layout(path: Path, stream: BinaryIO) -> _Layout:
    """Read and check everything that the header says, before anything is allocated for it."""
    raw = stream.read(HEADER_BYTES)
    if len(raw) < HEADER_BYTES:
        raise ImageError(f"{path}: {len(raw)} bytes are too few for an MRC header of {HEADER_BYTES}; copy it again")
    header = np.frombuffer(raw, HEADER_DTYPE)[0]
    if bytes(header["map"])[:3] != b"MAP":
        raise ImageError(f"{path}: not an MRC file: {bytes(header['map'])!r} stands where 'MAP ' should")
    order = _byte_order(header)
    header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0]
    mode, nsymbt = int(header["mode"]), int(header["nsymbt"])
    if mode not in MODES:
        raise ImageError(f"{path}: MRC mode {mode} is not one of {MODES}; convert it to float32 (mode 2)")
    nx, ny, nz = (int(header[name]) for name in ("nx", "ny", "nz"))
    check_shape(path, (ny, nx))
    if nz != 1:
        raise ImageError(f"{path}: holds {nz} sections, not one; pick on motion-corrected micrographs, one a file")
    if not 0 <= nsymbt <= MAX_EXTENDED_HEADER_BYTES:
        raise ImageError(f"{path}: the header says {nsymbt} bytes of extended header; the file is corrupt")
    dtype = dtype_from_mode(mode).newbyteorder(order)
    layout = _Layout((ny, nx), dtype, HEADER_BYTES + nsymbt, _pixel_size(header))
    if not _is_compressed(path):
        _check_bytes(path, layout, path.stat().st_size)
    return layout


def _byte_order(header: np.void) -> str:
    """Return "<" or ">": what the machine stamp says, unless the mode makes sense only the other way round.

    Stamps that are missing or wrong are met in the wild; mrcfile's permissive mode decides in the same way.
    """
    try:
        order = byte_order_from_machine_stamp(header["machst"])
    except ValueError:
        order = "<"
    other = "<" if order == ">" else ">"
    stored = header["mode"].tobytes()
    modes = {o: int(np.frombuffer(stored, f"{o}i4")[0]) for o in (order, other)}
    return other if modes[order] not in MODES and modes[other] in MODES else str(order)


def _pixel_size(header: np.void) -> float | None:
    """Return Å per pixel: the cell's edges over the sampling along them."""
    cell, samples = header["cella"], (int(header["mx"]), int(header["my"]))
    if min(samples) < 1:
        return None
    return square_pixel_size(float(cell["x"]) / samples[0], float(cell["y"]) / samples[1])


def _check_bytes(path: Path, layout: _Layout, found: int) -> None:
    expected = layout.offset + layout.data_bytes
    if found != expected:
        ny, nx = layout.shape
        problem = "truncated: copy it again" if found < expected else "or its header is wrong: write it again"
        raise ImageError(
            f"{path}: expected {expected} bytes for {nx} x {ny} px of {layout.dtype.name} after {layout.offset} bytes "
            f"of headers, found {found}; the file is {problem}"
        )


def _decompress(path: Path, stream: BinaryIO, layout: _Layout) -> NDArray[np.float32]:
    """Read the pixels from a stream that stands behind the first header.

    mrcfile would decompress the whole file to learn its size; here no more than the header promises is read, and one
    byte on top to see that it ends there.
    """
    stream.seek(layout.offset)
    raw = stream.read(layout.data_bytes)
    excess = stream.read(1)
    _check_bytes(path, layout, layout.offset + len(raw) + len(excess))
    return np.frombuffer(raw, layout.dtype).astype(np.float32).reshape(layout.shape)
