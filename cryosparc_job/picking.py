"""One pick job: exposures in, particles out, and what is said and shown on the way."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryoemmae_plugin.cli.session import AnyEngine, Engine
from cryoemmae_plugin.errors import CryoemmaeError, ImageError, InputError, StoreError
from cryoemmae_plugin.report.overlay import draw_overlay, png_bytes
from cryoemmae_plugin.run.adapting import settle_model
from cryoemmae_plugin.run.diameter import settle_diameter
from cryoemmae_plugin.run.store import ResultStore, RunRecord, alone_in
from cryoemmae_plugin.run.stream import MicrographResult
from cryoemmae_plugin.run.summary import RunLog, write_summary
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.types import Micrograph, Picks
from cryoemmae_plugin.version import release
from cryosparc_job import figures, messages
from cryosparc_job.errors import CryosparcError, JobStopped
from cryosparc_job.files import ExposureFiles
from cryosparc_job.instance import Instance
from cryosparc_job.job import ExternalJob
from cryosparc_job.lifecycle import Stop, Watch, running
from cryosparc_job.preflight import Prepared
from cryosparc_job.slots import Exposure, ParticleRows, spread
from cryosparc_job.training import train

logger = logging.getLogger(__name__)

PICKS_FOLDER = "picks"
"""Results, in the job's own folder."""

FIRST_SAVE_S, LONGEST_SAVE_S = 60.0, 900.0
"""Seconds to the first save of what is there so far; each next one after twice the time, up to the longest."""

BuildEngine = Callable[[PickerSettings, str, int], Engine]
"""Makes what picks in this process from settings, the name of a device, and a number of threads (0: as it is)."""

ChooseEngine = Callable[[PickerSettings], AnyEngine]
"""Makes what picks, here or on workers."""


@dataclass(frozen=True)
class JobReport:
    """How a job ended: `picks` are those saved, `failed` the reasons of micrographs that could not be picked."""

    project: str
    job: str
    status: str
    micrographs: int
    picks: int
    failed: tuple[str, ...]
    folder: Path
    reason: str = ""
    signal: int | None = None


