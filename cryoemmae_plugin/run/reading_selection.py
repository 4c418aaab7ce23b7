"""Read which particles of a run 2D classification has kept, from RELION's or CryoSPARC's files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.picks.placing import place
from cryoemmae_plugin.picks.reading import read_all
from cryoemmae_plugin.picks.table import PickTable
from cryoemmae_plugin.run.class_selection import Centres, ClassSelection, judge_picks
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import ResultStore, micrographs_in
from cryoemmae_plugin.star import read_star
from cryoemmae_plugin.types import Micrograph

MOST_OUTSIDE = 0.01
"""Where more of the particles lie outside of their micrograph, the coordinates are in another frame."""
CLASS = "rlnClassNumber"
_REMEDY = "give particles that were extracted from the picks of this run"


def selection_of_run(
    particles: Sequence[Path], rejected: Sequence[Path] | None, store: ResultStore, rule: Selection
) -> ClassSelection:
    """Read the particles that were kept of the picks of a run; `rule` says which of its candidates are picks.

    Raises as :func:`read_selection` does.
    """
    return read_selection(
        particles, rejected, micrographs_in(store), rule.diameter_A, lambda uid: rule.picks(store.load(uid)).xy
    )


def read_selection(
    particles: Sequence[Path],
    rejected: Sequence[Path] | None,
    micrographs: Sequence[Micrograph],
    diameter_A: float,
    picks_of: Callable[[str], Centres] = lambda uid: np.zeros((0, 2)),
) -> ClassSelection:
    """Read the particles that were kept, and tell which picks they are.

    Parameters
    ----------
    particles : sequence of Path
        Files of the particles that were kept.
    rejected : sequence of Path or None
        Files of those that were dropped, where there are any; what is in both was kept.
    picks_of : callable
        Picks (N, 2) on the micrograph of a uid, in its pixels, where they are known.

    Raises
    ------
    InputError
        When a file cannot be read, or its particles are not of these micrographs.
    """
    uids = {str(micrograph.path): micrograph.uid for micrograph in micrographs}
    kept = _placed(particles, micrographs)
    dropped = _placed(rejected, micrographs) if rejected else None
    sizes = {uids[table.micrograph]: table.pixel_size_A or 0.0 for table in [*kept, *(dropped or ())]}
    return judge_picks(
        {uids[table.micrograph]: table.xy for table in kept},
        None if dropped is None else {uids[table.micrograph]: table.xy for table in dropped},
        {uid: picks_of(uid) for uid in sizes},
        {uid: diameter_A / size for uid, size in sizes.items()},
        count_classes(particles),
    )


def _placed(paths: Sequence[Path], micrographs: Sequence[Micrograph]) -> list[PickTable]:
    """Particles in pixels of the stored micrographs, a table each."""
    tables = [table for table in read_all(paths) if len(table)]
    if not tables:
        raise InputError(f"{paths[0]}: no particle in it", remedy="select at least one class")
    try:
        placed = place(tables, micrographs).tables
    except InputError as err:
        raise InputError(f"{paths[0]}: {err.what}", remedy=_REMEDY) from err
    for table in placed:
        if table.shape is None or not table.pixel_size_A:
            raise InputError(f"{table.micrograph}: not in place any more", remedy="put the micrographs back in place")
        ny, nx = table.shape
        outside = float(((table.xy < -1) | (table.xy > (nx, ny))).any(axis=1).mean())
        if outside > MOST_OUTSIDE:
            raise InputError(
                f"{paths[0]}: {outside:.0%} of the particles on {table.micrograph} lie outside of the micrograph "
                f"({nx} x {ny} px at {table.pixel_size_A:g} Å): their coordinates have another pixel size",
                remedy=_REMEDY,
            )
    return placed


def count_classes(paths: Sequence[Path]) -> int | None:
    """Number of different classes in STAR files of particles; None where they have no classes."""
    numbers: set[str] = set()
    for path in paths:
        if path.suffix == ".star":
            numbers.update(n for table in read_star(path) if CLASS in table for n in table.column(CLASS))
    return len(numbers - {"0", "-999"}) or None
