"""MRC: modes 0, 1, 2, 6 and 12, either byte order, plain or compressed with gzip or bzip2.

Headers that RELION reads are read too: without ``MAP `` and machine stamp, with an announced extended header that is
absent, and with surplus bytes behind the pixels. The size of the file decides.

Mode 0 holds signed bytes by the MRC2014 standard, and unsigned ones in files of older programs. The stamp of IMOD tells
which, else the range of values in the header, else the values themselves.
"""

from __future__ import annotations

import bz2
import gzip
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import byte_order_from_machine_stamp, dtype_from_mode
from numpy.typing import NDArray

from cryoemmae_plugin.errors import ImageError
from cryoemmae_plugin.images.header import ImageHeader, StackError, check_shape, square_pixel_size

logger = logging.getLogger(__name__)

SUFFIXES = (".mrc", ".mrcs", ".rec", ".st", ".map")
COMPRESSED_SUFFIXES = (".gz", ".bz2")
MODES = (0, 1, 2, 6, 12)
MAX_EXTENDED_HEADER_BYTES = 2**26
HEADER_BYTES = HEADER_DTYPE.itemsize

IMOD_STAMP = 1146047817
IMOD_STAMP_BYTE, IMOD_SIGNED_FLAG = 152, 1
"""Where IMOD writes its stamp and, behind it, its flags; the lowest one says that bytes are signed."""


@dataclass(frozen=True)
class _Layout:
    """What a header says about the pixels.

    `signed` is None where mode 0 leaves open whether bytes are signed.
    """

    shape: tuple[int, int]
    dtype: np.dtype[np.generic]
    extended_bytes: int
    pixel_size_A: float | None
    signed: bool | None = True
    marked: bool = True

    @property
    def data_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * self.dtype.itemsize


def read_header(path: Path) -> ImageHeader:
    """Read the header of an MRC file; a plain file's length is checked against it."""
    with _open(path) as stream:
        layout = _read_layout(path, stream)
    if not _is_compressed(path):
        _find_pixels(path, layout, path.stat().st_size)
    return ImageHeader(layout.shape, layout.pixel_size_A, "mrc", layout.dtype.newbyteorder("=").name)


def read_pixels(path: Path) -> NDArray[np.float32]:
    """Read the one image of an MRC file, shape (ny, nx)."""
    with _open(path) as stream:
        layout = _read_layout(path, stream)
        if _is_compressed(path):
            stored = _decompress(path, stream, layout)
        else:
            offset, doubt = _find_pixels(path, layout, path.stat().st_size)
            _warn(path, doubt)
            stored = np.memmap(stream, layout.dtype, "r", offset, layout.shape)
        if layout.signed is None:
            stored = _guess_sign(path, stored)
        return np.array(stored, dtype=np.float32).reshape(layout.shape)


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
    marked = bytes(header["map"])[:3] == b"MAP"
    order = _byte_order(header)
    header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0]
    mode, nsymbt = int(header["mode"]), int(header["nsymbt"])
    nx, ny, nz = (int(header[name]) for name in ("nx", "ny", "nz"))
    if not marked and (mode not in MODES or nx < 1 or ny < 1 or nz < 1):
        raise ImageError(
            f"{path}: not an MRC file: {raw[208:212]!r} stands where 'MAP ' should, and mode and dimensions "
            "make no sense; copy it again, or convert it"
        )
    if mode not in MODES:
        raise ImageError(f"{path}: MRC mode {mode} is not one of {MODES}; convert it to float32 (mode 2)")
    check_shape(path, (ny, nx))
    if nz != 1:
        raise StackError(f"{path}: holds {nz} sections, not one; pick on motion-corrected micrographs, one a file")
    dtype: np.dtype[np.generic] = dtype_from_mode(mode).newbyteorder(order)
    signed: bool | None = True
    if mode == 0:
        signed = _are_bytes_signed(raw, header, order)
        dtype = np.dtype(np.uint8 if signed is False else np.int8)
    return _Layout((ny, nx), dtype, nsymbt, _pixel_size(header), signed, marked)


