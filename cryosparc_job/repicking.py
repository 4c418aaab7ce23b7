"""Pick many exposures outputs, one job each; existing jobs are not changed or deleted."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.errors import CryoemmaeError, InputError, Interrupted, SettingsError
from cryoemmae_plugin.evaluation.comparison import Comparison
from cryoemmae_plugin.files import read_bytes, write_json
from cryoemmae_plugin.run.engine import EngineFactory
from cryoemmae_plugin.settings import sizes_of
from cryoemmae_plugin.terminal.console import columns
from cryosparc_job.create import begin
from cryosparc_job.errors import Refused
from cryosparc_job.instance import Instance
from cryosparc_job.picking import JobReport
from cryosparc_job.plan import PlanEntry
from cryosparc_job.preflight import prepare
from cryosparc_job.request import PickRequest
from cryosparc_job.resuming import resume_job
from cryosparc_job.slots import Exposure, read_locations


@dataclass(frozen=True)
class Row:
    """How one entry of the plan ended.

    Attributes
    ----------
    job : str
        The job that picks it, "" if there is none.
    status : str
        "to do" in a dry run, the job's, or "wrong".
    micrographs, picks : int
        Micrographs done, and particles.
    found_again : float or None
        Share of the particles to compare with that are picked again.
    note : str
        Why it went wrong.
    """

    entry: PlanEntry
    job: str = ""
    status: str = "to do"
    micrographs: int = 0
    picks: int = 0
    found_again: float | None = None
    note: str = ""


class Repicking:
    """Carries out a plan.

    Parameters
    ----------
    state : Path
        File that notes which entry has which job, so that the plan can be resumed.
    engine_factory : callable, optional
        Makes what picks.
    """

    def __init__(
        self,
        instance: Instance,
        entries: Sequence[PlanEntry],
        state: Path,
        engine_factory: EngineFactory | None = None,
        *,
        work: Path | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._instance, self._entries, self._state = instance, entries, state
        self._engine_factory, self._work, self._tell = engine_factory, work, tell

    def dry_run(self) -> list[Row]:
        """What would be picked; makes nothing."""
        rows = []
        known = self._known()
        for entry in self._entries:
            try:
                request = entry.request(self._instance)
                micrographs = len(prepare(self._instance, request).exposures)
                job = known.get(_key(request), {}).get("job", "")
                rows.append(Row(entry, job, "to do" if not job else self._status(entry, job), micrographs))
            except CryoemmaeError as err:
                rows.append(Row(entry, status="wrong", note=str(err)))
        return rows

    def run(self) -> list[Row]:
        """Pick all unfinished entries; an entry that fails does not stop the others.

        Raises
        ------
        Interrupted
            When a signal stops it, or CryoSPARC no longer answers.
        """
        return [self._one(number, entry) for number, entry in enumerate(self._entries, 1)]

    def _one(self, number: int, entry: PlanEntry) -> Row:
        name = f"{entry.project} {entry.exposures}"
        try:
            request = entry.request(self._instance)
            self._tell(f"{number} of {len(self._entries)}: {name}")
            report = self._pick(entry, request)
            if report.signal is not None:
                raise Interrupted(f"{report.reason}; to resume, run the same command again")
            found = self._found_again(entry, request, report.job) if report.status == "completed" else None
            return Row(entry, report.job, report.status, report.micrographs, report.picks, found, report.reason)
        except Interrupted:
            raise
        except (CryoemmaeError, SettingsError) as err:
            self._tell(f"{name}: {err}")
            return Row(entry, status="wrong", note=str(err))

    def _pick(self, entry: PlanEntry, request: PickRequest) -> JobReport:
        """Pick an entry, resume it, or report its finished job."""
        known = self._known().get(_key(request))
        if known is not None:
            status = self._status(entry, known["job"])
            if status == "completed":
                info = self._instance.job(entry.project, known["job"]).outputs[request.output]
                done = known.get("micrographs", 0)
                return JobReport(entry.project, known["job"], status, done, info.items, (), Path())
            if status:
                report = resume_job(
                    self._instance, entry.project, known["job"], self._engine_factory, work=self._work, tell=self._tell
                )
                self._note(request, report)
                return report
        job = begin(self._instance, request, self._engine_factory, work=self._work, tell=self._tell)
        self._note(request, JobReport(entry.project, job.job.uid, "running", 0, 0, (), job.folder))
        report = job.run()
        self._note(request, report)
        return report

    def _status(self, entry: PlanEntry, job: str) -> str:
        """Status of an entry's job; "" if it has been deleted since."""
        try:
            return self._instance.job(entry.project, job).status
        except Refused:
            return ""

    def _known(self) -> dict[str, dict[str, Any]]:
        """The jobs of earlier runs of this plan, by what they pick."""
        try:
            known = json.loads(read_bytes(self._state))
            return {_key(PickRequest.model_validate_json(text)): job for text, job in known.items() if job["job"]}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError) as err:
            raise InputError(f"{self._state}: cannot be read ({err}); delete it to pick the whole plan again") from err

    def _note(self, request: PickRequest, report: JobReport) -> None:
        noted = {"job": report.job, "status": report.status, "micrographs": report.micrographs}
        write_json(self._state, {**self._known(), _key(request): noted})

    def _found_again(self, entry: PlanEntry, request: PickRequest, job: str) -> float | None:
        """Share of older particles that have a new pick within half a diameter, one to one."""
        if entry.compare is None:
            return None
        uid, _, output = entry.compare.partition(".")
        old = read_locations(self._instance.load_output(entry.project, uid, output, ["location"]))
        new = read_locations(self._instance.load_output(entry.project, job, request.output, ["location"]))
        exposures = prepare(self._instance, request).exposures
        diameter_A = request.settings.diameter_A
        if diameter_A == "auto":
            return None
        return share_found(old, new, exposures, sizes_of(diameter_A)[0] if isinstance(diameter_A, str) else diameter_A)


def share_found(
    old: dict[int, NDArray[np.float64]],
    new: dict[int, NDArray[np.float64]],
    exposures: Sequence[Exposure],
    diameter_A: float,
) -> float | None:
    """Share of `old` centres on these exposures that are among the `new` ones; None where there are no old ones.

    Centres are fractions of the micrograph's size, by the micrograph's uid.
    """
    comparison = Comparison()
    for exposure in exposures:
        size = np.array(exposure.shape[::-1], np.float64)
        old_xy, new_xy = (centres[exposure.uid] * size if exposure.uid in centres else None for centres in (old, new))
        comparison.add(old_xy, new_xy, diameter_A / exposure.pixel_size_A)
    return comparison.share


def _key(request: PickRequest) -> str:
    """Identity of an entry: everything but how it is run, and no defaults, so that a new setting changes none."""
    kept = request.model_dump(exclude={"gpu", "compute", "workers", "overlays", "title"}, exclude_defaults=True)
    return json.dumps(kept, sort_keys=True)


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    head = ("project", "exposures", "job", "status", "micrographs", "particles", "old ones found again")
    cells: list[Sequence[str]] = [head]
    for row in rows:
        share = "" if row.found_again is None else f"{row.found_again:.0%}"
        counts = (str(row.micrographs or ""), str(row.picks) if row.status == "completed" else "")
        cells.append((row.entry.project, row.entry.exposures, row.job, row.status, *counts, share))
    notes = [f"{row.entry.project} {row.entry.exposures}: {row.note}" for row in rows if row.note]
    return "\n".join([*columns(cells), *notes])
