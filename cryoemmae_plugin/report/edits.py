"""What somebody has changed by hand in a report, and the files that follow from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.files import atomic_write, read_bytes, reason_of
from cryoemmae_plugin.run.formats import Format
from cryoemmae_plugin.run.outputs import Totals, write_picks
from cryoemmae_plugin.run.record import Result
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.star import format_table
from cryoemmae_plugin.types import Picks

FORMAT = 1
EDITED_FOLDER = "edited"
ACCEPTED, REJECTED = "accepted.star", "rejected.star"
BY_HAND = 1.0
"""Figure of merit of a pick that was added by hand."""
_SAME_PX = 0.0015
"""The report has coordinates to 0.001 px, as the result files."""

Point = Annotated[tuple[float, float], Field(strict=False)]


class MicrographEdits(BaseModel):
    """What was changed on one micrograph; points (x, y) are pixels of the stored micrograph."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    threshold: float | None = Field(default=None, ge=0, le=1)
    excluded: bool = False
    removed: tuple[Point, ...] = ()
    added: tuple[Point, ...] = ()


class Edits(BaseModel):
    """What was changed in a report: the content of the file that its *Export edits* saves."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: int = Field(ge=FORMAT, le=FORMAT)
    fingerprint: str
    threshold: float = Field(ge=0, le=1)
    micrographs: dict[str, MicrographEdits] = {}


@dataclass(frozen=True)
class Applied:
    """What was written: picks, and how many micrographs were accepted and rejected."""

    totals: Totals
    accepted: int
    rejected: int


def read_edits(path: Path) -> Edits:
    """Read the file that a report has saved.

    Raises
    ------
    InputError
        When it cannot be read or is something else.
    """
    way_out = "give the file that *Export edits* of a report has saved"
    try:
        return Edits.model_validate(json.loads(read_bytes(path)))
    except FileNotFoundError as err:
        raise InputError(f"{path}: no such file; {way_out}") from err
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: not the edits of a report ({where}: {first['msg']}); {way_out}") from err
    except (OSError, ValueError, RecursionError) as err:
        raise InputError(f"{path}: cannot be read ({reason_of(err)}); {way_out}") from err


def refuse_existing(folder: Path) -> None:
    """Make sure that nothing is overwritten.

    Raises
    ------
    InputError
        When the folder has picks already.
    """
    if (folder / "picks.star").exists():
        raise InputError(
            f"{folder / 'picks.star'}: there already", remedy=("choose another $out", "give $overwrite=yes")
        )


def apply_edits(
    store: ResultStore, selection: Selection, edits: Edits, folder: Path, formats: frozenset[Format]
) -> Applied:
    """Write picks as edited into a folder, and the lists of accepted and rejected micrographs.

    Parameters
    ----------
    selection : Selection
        The rule that the report shows; its threshold gives way to that of the edits.
    folder : Path
        Where to write; files of the same names there are replaced.

    Raises
    ------
    InputError
        When the edits do not belong to these results; nothing is written then.
    OutputError
        When a file cannot be written.
    """
    check_edits(store, selection, edits)
    uids = [uid for uid in store.uids() if not edits.micrographs.get(uid, MicrographEdits()).excluded]
    chosen_picks = _edited(store, selection, edits)
    settings = store.record.settings
    sized = bool(settings.sizes_A)
    totals = write_picks(folder, chosen_picks, settings.diameter_A, formats, uids, sized=sized)
    excluded = {uid for uid, edit in edits.micrographs.items() if edit.excluded}
    accepted: list[tuple[str]] = []
    rejected: list[tuple[str]] = []
    for result in store:
        (rejected if result.uid in excluded else accepted).append((result.micrograph,))
    for name, rows in ((ACCEPTED, accepted), (REJECTED, rejected)):
        with atomic_write(folder / name) as file:
            file.write("\n" + format_table("micrographs", ("rlnMicrographName",), rows))
    return Applied(totals, len(accepted), len(rejected))


def check_edits(store: ResultStore, selection: Selection, edits: Edits) -> None:
    """Make sure that edits belong to these results.

    Raises
    ------
    InputError
        When they were made in the report of another run, or of another state of this one.
    """
    way_out = f"open {store.folder / 'report' / 'index.html'}, make the edits there, and export them again"
    if edits.fingerprint != store.record.fingerprint:
        raise InputError(
            f"the edits are of another run ({edits.fingerprint}, and {store.folder} is {store.record.fingerprint}): "
            f"its settings or its model differ; {way_out}"
        )
    missing = dict(edits.micrographs)
    for result in store:
        edit = missing.pop(result.uid, None)
        if edit is not None:
            edited_picks(result, selection, edit, way_out)
    if missing:
        raise InputError(f"{next(iter(missing))!r} is edited, and {store.folder} has no such micrograph; {way_out}")


def edited_picks(result: Result, selection: Selection, edit: MicrographEdits, way_out: str = "") -> Picks:
    """Return the picks of one micrograph as edited, best first.

    Raises
    ------
    InputError
        When a removed pick is no candidate of the micrograph, or an added one lies outside of it.
    """
    threshold = selection.threshold if edit.threshold is None else edit.threshold
    candidates = selection.candidates(result)
    keep = candidates.score >= threshold
    for point in edit.removed:
        keep[_place(result, candidates, point, way_out)] = False
    by_hand = []
    for point in edit.added:
        at = _nearest(candidates, point)
        if at is not None:
            keep[at] = True
        elif not (0 <= point[0] <= result.picks.shape[1] - 1 and 0 <= point[1] <= result.picks.shape[0] - 1):
            raise InputError(f"{result.micrograph}: the added pick at {point} lies outside of it; {way_out}")
        else:
            by_hand.append(point)
    return _with_points(candidates.only(keep), np.array(by_hand, np.float64).reshape(-1, 2), selection.diameter_A)


def _edited(store: ResultStore, selection: Selection, edits: Edits) -> Iterator[tuple[Result, Picks]]:
    selection = replace(selection, threshold=edits.threshold)
    for result in store:
        edit = edits.micrographs.get(result.uid, MicrographEdits())
        if not edit.excluded:
            yield result, edited_picks(result, selection, edit)


def _place(result: Result, candidates: Picks, point: tuple[float, float], way_out: str) -> int:
    at = _nearest(candidates, point)
    if at is None:
        raise InputError(f"{result.micrograph}: there is no candidate at {point}, where one was removed; {way_out}")
    return at


def _nearest(candidates: Picks, point: tuple[float, float]) -> int | None:
    """Place of the candidate at a point; None where there is none."""
    distance = np.abs(candidates.xy - point).max(axis=1)
    at = int(distance.argmin()) if len(distance) else -1
    return at if at >= 0 and distance[at] <= _SAME_PX else None


def _with_points(picks: Picks, xy: NDArray[np.float64], diameter_A: float) -> Picks:
    """Put picks by hand before others: their figure of merit is the highest, their size the largest."""
    ones = np.full(len(xy), BY_HAND, np.float32)
    sizes = None
    if picks.diameter_A is not None:
        sizes = np.concatenate([np.full(len(xy), diameter_A), picks.diameter_A])
    return Picks(
        np.concatenate([xy, picks.xy]),
        np.concatenate([ones, picks.score]),
        np.concatenate([np.zeros(len(xy), np.float32), picks.power]),
        picks.shape,
        None if picks.group is None else np.concatenate([np.zeros(len(xy), np.int32), picks.group]),
        sizes,
    )
