"""The table of positions with the columns micrograph, x, y, diameter and, where it is there, score."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.files import atomic_write, read_table
from cryoemmae_plugin.picks.table import PickTable
from cryoemmae_plugin.star import to_number

COLUMNS = ("micrograph", "x", "y", "diameter")
SCORE = "score"


def read_csv(path: Path) -> list[PickTable]:
    """Read positions in pixels of the stored image; a row with empty x and y names a micrograph without any.

    Raises
    ------
    InputError
        When the file cannot be read as such a table.
    """
    centres: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    diameters: dict[str, float] = {}
    for line, row in _rows(path):
        name = row["micrograph"].strip()
        if not name:
            raise InputError(f"{path}, line {line}: no micrograph is named; complete or delete the line")
        x, y, diameter = (_number(path, line, label, row[label]) for label in ("x", "y", "diameter"))
        score = to_number(row.get(SCORE) or "")
        if diameter is None or diameter <= 0:
            raise InputError(f"{path}, line {line}: the diameter must be greater than 0; correct the line")
        diameters.setdefault(name, diameter)
        if x is not None and y is not None:
            centres[name].append((x, y, float("nan") if score is None else score))
        elif x is not None or y is not None:
            raise InputError(f"{path}, line {line}: one of x and y is missing; complete or delete the line")
    found = []
    for name, diameter in diameters.items():
        values = np.array(centres[name], np.float64).reshape(-1, 3)
        found.append(PickTable(name, values[:, :2].copy(), values[:, 2].copy(), diameter_px=diameter))
    return found


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows with their lines in the file."""
    text = read_table(path, "a CSV table").removeprefix("\ufeff")
    rows = csv.DictReader(text.splitlines(), restval="", skipinitialspace=True)
    try:
        columns = [name.strip() for name in rows.fieldnames or ()]
        missing = [name for name in COLUMNS if name not in columns]
        if missing:
            raise InputError(
                f"{path}: the column {missing[0]!r} is missing; a reference has the columns "
                f"{', '.join(COLUMNS)}, with commas between them"
            )
        rows.fieldnames = columns
        for row in rows:
            yield rows.line_num, row
    except csv.Error as err:
        raise InputError(f"{path}, line {rows.line_num}: cannot be read as a CSV table ({err}); correct it") from err


def _number(path: Path, line: int, label: str, text: str) -> float | None:
    """Return a number, or None for an empty cell."""
    if text.strip().lower() in ("", "nan"):
        return None
    number = to_number(text)
    if number is None:
        raise InputError(f"{path}, line {line}: {label} is {text[:40]!r}; x, y and diameter must be numbers")
    return number


def write_csv(path: Path, tables: Iterable[PickTable]) -> None:
    """Write a table; the diameters must be known."""
    with atomic_write(path) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow((*COLUMNS, SCORE))
        for table in tables:
            side = f"{table.diameter_px or 0:.2f}"
            if not len(table):
                rows.writerow((table.micrograph, "", "", side, ""))
            for (x, y), score in zip(table.xy.tolist(), table.score.tolist(), strict=True):
                merit = "" if np.isnan(score) else f"{score:.6f}"
                rows.writerow((table.micrograph, f"{x:.3f}", f"{y:.3f}", side, merit))
