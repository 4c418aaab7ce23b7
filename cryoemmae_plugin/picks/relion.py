"""Picks in STAR files: RELION's coordinates, lists of coordinates and particles, and our own tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.files import atomic_write, read_table
from cryoemmae_plugin.picks.boxes import read_box
from cryoemmae_plugin.picks.optics import MICROGRAPH_PIXEL_SIZE, pixel_sizes, project_folder
from cryoemmae_plugin.picks.relion_coordinates import root_of
from cryoemmae_plugin.picks.table import PickTable
from cryoemmae_plugin.star import Table, find_table, quote, read_star

NAME, X, Y, SCORE = "rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"
STAR_COLUMNS = (NAME, X, Y, SCORE)
LIST_TABLE, LIST_FILES = "coordinate_files", "rlnMicrographCoordinates"
SUFFIX_LIST = "coords_suffix"
"""How the file begins by which RELION 3.1 stands for all coordinates of a job."""
SOURCE_SCORE = "cryoemmaeScore_"
"""How the column of a source's score begins in a merged table."""


def read_star_picks(path: Path) -> list[PickTable]:
    """Read the picks of a STAR file: coordinates of one micrograph, particles, or a list of coordinate files.

    Raises
    ------
    InputError
        When it cannot be read, or has no coordinates.
    """
    if path.name.startswith(SUFFIX_LIST):
        return _read_files(_files_of_suffix(path))
    tables = read_star(path)
    files = _files_of_list(tables, path)
    if files is not None:
        return _read_files(files)
    found = [table for table in tables if X in table and Y in table]
    if not found:
        raise InputError(f"{path}: no table with {X} and {Y} in it; give a STAR file of picks")
    optics = find_table(tables, "optics")
    return [picks for table in found for picks in _picks_of(table, optics, path)]


def listed_files(path: Path) -> list[tuple[str, Path]] | None:
    """Each micrograph and its coordinate file, of a job's list of them; None where the file is no list.

    Raises
    ------
    InputError
        When it cannot be read.
    """
    if path.name.startswith(SUFFIX_LIST):
        return _files_of_suffix(path)
    return _files_of_list(read_star(path), path)


def _files_of_list(tables: Iterable[Table], path: Path) -> list[tuple[str, Path]] | None:
    listing = find_table(tables, LIST_TABLE)
    if listing is None:
        return None
    names, files = listing.column(NAME), [Path(name) for name in listing.column(LIST_FILES)]
    base = project_folder(path, files[0]) if files else Path()
    return [(name, base / file) for name, file in zip(names, files, strict=True)]


def _files_of_suffix(path: Path) -> list[tuple[str, Path]]:
    """Each micrograph and its coordinate file, of what RELION 3.1 writes in place of a list."""
    star = Path(read_table(path, "a list of coordinates").strip())
    star = project_folder(path, star) / star
    table = next((table for table in read_star(star) if NAME in table), None)
    names = [] if table is None else table.column(NAME)
    suffix = path.name.removeprefix(SUFFIX_LIST)
    return [(name, path.parent / f"{root_of(name)}{suffix}") for name in names]


def _read_files(files: Iterable[tuple[str, Path]]) -> list[PickTable]:
    """Read coordinate files; those that are not there are of micrographs without a pick."""
    found = []
    for name, path in files:
        if not path.is_file():
            tables = [PickTable(name, np.zeros((0, 2)), np.zeros(0))]
        else:
            tables = [read_box(path)] if path.suffix == ".box" else read_star_picks(path)
        found += [_renamed(table, name) for table in tables]
    if not any(path.is_file() for _, path in files):
        raise InputError(
            f"none of the listed coordinate files is there, such as {next(iter(files))[1]}; run the command in the "
            "project folder"
        )
    return found


def _renamed(table: PickTable, name: str) -> PickTable:
    return replace(table, micrograph=name, named_by_file=False)


def _picks_of(table: Table, optics: Table | None, path: Path) -> Iterator[PickTable]:
    """The micrographs of a table."""
    xy = np.stack([table.numbers(X), table.numbers(Y)], axis=1).reshape(-1, 2)
    score = np.array(table.numbers(SCORE) if SCORE in table else [float("nan")] * len(table))
    sizes = pixel_sizes(table, optics, (MICROGRAPH_PIXEL_SIZE,), from_detector=False)
    extras = {label: _floats(table, label) for label in table.columns if label.startswith(SOURCE_SCORE)}
    named = NAME in table
    rows: dict[str, list[int]] = defaultdict(list)
    for number, name in enumerate(table.column(NAME) if named else [str(path)] * len(table)):
        rows[name].append(number)
    if not named and not rows:
        rows[str(path)] = []
    for name, numbers in rows.items():
        yield PickTable(
            name,
            xy[numbers],
            score[numbers],
            pixel_size_A=sizes[numbers[0]] if numbers else None,
            named_by_file=not named,
            relion_frame=not named or optics is not None,
            extras={label: values[numbers] for label, values in extras.items()},
        )


def _floats(table: Table, label: str) -> NDArray[np.float64]:
    return np.array([float(value) for value in table.column(label)])


class Rows(Protocol):
    """Writes the picks of one micrograph into a table."""

    def __call__(
        self, micrograph: str, xy: NDArray[np.float64], score: NDArray[np.floating], *extras: NDArray[np.number]
    ) -> None:
        """Write them."""


@contextmanager
def star_of_picks(
    path: Path, comment: str = "", name_of: Callable[[str], str] = str, labels: Iterable[str] = ()
) -> Iterator[Rows]:
    """One STAR table of the picks of all micrographs, named by `name_of` their paths; below a first line.

    `labels` are those of further columns of numbers.
    """
    columns = (*STAR_COLUMNS, *labels)
    with atomic_write(path) as file:
        file.write(f"{comment}\ndata_particles\n\nloop_\n")
        file.writelines(f"_{name} #{number}\n" for number, name in enumerate(columns, 1))

        def write(
            micrograph: str, xy: NDArray[np.float64], score: NDArray[np.floating], *extras: NDArray[np.number]
        ) -> None:
            name = quote(name_of(micrograph))
            for (x, y), merit, *more in zip(
                xy.tolist(), score.tolist(), *(values.tolist() for values in extras), strict=True
            ):
                others = "".join(f" {one}" if isinstance(one, int) else f" {one:.6f}" for one in more)
                file.write(f"{name} {x:.3f} {y:.3f} {merit:.6f}{others}\n")

        yield write
        file.write("\n")
