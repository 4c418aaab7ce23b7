"""Coordinate files as RELION's own Auto-picking writes them, and where RELION looks for them."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath

import numpy as np

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.files import MAX_NAME_BYTES
from cryoemmae_plugin.types import Picks

SIZE = "rlnParticleDiameter"
"""Column of the diameters in Å, where particles of several sizes are picked."""
COORDINATES_SUFFIX = "_autopick.star"
_AFTER_JOB = re.compile(r".+?/job\d{3}[^/]*/(.+)")
_ROWS_FROM_BELOW = (".tif", ".tiff")
_HEADER = """
data_

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
_rlnAutopickFigureOfMerit #3
_rlnClassNumber #4
_rlnAnglePsi #5
"""


def is_upside_down(name: str) -> bool:
    """Whether RELION counts the rows of a micrograph from the last one stored: those of a TIFF."""
    return name.lower().endswith(_ROWS_FROM_BELOW)


def root_of(name: str) -> str:
    """The path of a micrograph after its job's folder, without suffix, as RELION makes it.

    Raises
    ------
    InputError
        When it leads out of a folder that it is put into, or is too long for the name of a coordinate file.
    """
    found = _AFTER_JOB.fullmatch(name)
    path = PurePosixPath((found[1] if found else name).lstrip("/"))
    if ".." in path.parts:
        raise InputError(f"{name}: a path with '..' has no place in a job's folder; link the folder into the project")
    root = path.with_suffix("")
    length = len(os.fsencode(f"{root.name}{COORDINATES_SUFFIX}"))
    if length > MAX_NAME_BYTES:
        raise InputError(
            f"{name}: the name of its coordinate file would have {length} bytes, more than {MAX_NAME_BYTES}; "
            "rename the micrograph"
        )
    return str(root)


def format_coordinates(picks: Picks, upside_down: bool = False) -> str:
    """The text of a coordinate file: whole pixels, since Extract cuts decimals off; the group as the class number.

    Parameters
    ----------
    picks : Picks
        In pixels of the stored micrograph, row 0 the first row stored.
    upside_down : bool
        RELION counts the rows of a TIFF from the last one stored.
    """
    ny, nx = picks.shape
    x = np.clip(np.floor(picks.xy[:, 0] + 0.5), 0, nx - 1)
    y = np.clip(np.floor(picks.xy[:, 1] + 0.5), 0, ny - 1)
    group = [0] * len(picks) if picks.group is None else picks.group.tolist()
    sizes = [""] * len(picks) if picks.diameter_A is None else [f"{size:12.6f} " for size in picks.diameter_A]
    rows = zip(x, ny - 1 - y if upside_down else y, picks.score, group, sizes, strict=True)
    lines = (
        f"{x:12.6f} {y:12.6f} {score:12.6f} {number:12d} {0.0:12.6f} {size}\n" for x, y, score, number, size in rows
    )
    return _HEADER + ("" if picks.diameter_A is None else f"_{SIZE} #6\n") + "".join(lines) + "\n"