def _are_bytes_signed(raw: bytes, header: np.void, order: str) -> bool | None:
    """Say whether mode 0 holds signed bytes; None where stamp and range do not tell."""
    stamp, flags = np.frombuffer(raw, f"{order}i4", 2, IMOD_STAMP_BYTE)
    if stamp == IMOD_STAMP:
        return bool(flags & IMOD_SIGNED_FLAG)
    low, high = float(header["dmin"]), float(header["dmax"])
    if -128 <= low < 0 and low < high <= 127:
        return True
    if 0 <= low < high <= 255:
        return high <= 127  # up to 127 both readings are the same
    return None


def _guess_sign(path: Path, stored: NDArray[np.generic]) -> NDArray[np.generic]:
    """Take bytes as signed or unsigned, whichever makes them spread less: read the wrong way, they wrap around."""
    unsigned = stored.view(np.uint8)
    counts = np.bincount(unsigned.reshape(-1), minlength=256).astype(float)
    if not counts[128:].any():
        return stored
    values = np.arange(256.0)

    def variance(values: NDArray[np.float64]) -> float:
        mean = float((counts * values).sum() / counts.sum())
        return float((counts * (values - mean) ** 2).sum())

    signed = variance(np.where(values < 128, values, values - 256)) <= variance(values)
    _warn(
        path,
        f"its header does not say whether its bytes (mode 0) are signed; they are read as "
        f"{'signed' if signed else 'unsigned'}. If the picture looks wrong, write the file again as float32 (mode 2); "
        "changing the contrast setting does not help",
    )
    return stored if signed else unsigned


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


def _find_pixels(path: Path, layout: _Layout, found: int) -> tuple[int, str]:
    """Return where the pixels begin in a file of `found` bytes, and what is odd about that ("" for nothing).

    Raises
    ------
    ImageError
        When size and header do not leave one reading.
    """
    ny, nx = layout.shape
    claimed, plain = layout.extended_bytes, HEADER_BYTES + layout.data_bytes
    credible = 0 <= claimed <= MAX_EXTENDED_HEADER_BYTES
    if credible and found == plain + claimed:
        return HEADER_BYTES + claimed, ""
    image = f"{nx} x {ny} px of {layout.dtype.name}"
    if found == plain:
        return HEADER_BYTES, f"its header announces {claimed} bytes of extended header that are not there"
    if found < plain:
        raise ImageError(
            f"{path}: expected at least {plain} bytes for {image}, found {found}; the file is truncated: copy it again"
        )
    surplus = found - plain - claimed
    if layout.marked and credible and 0 < surplus < layout.data_bytes:
        return HEADER_BYTES + claimed, f"{surplus} surplus bytes behind the image are ignored"
    extended = f", or {plain + claimed} with the extended header that it announces" if claimed else ""
    raise ImageError(
        f"{path}: by its header, expected {plain} bytes for {image}{extended}, found {found}; "
        "the header does not fit the file: write it again"
    )


def _warn(path: Path, doubt: str) -> None:
    if doubt:
        logger.warning("%s: %s", path, doubt)


def _decompress(path: Path, stream: BinaryIO, layout: _Layout) -> NDArray[np.generic]:
    """Read the pixels from a stream that stands behind the first header.

    No more is kept than the header promises; of what follows, no more is looked at than could be surplus.
    """
    credible = 0 <= layout.extended_bytes <= MAX_EXTENDED_HEADER_BYTES
    body = stream.read(layout.data_bytes + (layout.extended_bytes if credible else 0))
    found = HEADER_BYTES + len(body)
    limit = found + layout.data_bytes
    while found < limit and (chunk := stream.read(min(2**20, limit - found))):
        found += len(chunk)
    offset, doubt = _find_pixels(path, layout, found)
    _warn(path, doubt)
    pixels = layout.shape[0] * layout.shape[1]
    return np.frombuffer(body, layout.dtype, pixels, offset - HEADER_BYTES).reshape(layout.shape)
