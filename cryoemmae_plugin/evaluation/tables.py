"""Read reference coordinates and picks from the files that they come in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.evaluation.metrics import Reference, Scored
from cryoemmae_plugin.picks.csv_table import read_csv
from cryoemmae_plugin.picks.identity import keys_of, match_names
from cryoemmae_plugin.picks.reading import name_by_files, read_all


def read_reference(path: Path) -> dict[str, Reference]:
    """Read a reference CSV with the columns micrograph, x, y, diameter (pixels of the stored image).

    Micrographs go by the stem of their file name, or by their path without suffix where two share a stem. A row with
    empty x and y names a micrograph without any particle.

    Raises
    ------
    InputError
        When the file cannot be read as such a table.
    """
    tables = read_csv(path)
    keys = keys_of(table.micrograph for table in tables)
    found = {
        keys[table.micrograph]: Reference(table.xy, table.diameter_px or 0.0, table.micrograph) for table in tables
    }
    return dict(sorted(found.items()))


def read_picks(
    paths: Sequence[Path], known: Mapping[str, Reference] | Iterable[str], min_score: float | None = None
) -> dict[str, Scored]:
    """Read picks of any program, by the micrograph's name in a reference.

    Parameters
    ----------
    paths : sequence of Path
        Files of picks, see :mod:`cryoemmae_plugin.picks.reading`. One that names no micrograph is taken for the one of
        `known` that its own name begins with.
    known : mapping or iterable of str
        The reference, or names of micrographs. Picks of micrographs that it does not have go by their own names.

    Raises
    ------
    InputError
        When a file cannot be read, no micrograph with picks is known, or two cannot be told apart.
    """
    references = dict(known) if isinstance(known, Mapping) else dict.fromkeys(known, None)
    full = {(reference.micrograph if reference else "") or key: key for key, reference in references.items()}
    found: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for table in name_by_files(read_all(paths), full):
        if len(table):
            found[table.micrograph].append(np.column_stack([table.xy, table.score]))
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
