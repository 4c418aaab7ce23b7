"""The particles output of a job, saved during the run and at its end."""

from __future__ import annotations

import statistics
import time

from cryoemmae_plugin.errors import PYTHON
from cryoemmae_plugin.run.record import Result
from cryoemmae_plugin.run.service import Run
from cryoemmae_plugin.types import Picks
from cryosparc_job import figures
from cryosparc_job.job import ExternalJob
from cryosparc_job.preflight import Prepared
from cryosparc_job.slots import Exposure, ParticleRows

FIRST_SAVE_S, LONGEST_SAVE_S = 60.0, 900.0
"""Seconds until the first save of the picks so far; each later pause is twice as long, up to the longest."""


class ParticlesOutput:
    """Counts picks as they come, and saves them as the job's output.

    Attributes
    ----------
    counts : dict of str to int
        Picks of each micrograph that is done.
    saved : int
        Particles in the output now.
    """

    def __init__(self, prepared: Prepared, job: ExternalJob, rows: ParticleRows) -> None:
        self._prepared, self._job, self._rows = prepared, job, rows
        self._scores = figures.ScoreHistogram()
        self._run: Run | None = None
        self.counts: dict[str, int] = {}
        self.saved = 0
        self._pause, self._next = FIRST_SAVE_S, float("inf")

    @property
    def done(self) -> int:
        """Number of micrographs that the run has finished."""
        counts = None if self._run is None else self._run.counts
        return 0 if counts is None else counts.skipped + counts.picked + counts.empty

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why micrographs have failed."""
        return () if self._run is None else tuple(map(PYTHON, self._run.reasons))

    @property
    def median(self) -> float:
        """Median number of picks of a micrograph."""
        return statistics.median(self.counts.values())

    def begin(self, run: Run) -> None:
        """Count what earlier runs have picked."""
        self._run = run
        self._pause, self._next = FIRST_SAVE_S, time.monotonic() + FIRST_SAVE_S
        pending = {micrograph.uid for micrograph in run.pending}
        for micrograph in run.micrographs:
            if micrograph.uid not in pending:
                self.add(run.store.load(micrograph.uid))

    def add(self, result: Result) -> None:
        """Count one micrograph."""
        assert self._run is not None
        self.counts[result.uid] = len(self._run.selection.picks(result))
        self._scores.add(result.picks.score)

    def save_if_due(self) -> None:
        """Save, if it is time to."""
        if time.monotonic() >= self._next:
            self._pause = min(2 * self._pause, LONGEST_SAVE_S)
            self._next = time.monotonic() + self._pause
            self.save()

    def save(self) -> int:
        """Save the picks of all that is done; the number of micrographs in them."""
        if self._run is None:
            return 0
        settings = self._run.settings
        min_dist_A = settings.diameter_A * settings.min_distance
        dataset = self._rows.build(self._prepared.exposures, self._picks_of, min_dist_A, settings.sizes_A)
        self._job.save(self._prepared.request.output, dataset)
        self.saved = len(dataset)
        return len(self.counts)

    def catch_up(self) -> None:
        """Count micrographs that were stored but not yet counted when the run stopped."""
        if self._run is None:
            return
        for micrograph in self._run.micrographs:
            if micrograph.uid not in self.counts and self._run.store.holds(micrograph):
                self.add(self._run.store.load(micrograph.uid))

    def plot(self) -> None:
        """Show the figures of a finished run."""
        assert self._run is not None
        self._job.plot(
            figures.score_figure(self._scores, self._run.log.threshold), "Figures of merit of all candidates"
        )
        self._job.plot(figures.picks_figure(list(self.counts.values())), "Picks per micrograph")
        known = [e for e in self._prepared.exposures if e.defocus_A is not None and e.key in self.counts]
        if known:
            density = [self.counts[e.key] / _area(e) for e in known]
            figure = figures.defocus_figure([e.defocus_A or 0.0 for e in known], density)
            self._job.plot(figure, "Pick density against defocus")

    def _picks_of(self, exposure: Exposure) -> tuple[Picks, float] | None:
        assert self._run is not None
        if exposure.key not in self.counts:
            return None
        result = self._run.store.load(exposure.key)
        return self._run.selection.picks(result), result.pixel_size_A


def _area(exposure: Exposure) -> float:
    """Area of a micrograph in (0.1 µm)²."""
    ny, nx = exposure.shape
    return ny * nx * (exposure.pixel_size_A / 1000) ** 2
