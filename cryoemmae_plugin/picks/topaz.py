"""Topaz's tables: one file of many micrographs, tabs between the columns."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.files import atomic_write, read_table
from cryoemmae_plugin.picks.identity import stem_of
from cryoemmae_plugin.picks.table import PickTable
from cryoemmae_plugin.star import to_number

NAME, X, Y, SCORE = "image_name", "x_coord", "y_coord", "score"


def read_topaz(path: Path) -> list[PickTable]:
    """Read a table with image_name, x_coord, y_coord and, where it is there, score.

    Coordinates are pixels of the images that Topaz has seen, often binned ones.

    Raises
    ------
    InputError
        When the file cannot be read as such a table.
    """
    text = read_table(path, "a Topaz table").removeprefix("\ufeff")
    try:
        rows = list(csv.reader(text.splitlines(), delimiter="\t"))
    except csv.Error as err:
        raise InputError(f"{path}: cannot be read as a Topaz table ({err}); correct it") from err
    head = [name.strip() for name in rows[0]] if rows else []
    if not {NAME, X, Y} <= set(head):
        raise InputError(
            f"{path}: no columns {NAME}, {X} and {Y} with tabs between them; give a table that Topaz has written"
        )
    found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for line, row in enumerate(rows[1:], 2):
        if row:
            values = dict(zip(head, row, strict=False))
            found[values.get(NAME, "")].append(_numbers(path, line, values))
    return [_table(name, np.array(values)) for name, values in found.items()]


def _numbers(path: Path, line: int, row: dict[str, str]) -> tuple[float, ...]:
    numbers = [to_number(row.get(label, "")) for label in (X, Y)]
    if None in numbers or not row.get(NAME):
        raise InputError(f"{path}, line {line}: no micrograph, or no numbers for {X} and {Y}; correct the line")
    score = to_number(row.get(SCORE, ""))
    return (*(number for number in numbers if number is not None), float("nan") if score is None else score)


def _table(name: str, values: np.ndarray) -> PickTable:
    return PickTable(name, values[:, :2].copy(), values[:, 2].copy())


def write_topaz(path: Path, tables: Iterable[PickTable]) -> None:
    """Write a table as Topaz does: whole pixels, names of micrographs without suffix."""
    with atomic_write(path) as file:
        file.write("\t".join((NAME, X, Y, SCORE)) + "\n")
        for table in tables:
            name = stem_of(PurePosixPath(table.micrograph).name)
            for (x, y), score in zip(np.rint(table.xy).astype(int).tolist(), table.score.tolist(), strict=True):
                file.write(f"{name}\t{x}\t{y}\t{score:.6g}\n")
