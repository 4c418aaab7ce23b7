"""``summary.star`` and ``summary.csv``: one line a micrograph, with its picks and how it ended."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryoemmae_plugin.files import atomic_write, read_text
from cryoemmae_plugin.run.record import Result
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.star import quote
from cryoemmae_plugin.types import Micrograph, Picks

TABLE_NAME = "summary"
COLUMNS = {
    "micrograph": "rlnMicrographName",
    "verdict": "cryoemmaeVerdict",
    "picks": "cryoemmaePicks",
    "mean_figure_of_merit": "cryoemmaeMeanFigureOfMerit",
    "expected_f1": "cryoemmaeExpectedF1",
    "seconds": "cryoemmaeSeconds",
    "defocus_um": "cryoemmaeDefocus",
    "reason": "cryoemmaeReason",
}
"""Columns of the CSV, and their labels in the STAR file."""

PICKED, EMPTY, FAILED = "picked", "empty", "failed"


@dataclass(frozen=True)
class MicrographRow:
    """How one micrograph ended.

    Attributes
    ----------
    micrograph : str
        Path as it was given.
    verdict : str
        "picked", "empty" (no candidate reaches the threshold) or "failed".
    mean_merit : float
        Mean figure of merit of the picks; NaN without any.
    expected_f1 : float
        See :func:`expected_f1_of`; NaN where there is no candidate.
    seconds : float
        That picking took; NaN where unknown.
    defocus_um : float
        Mean defocus; NaN where unknown.
    """

    micrograph: str
    verdict: str
    picks: int = 0
    mean_merit: float = math.nan
    expected_f1: float = math.nan
    seconds: float = math.nan
    defocus_um: float = math.nan
    reason: str = ""

    def texts(self) -> list[str]:
        """The values as they stand in the CSV, by :data:`COLUMNS`; an unknown number is an empty text."""
        numbers = (self.mean_merit, self.expected_f1, self.seconds, self.defocus_um)
        merit, f1, seconds, defocus = ("" if math.isnan(value) else f"{value:.4f}" for value in numbers)
        return [self.micrograph, self.verdict, str(self.picks), merit, f1, seconds, defocus, self.reason]


def row_of(
    result: Result, candidates: Picks, threshold: float, *, seconds: float = math.nan, defocus_um: float = math.nan
) -> MicrographRow:
    """The row of a micrograph that was picked; `candidates` as the run's selection leaves them."""
    merit = candidates.above(threshold).score.astype(np.float64)
    return MicrographRow(
        micrograph=result.micrograph,
        verdict=PICKED if len(merit) else EMPTY,
        picks=len(merit),
        mean_merit=float(merit.mean()) if len(merit) else math.nan,
        expected_f1=expected_f1_of(candidates, threshold),
        seconds=seconds,
        defocus_um=defocus_um,
    )


def expected_f1_of(candidates: Picks, threshold: float) -> float:
    """F1 to expect of the picks if figures of merit are chances of being a particle; NaN without a candidate.

    Of n particles that the chances of all candidates add up to, the picks hold as many as their own add up to.
    """
    chances = candidates.score.astype(np.float64)
    if not len(chances):
        return math.nan
    picked = chances[candidates.score >= threshold]
    return float(2 * picked.sum() / (len(picked) + chances.sum()))


def write_summary_table(
    store: ResultStore,
    selection: Selection,
    failed: Mapping[str, str],
    seconds: Mapping[str, float],
    defocus_um: Mapping[str, float],
) -> None:
    """Write the table of all results in a store, and of the micrographs that failed.

    Parameters
    ----------
    failed : mapping
        Reason by the path of the micrograph.
    seconds, defocus_um : mapping
        By the path of the micrograph; what is not there is taken from the table that the folder has.

    Raises
    ------
    OutputError
        When a file cannot be written.
    """
    known = read_known(store.folder)

    def facts(micrograph: str) -> tuple[float, float]:
        before = known.get(micrograph, (math.nan, math.nan))
        return seconds.get(micrograph, before[0]), defocus_um.get(micrograph, before[1])

    def rows() -> Iterator[MicrographRow]:
        done = set()
        for result in store:
            done.add(result.micrograph)
            spent, defocus = facts(result.micrograph)
            candidates = selection.candidates(result)
            yield row_of(result, candidates, selection.threshold, seconds=spent, defocus_um=defocus)
        for micrograph, reason in failed.items():
            if micrograph not in done:
                spent, defocus = facts(micrograph)
                yield MicrographRow(micrograph, FAILED, seconds=spent, defocus_um=defocus, reason=reason)

    _write(store.folder, rows())


def defocus_of(micrographs: Iterable[Micrograph]) -> dict[str, float]:
    """Defocus of micrographs by their path, where it is known."""
    return {str(one.path): one.defocus_um for one in micrographs if one.defocus_um is not None}


def _write(folder: Path, rows: Iterable[MicrographRow]) -> None:
    """Write ``summary.star`` and ``summary.csv``; one row is in memory at a time.

    Raises
    ------
    OutputError
        When a file cannot be written.
    """
    with ExitStack() as stack:
        star = stack.enter_context(atomic_write(folder / f"{TABLE_NAME}.star"))
        comma = csv.writer(stack.enter_context(atomic_write(folder / f"{TABLE_NAME}.csv")), lineterminator="\n")
        star.write("# cryoemmae micrographs\n\ndata_micrographs\n\nloop_\n")
        star.writelines(f"_{label} #{i}\n" for i, label in enumerate(COLUMNS.values(), 1))
        comma.writerow(COLUMNS)
        for row in rows:
            texts = row.texts()
            comma.writerow(texts)
            star.write(" ".join(_star_value(name, text) for name, text in zip(COLUMNS, texts, strict=True)) + "\n")
        star.write("\n")


def _star_value(column: str, text: str) -> str:
    if not text and column not in ("micrograph", "reason"):
        return "nan"
    return quote(" ".join(text.split()) if column == "reason" else text)


def read_known(folder: Path) -> Mapping[str, tuple[float, float]]:
    """Seconds and defocus of each micrograph in an earlier ``summary.csv``, by its path; none where there is none."""
    try:
        lines = read_text(folder / f"{TABLE_NAME}.csv").splitlines()
        rows = list(csv.DictReader(lines))
        return {row["micrograph"]: (_number(row["seconds"]), _number(row["defocus_um"])) for row in rows}
    except (OSError, KeyError, ValueError, csv.Error):
        return {}


def _number(text: str | None) -> float:
    return float(text) if text else math.nan
