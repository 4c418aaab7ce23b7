"""Read reference coordinates and picks from the files that they come in."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.evaluation.identity import keys_of, match_names, stem_of
from cryoemmae_plugin.evaluation.metrics import Reference, Scored
from cryoemmae_plugin.files import MAX_TABLE_BYTES, read_text, reason_of
from cryoemmae_plugin.star import Table, read_star, to_number

REFERENCE_COLUMNS = ("micrograph", "x", "y", "diameter")


def read_reference(path: Path) -> dict[str, Reference]:
    """Read a reference CSV with the columns micrograph, x, y, diameter (pixels of the stored image).

    Micrographs go by the stem of their file name, or by their path without suffix where two share a stem. A row with
    empty x and y names a micrograph without any particle.

    Raises
    ------
    InputError
        When the file cannot be read as such a table.
    """
    centres: dict[str, list[tuple[float, float]]] = defaultdict(list)
    diameters: dict[str, float] = {}
    for line, row in _csv_rows(path):
        name = row["micrograph"].strip()
        if not name:
            raise InputError(f"{path}, line {line}: no micrograph is named; complete or delete the line")
        x, y, diameter = (_number(path, line, label, row[label]) for label in ("x", "y", "diameter"))
        if diameter is None or diameter <= 0:
            raise InputError(f"{path}, line {line}: the diameter must be greater than 0; correct the line")
        diameters.setdefault(name, diameter)
        if x is not None and y is not None:
            centres[name].append((x, y))
        elif x is not None or y is not None:
            raise InputError(f"{path}, line {line}: one of x and y is missing; complete or delete the line")
    keys = keys_of(diameters)
    found = {
        keys[name]: Reference(np.array(centres[name], np.float64).reshape(-1, 2), diameter, name)
        for name, diameter in diameters.items()
    }
    return dict(sorted(found.items()))


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a reference with their lines in the file."""
    try:
        text = read_text(path, MAX_TABLE_BYTES)
    except FileNotFoundError as err:
        raise InputError(f"{path}: no such file; give a table of known positions") from err
    except OSError as err:
        raise InputError(f"{path}: cannot be read as a CSV table ({reason_of(err)}); give another file") from err
    rows = csv.DictReader(text.removeprefix("\ufeff").splitlines(), restval="", skipinitialspace=True)
    try:
        columns = [name.strip() for name in rows.fieldnames or ()]
        missing = [name for name in REFERENCE_COLUMNS if name not in columns]
        if missing:
            raise InputError(
                f"{path}: the column {missing[0]!r} is missing; a reference has the columns "
                f"{', '.join(REFERENCE_COLUMNS)}, with commas between them"
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


def read_picks(
    paths: Sequence[Path], known: Mapping[str, Reference] | Iterable[str], min_score: float | None = None
) -> dict[str, Scored]:
    """Read picks from STAR files, by the micrograph's name in a reference.

    Parameters
    ----------
    paths : sequence of Path
        With rlnCoordinateX, rlnCoordinateY and, optionally, rlnMicrographName and rlnAutopickFigureOfMerit. A file that
        names no micrograph is taken for the one of `known` that its own name begins with.
    known : mapping or iterable of str
        The reference, or names of micrographs. Picks of micrographs that it does not have go by their own names.
    min_score : float, optional
        Leave out picks below it.

    Raises
    ------
    InputError
        When a file cannot be read, no micrograph with picks is known, or two cannot be told apart.
    """
    references = dict(known) if isinstance(known, Mapping) else dict.fromkeys(known, None)
    full = {(reference.micrograph if reference else "") or key: key for key, reference in references.items()}
    found: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for path in paths:
        for table in _pick_tables(path):
            xys = np.stack([table.numbers("rlnCoordinateX"), table.numbers("rlnCoordinateY"), _scores(table)], axis=1)
            for name, rows in _by_micrograph(table, path, full):
                found[name].append(xys[rows])
    matched = match_names(found, full)
    if found and full and not matched:
        raise InputError(
            f"no micrograph with picks is in the reference: picks are of {next(iter(found))!r}, the reference has "
            f"{next(iter(full))!r}",
            remedy="give picks and reference of the same micrographs, with the same file names",
        )
    kept: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    own = keys_of(name for name in found if name not in matched)
    for name, parts in found.items():
        stranger = name if own.get(name) in references else own.get(name, name)
        kept[matched.get(name, stranger)] += parts
    picks = {name: np.concatenate(parts) for name, parts in kept.items()}
    if min_score is not None:
        picks = {name: rows[rows[:, 2] >= min_score] for name, rows in picks.items()}
    return {name: Scored(rows[:, :2], rows[:, 2]) for name, rows in picks.items() if len(rows)}


def _pick_tables(path: Path) -> list[Table]:
    """The tables of picks in one STAR file."""
    found = [table for table in read_star(path) if "rlnCoordinateX" in table and "rlnCoordinateY" in table]
    if not found:
        raise InputError(f"{path}: no table with rlnCoordinateX and rlnCoordinateY in it; give a STAR file of picks")
    return [table for table in found if table.rows]


def _scores(table: Table) -> list[float]:
    label = "rlnAutopickFigureOfMerit"
    return table.numbers(label) if label in table else [float("nan")] * len(table)


def _by_micrograph(table: Table, path: Path, known: Iterable[str]) -> Iterator[tuple[str, list[int]]]:
    """The micrographs of a table, and which of its rows are theirs."""
    if "rlnMicrographName" not in table:
        yield _named_by_file(path, known), list(range(len(table)))
        return
    rows: dict[str, list[int]] = defaultdict(list)
    for number, name in enumerate(table.column("rlnMicrographName")):
        rows[name].append(number)
    yield from rows.items()


def _named_by_file(path: Path, known: Iterable[str]) -> str:
    """The micrograph that a file of coordinates is called after: ``mic_10_autopick.star`` is of ``mic_10``."""
    stems = {stem_of(name) for name in known}
    fitting = [s for s in stems if path.name.startswith(s) and not path.name[len(s) : len(s) + 1].isalnum()]
    return str(path.parent / max(fitting, key=len, default=path.stem))
