"""Boxes of EMAN and crYOLO: one file a micrograph, with lower left corners where y grows with the row stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.files import atomic_write, read_table
from cryoemmae_plugin.picks.table import PickTable
from cryoemmae_plugin.star import find_table, read_star, to_number
from cryoemmae_plugin.types import Picks

_CBOX_COLUMNS = (
    "CoordinateX",
    "CoordinateY",
    "CoordinateZ",
    "Width",
    "Height",
    "Depth",
    "EstWidth",
    "EstHeight",
    "Confidence",
    "NumBoxes",
    "Angle",
)


Diameters = float | NDArray[np.float64]
"""One diameter in pixels, or one for each pick."""


def write_box(path: Path, picks: Picks, diameter_px: Diameters) -> None:
    """Write picks as EMAN1 boxes.

    A line is ``x y width height``: the lower left corner of the box in whole pixels, where y grows with the row stored
    in the MRC (row 0 lowest), and twice its side, the particle's diameter made even.
    """
    with atomic_write(path) as file:
        for (x, y), side in zip(picks.xy.tolist(), _sides(picks, diameter_px), strict=True):
            file.write(f"{round(x - side / 2)}\t{round(y - side / 2)}\t{side}\t{side}\n")


def write_cbox(path: Path, picks: Picks, diameter_px: Diameters) -> None:
    """Write picks as crYOLO's CBOX, version 1.0: lower left corners as in EMAN's boxes, with the figure of merit."""
    with atomic_write(path) as file:
        file.write("\ndata_global\n\n_cbox_format_version 1.0\n\ndata_cryolo\n\nloop_\n")
        file.writelines(f"_{name} #{number}\n" for number, name in enumerate(_CBOX_COLUMNS, 1))
        rows = zip(picks.xy.tolist(), picks.score.tolist(), _sides(picks, diameter_px), strict=True)
        for (x, y), score, side in rows:
            corner = f"{x - side / 2:.3f} {y - side / 2:.3f} <NA>"
            file.write(f"{corner} {side} {side} <NA> {side} {side} {score:.6f} <NA> <NA>\n")
        file.write("\ndata_cryolo_include\n\nloop_\n_slice_index #1\n\n")


def _sides(picks: Picks, diameter_px: Diameters) -> list[int]:
    """The side of each box: the diameter made even."""
    return [2 * max(1, round(side / 2)) for side in np.broadcast_to(diameter_px, len(picks)).tolist()]


def read_box(path: Path) -> PickTable:
    """Read EMAN1 boxes.

    Raises
    ------
    InputError
        When the file cannot be read, or a line is not four numbers.
    """
    rows = []
    for number, line in enumerate(read_table(path, "EMAN boxes").splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        values = [to_number(word) for word in words[:4]]
        if len(values) < 4 or None in values:
            raise InputError(
                f"{path}, line {number}: {line.strip()[:40]!r} is no box; a line is x, y, width and height in pixels"
            )
        rows.append(values)
    return _from_corners(path, np.array(rows, np.float64).reshape(-1, 4), np.full(len(rows), np.nan))


def read_cbox(path: Path) -> PickTable:
    """Read crYOLO's CBOX.

    Raises
    ------
    InputError
        When the file cannot be read, or is no CBOX of micrographs.
    """
    table = find_table(read_star(path), "cryolo")
    if table is None:
        raise InputError(f"{path}: no table data_cryolo in it; give a .cbox file that crYOLO has written")
    if not table.rows:
        return _from_corners(path, np.zeros((0, 4)), np.zeros(0))
    corners = np.stack([table.numbers(name) for name in ("CoordinateX", "CoordinateY", "Width", "Height")], axis=1)
    score = table.numbers("Confidence") if "Confidence" in table else [float("nan")] * len(table)
    return _from_corners(path, corners, np.array(score))


def _from_corners(path: Path, corners: NDArray[np.float64], score: NDArray[np.float64]) -> PickTable:
    """Make picks of boxes (N, 4): x, y, width, height."""
    xy = corners[:, :2] + corners[:, 2:] / 2
    side = float(np.median(corners[:, 2:])) if len(corners) else None
    return PickTable(str(path), xy, score, diameter_px=side, named_by_file=True)
