"""The files that RELION, CryoSPARC, EMAN and people read, written from the store."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from cryoemmae_plugin.files import atomic_write
from cryoemmae_plugin.run.formats import OWN_MARK, Format, Writer, open_writer, picks_star
from cryoemmae_plugin.run.record import Result
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.types import Picks

CSV_COLUMNS = ("micrograph", "x", "y", "diameter", "score")


@dataclass
class Totals:
    """What is in the files: micrographs with and without picks, and picks."""

    picked: int = 0
    empty: int = 0
    picks: int = 0
    by_diameter_A: dict[str, int] = field(default_factory=dict)
    """Picks of each size, where there are several."""

    def add(self, picks: Picks) -> None:
        """Count one micrograph."""
        self.picks += len(picks)
        if picks.diameter_A is not None:
            for size, count in zip(*np.unique(picks.diameter_A, return_counts=True), strict=True):
                self.by_diameter_A[f"{size:g}"] = self.by_diameter_A.get(f"{size:g}", 0) + int(count)
        if len(picks):
            self.picked += 1
        else:
            self.empty += 1


def write_outputs(store: ResultStore, selection: Selection, formats: Collection[Format] = ()) -> Totals:
    """Write ``picks.star`` and ``picks.csv`` of all results in the store, and files for other programs on request.

    All hold the picks of `selection`, ordered by micrograph, best first. Raises as :func:`write_picks` does.
    """
    chosen = ((result, selection.picks(result)) for result in store)
    sized = bool(store.record.settings.sizes_A)
    return write_picks(store.folder, chosen, selection.diameter_A, formats, store.uids(), sized=sized)


def write_picks(
    folder: Path,
    chosen: Iterable[tuple[Result, Picks]],
    diameter_A: float,
    formats: Collection[Format] = (),
    uids: Collection[str] = (),
    *,
    sized: bool = False,
) -> Totals:
    """Write the picks of micrographs into a folder; `sized` says whether they have sizes of their own.

    One micrograph is in memory at a time. Each file changes as a whole or not at all.

    Raises
    ------
    OutputError
        When a file cannot be written, or a box file of another program is in the way.
    """
    totals, found = Totals(), iter(chosen)
    first = next(found, None)
    grouped = first is not None and first[1].group is not None
    with ExitStack() as stack:
        writers: list[Writer] = [
            stack.enter_context(picks_star(folder / "picks.star", OWN_MARK, grouped=grouped, sized=sized)),
            stack.enter_context(_csv(folder / "picks.csv", diameter_A)),
        ]
        wanted = [one for one in Format if one in formats]
        writers += [stack.enter_context(open_writer(one, folder, diameter_A, uids, sized=sized)) for one in wanted]
        for result, picks in chain([] if first is None else [first], found):
            totals.add(picks)
            for write in writers:
                write(result, picks)
    return totals


@contextmanager
def _csv(path: Path, diameter_A: float) -> Iterator[Writer]:
    with atomic_write(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(CSV_COLUMNS)

        def write(result: Result, picks: Picks) -> None:
            sides = np.broadcast_to(picks.diameter_px(diameter_A, result.pixel_size_A), len(picks))
            rows = zip(picks.xy.tolist(), sides.tolist(), picks.score.tolist(), strict=True)
            table.writerows(
                (result.micrograph, f"{x:.3f}", f"{y:.3f}", f"{d:.2f}", f"{s:.6f}") for (x, y), d, s in rows
            )

        yield write
