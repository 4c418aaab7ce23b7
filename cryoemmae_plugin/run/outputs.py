"""The files that RELION, CryoSPARC, EMAN and people read, written from the store."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from pydantic import BaseModel

from cryoemmae_plugin.errors import StoreError
from cryoemmae_plugin.files import atomic_write, output_error, read_note, write_note
from cryoemmae_plugin.run.record import Result
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.star import quote
from cryoemmae_plugin.types import Picks

STAR_COLUMNS = ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit")
CSV_COLUMNS = ("micrograph", "x", "y", "diameter", "score")
BOX_FOLDER = "boxes"
BOX_RECORD = ".cryoemmae.json"
"""File in the folder of boxes that names those written by this program."""


class _BoxRecord(BaseModel):
    files: tuple[str, ...]


@dataclass
class Totals:
    """What is in the files: micrographs with and without picks, and picks."""

    picked: int = 0
    empty: int = 0
    picks: int = 0

    def add(self, picks: Picks) -> None:
        """Count one micrograph."""
        self.picks += len(picks)
        if len(picks):
            self.picked += 1
        else:
            self.empty += 1


class _Writer(Protocol):
    def __call__(self, result: Result, picks: Picks) -> None: ...


def write_outputs(store: ResultStore, threshold: float, *, boxes: bool = False) -> Totals:
    """Write ``picks.star`` and ``picks.csv`` of all results in the store, and a ``.box`` file each on request.

    All hold the candidates with a figure of merit of at least `threshold`, ordered by micrograph, best first. One
    micrograph is in memory at a time. Each file changes as a whole or not at all.

    Raises
    ------
    OutputError
        When a file cannot be written, or a box file of another program is in the way.
    """
    diameter_A = store.record.settings.diameter_A
    totals = Totals()
    if boxes:
        _claim_boxes(store.folder / BOX_FOLDER, store.uids())
    with ExitStack() as stack:
        writers: list[_Writer] = [
            stack.enter_context(_star(store.folder / "picks.star")),
            stack.enter_context(_csv(store.folder / "picks.csv", diameter_A)),
        ]
        for result in store:
            picks = result.picks.above(threshold)
            totals.add(picks)
            for write in writers:
                write(result, picks)
            if boxes:
                write_box(store.folder / BOX_FOLDER / f"{result.uid}.box", picks, diameter_A / result.pixel_size_A)
    return totals


def write_box(path: Path, picks: Picks, diameter_px: float) -> None:
    """Write picks as EMAN1 boxes.

    A line is ``x y width height``: the lower left corner of the box in whole pixels, where y grows with the row stored
    in the MRC (row 0 lowest), and twice its side, the particle's diameter made even.
    """
    side = 2 * max(1, round(diameter_px / 2))
    with atomic_write(path) as file:
        for x, y in picks.xy.tolist():
            file.write(f"{round(x - side / 2)}\t{round(y - side / 2)}\t{side}\t{side}\n")


@contextmanager
def _star(path: Path) -> Iterator[_Writer]:
    with atomic_write(path) as file:
        file.write("# cryoemmae picks\n\ndata_particles\n\nloop_\n")
        file.writelines(f"_{name} #{i}\n" for i, name in enumerate(STAR_COLUMNS, 1))

        def write(result: Result, picks: Picks) -> None:
            name = quote(result.micrograph)
            for (x, y), score in zip(picks.xy.tolist(), picks.score.tolist(), strict=True):
                file.write(f"{name} {x:.3f} {y:.3f} {score:.6f}\n")

        yield write
        file.write("\n")


@contextmanager
def _csv(path: Path, diameter_A: float) -> Iterator[_Writer]:
    with atomic_write(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(CSV_COLUMNS)

        def write(result: Result, picks: Picks) -> None:
            diameter = f"{diameter_A / result.pixel_size_A:.2f}"
            rows = zip(picks.xy.tolist(), picks.score.tolist(), strict=True)
            table.writerows((result.micrograph, f"{x:.3f}", f"{y:.3f}", diameter, f"{s:.6f}") for (x, y), s in rows)

        yield write


def _claim_boxes(folder: Path, uids: Iterable[str]) -> None:
    """Take away the boxes of earlier runs, and note which files this one is going to write.

    Only files that the folder's own record names are deleted or replaced.
    """
    record = folder / BOX_RECORD
    before = read_note(record, _BoxRecord, f"delete it, and move the files that are not needed out of {folder}")
    try:
        for name in before.files if before else ():
            if ".." not in PurePosixPath(name).parts:
                (folder / name.lstrip("/")).unlink(missing_ok=True)
    except OSError as err:
        raise output_error(folder, err) from err
    names = sorted(f"{uid}.box" for uid in uids)
    foreign = next((folder / name for name in names if (folder / name).exists()), None)
    if foreign is not None:
        raise StoreError(
            f"{foreign}: there already, and not written by this program; move it away",
            remedy="choose another folder with $out",
        )
    write_note(record, _BoxRecord(files=tuple(names)))