@dataclass
class PickJob:
    """A job in the making.

    Attributes
    ----------
    instance : Instance
        Where it is.
    prepared : Prepared
        What it picks.
    job : ExternalJob
        The job in CryoSPARC, connected, with its output.
    folder : Path
        Where results are kept.
    build : callable
        Makes the engine.
    rows : ParticleRows
        Makes the output.
    """

    instance: Instance
    prepared: Prepared
    job: ExternalJob
    folder: Path
    build: ChooseEngine
    rows: ParticleRows
    stop: Stop = field(default_factory=Stop)
    tell: Callable[[str], None] = lambda text: None
    _log: RunLog = field(init=False)
    _store: ResultStore | None = field(default=None, init=False)
    _scores: figures.ScoreHistogram = field(default_factory=figures.ScoreHistogram, init=False)
    _counts: dict[str, int] = field(default_factory=dict, init=False)
    _saved: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._log = RunLog(threshold=self.prepared.request.settings.pick_threshold)

    def run(self) -> JobReport:
        """Do it all; every end but the good one is in the report too.

        Raises
        ------
        CryoemmaeError
            When the work failed for another reason than being stopped; the job is marked as failed then.
        """
        caller = self.instance.caller
        caller.should_stop, caller.tell = self.stop, self.tell
        status = "completed"
        try:
            with running(self.job, self.stop, self._rescue):
                self._work()
        except JobStopped:
            status = "killed" if self.stop.elsewhere else "failed"
        finally:
            self._close()
        counts = self._log.counts
        done = counts.skipped + counts.picked + counts.empty
        failed = tuple(failure["reason"] for failure in self._log.failures)
        return JobReport(
            self.job.project,
            self.job.uid,
            status,
            done,
            self._saved,
            failed,
            self.folder,
            self.stop.reason or "",
            self.stop.signal,
        )

    def _work(self) -> None:
        request, job = self.prepared.request, self.job
        watch = Watch(job, self.stop)
        job.log(messages.greeting(self.prepared.exposures, request, self.folder))
        with alone_in(self.folder / PICKS_FOLDER) as lock:
            engine, settings = self._settle(watch)
            job.log(messages.engine(engine, settings))
            job.checkpoint()
            record = RunRecord(
                version=release(), model_name=engine.model_name, model_sha256=engine.model_sha256, settings=settings
            )
            self._store = ResultStore.create(self.folder / PICKS_FOLDER, record, lock=lock)
            self._pick(engine, watch)
            job.checkpoint()
            self._finish(engine)

    def _settle(self, watch: Watch) -> tuple[AnyEngine, PickerSettings]:
        """What picks, and by which settings: the diameter, the model trained, and adapted to the micrographs."""
        request, job, folder = self.prepared.request, self.job, self.folder / PICKS_FOLDER
        files = self._files()
        micrographs = [self._micrograph(exposure) for exposure in self.prepared.exposures]
        settings = settle_diameter(request.settings, micrographs, folder, tell=job.log, loader=files.load)
        if request.train_on:
            job.checkpoint()
            sample = [self._micrograph(e) for e in spread(self.prepared.exposures, request.train_on)]
            settings = train(sample, files, request, settings, self.folder, job, watch)
        adapted = settle_model(
            settings,
            micrographs,
            folder,
            tell=job.log,
            progress=lambda done, total: job.progress(f"Adapting  {messages.bar(done, total)}", now=done == total),
            loader=files.load,
            should_stop=watch,
        )
        return self.build(adapted), settings

    def _micrograph(self, exposure: Exposure) -> Micrograph:
        return exposure.micrograph(self.prepared.project_dir, self.prepared.request.settings.pixel_size_A)

    def _files(self) -> ExposureFiles:
        paths = {exposure.key: exposure.file for exposure in self.prepared.exposures}
        return ExposureFiles(self.instance, self.job.project, paths, self.folder / "scratch")

    def _pick(self, engine: AnyEngine, watch: Watch) -> None:
        """Pick what is not done yet; save and show on the way."""
        assert self._store is not None
        micrographs = [self._micrograph(exposure) for exposure in self.prepared.exposures]
        pending = self._store.pending(micrographs)
        counts = self._log.counts
        counts.micrographs, counts.skipped = len(micrographs), len(micrographs) - len(pending)
        waiting = {micrograph.uid for micrograph in pending}
        for micrograph in micrographs:
            if micrograph.uid not in waiting:
                self._count(micrograph.uid, self._store.load(micrograph.uid).picks)
        self._tell_start(counts.skipped, len(pending))
        files = self._files()
        shown = {exposure.key for exposure in spread(self.prepared.exposures, self.prepared.request.overlays)}
        shown = shown if self.prepared.request.overlays else set()
        progress = messages.Progress(len(pending))
        timer = _SaveTimer()
        for outcome in self._outcomes(engine, pending, files, watch):
            self._note(outcome)
            if outcome.result is not None and outcome.micrograph.uid in shown:
                self._show(outcome, files)
            line = progress.advance(self._picks_so_far(outcome))
            self.tell(line)
            self.job.progress(line, now=progress.done == progress.total)
            if timer.due():
                self._save()

    def _outcomes(
        self, engine: AnyEngine, pending: Sequence[Micrograph], files: ExposureFiles, watch: Watch
    ) -> Iterator[MicrographResult]:
        """What becomes of each micrograph: read by this process, through the client where need be, or by workers."""
        assert self._store is not None
        jobs = self.prepared.request.jobs
        if isinstance(engine, Engine):
            return engine.pick(pending, self._store, jobs=jobs, should_stop=watch, loader=files.load)
        unseen = [micrograph.path for micrograph in pending if not micrograph.path.is_file()]
        if unseen:
            raise InputError(
                f"{unseen[0]}: not in sight here ({len(unseen)} of {len(pending)} micrographs), and workers read files "
                "themselves; pick where the project's folder is mounted, or in one process, without --workers"
            )
        return engine.pick(pending, self._store, jobs=jobs, should_stop=watch)

    def _tell_start(self, skipped: int, pending: int) -> None:
        if skipped:
            self.job.log(f"{skipped} micrographs were picked before and are kept, {pending} are to be picked.")

    def _note(self, outcome: MicrographResult) -> None:
        """Count one micrograph."""
        self._log.add(outcome)
        if outcome.result is None:
            self.job.log(f"Left out: {outcome.reason}", "warning")
        else:
            self._count(outcome.micrograph.uid, outcome.result.picks)

    def _count(self, uid: str, picks: Picks) -> None:
        self._counts[uid] = len(picks.above(self._log.threshold))
        self._scores.add(picks.score)

    def _picks_so_far(self, outcome: MicrographResult) -> int:
        return self._counts.get(outcome.micrograph.uid, 0)

    def _show(self, outcome: MicrographResult, files: ExposureFiles) -> None:
        """Draw the picks of a micrograph into the job's log."""
        assert outcome.result is not None
        assert self._store is not None
        result, settings = outcome.result, self._store.record.settings
        try:
            loaded = files.load(outcome.micrograph)
        except ImageError as err:
            logger.warning("no overlay: %s", err)
            return
        picks = result.picks.above(self._log.threshold)
        diameter_px = settings.diameter_A / result.pixel_size_A
        name = outcome.micrograph.path.name
        picture = png_bytes(draw_overlay(loaded.image, picks, diameter_px, self._log.threshold, name))
        self.job.plot(picture, f"{len(picks)} picks in {name[-80:]}")
        self.job.show(self.prepared.request.output, picture)

    def _save(self) -> int:
        """Save the picks of all that is done; the number of micrographs in them."""
        if self._store is None:
            return 0
        min_dist_A = self._store.record.settings.diameter_A / 2
        dataset = self.rows.build(self.prepared.exposures, self._picks_of, min_dist_A)
        self.job.save(self.prepared.request.output, dataset)
        self._saved = len(dataset)
        return len(self._counts)

    def _picks_of(self, exposure: Exposure) -> tuple[Picks, float] | None:
        assert self._store is not None
        if exposure.key not in self._counts:
            return None
        result = self._store.load(exposure.key)
        return result.picks.above(self._log.threshold), result.pixel_size_A

    def _finish(self, engine: AnyEngine) -> None:
        """Save it all, and say how it went."""
        done, counts = self._save(), self._log.counts
        if not done:
            raise InputError(f"none of {counts.micrographs} micrographs could be picked; the reasons are above")
        self._draw()
        picks = list(self._counts.values())
        self.job.log(messages.summary(counts, self._saved, statistics.median(picks)))
        if self._log.profile.micrographs:
            self.job.log(self._log.profile.line())
        self._summarise("done", str(engine.device))

    def _draw(self) -> None:
        """The figures of a finished run."""
        threshold = self._log.threshold
        self.job.plot(figures.score_figure(self._scores, threshold), "Figures of merit of all candidates")
        self.job.plot(figures.picks_figure(list(self._counts.values())), "Picks per micrograph")
        known = [e for e in self.prepared.exposures if e.defocus_A is not None and e.key in self._counts]
        if known:
            density = [self._counts[e.key] / _area(e) for e in known]
            figure = figures.defocus_figure([e.defocus_A or 0.0 for e in known], density)
            self.job.plot(figure, "Pick density against defocus")

    def _rescue(self, reason: str) -> str:
        """Save what is there when a run ends early; what to tell the user about it."""
        again = f"cryoemmae-cryosparc resume --project {self.job.project} --job {self.job.uid}"
        total = len(self.prepared.exposures)
        saved = ""
        try:
            self._catch_up()
            if self._counts:
                saved = f"The picks of {self._save()} of {total} micrographs are saved. "
        except (CryosparcError, StoreError, InputError) as err:
            saved = f"Saving the picks failed ({err}). "
        self._summarise("interrupted" if self.stop.signal or self.stop.elsewhere else "failed", "")
        return f"{saved}Go on with: {again}"

    def _catch_up(self) -> None:
        """Count what was stored, but not told of, when the run broke off."""
        if self._store is None:
            return
        for exposure in self.prepared.exposures:
            if exposure.key not in self._counts and self._store.holds(self._micrograph(exposure)):
                self._count(exposure.key, self._store.load(exposure.key).picks)

    def _summarise(self, status: str, device: str) -> None:
        if self._store is not None:
            try:
                write_summary(self._store.folder, self._store.record, self._log, None, status, device)  # type: ignore[arg-type]
            except CryoemmaeError as err:
                logger.warning("%s", err)

    def _close(self) -> None:
        if self._store is not None:
            self._store.__exit__(None, None, None)
            self._store = None


def _area(exposure: Exposure) -> float:
    """Area of a micrograph in (0.1 µm)²."""
    ny, nx = exposure.shape
    return ny * nx * (exposure.pixel_size_A / 1000) ** 2


class _SaveTimer:
    """When to save what is there so far."""

    def __init__(self) -> None:
        self._pause = FIRST_SAVE_S
        self._next = time.monotonic() + self._pause

    def due(self) -> bool:
        """Whether it is time."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._pause = min(2 * self._pause, LONGEST_SAVE_S)
        self._next = now + self._pause
        return True
