"""One pick job: exposures in, particles out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryoemmae_plugin.errors import InputError, StoreError
from cryoemmae_plugin.log import library_log
from cryoemmae_plugin.report.finisher import report_finisher
from cryoemmae_plugin.run.engine import EngineFactory
from cryoemmae_plugin.run.inputs import evenly_spread
from cryoemmae_plugin.run.outputs import Totals
from cryoemmae_plugin.run.request import OwnModel
from cryoemmae_plugin.run.service import Run, run_picking
from cryoemmae_plugin.types import Micrograph
from cryosparc_job import messages
from cryosparc_job.errors import CryosparcError, JobStopped
from cryosparc_job.exposures import ExposureOutputs
from cryosparc_job.files import ExposureFiles
from cryosparc_job.instance import Instance
from cryosparc_job.job import ExternalJob
from cryosparc_job.lifecycle import JobStop, Watch, running
from cryosparc_job.observer import CryosparcObserver
from cryosparc_job.particles import ParticlesOutput
from cryosparc_job.preflight import Prepared
from cryosparc_job.request import MODEL_FOLDER, PICKS_FOLDER
from cryosparc_job.slots import Exposure, ParticleRows


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
    """A job that is ready to run.

    Attributes
    ----------
    job : ExternalJob
        The job in CryoSPARC, connected, with its output.
    engine_factory : callable or None
        Makes the picking engine; None for the network.
    rows : ParticleRows
        Makes the particles.
    divided : ExposureOutputs
        Takes the exposures with picks and those without.
    """

    instance: Instance
    prepared: Prepared
    job: ExternalJob
    folder: Path
    engine_factory: EngineFactory | None
    rows: ParticleRows
    divided: ExposureOutputs
    stop: JobStop = field(default_factory=JobStop)
    tell: Callable[[str], None] = lambda text: None
    _particles: ParticlesOutput = field(init=False)

    def __post_init__(self) -> None:
        self._particles = ParticlesOutput(self.prepared, self.job, self.rows)

    def run(self) -> JobReport:
        """Run the job; the report says how it ended.

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
        return JobReport(
            self.job.project,
            self.job.uid,
            status,
            self._particles.done,
            self._particles.saved,
            self._particles.reasons,
            self.folder,
            self.stop.reason or "",
            self.stop.signal,
        )

    def _work(self) -> None:
        self._greet()
        self._pick(Watch(self.job, self.stop))

    def _greet(self) -> None:
        """Say what is picked, and how."""
        self.job.log(messages.greeting(self.prepared.exposures, self.prepared.request, self.folder))

    def _pick(self, watch: Watch, *, last: bool = True) -> None:
        """Pick all exposures that are not done; `last` says that no more are to come."""
        request, files = self.prepared.request, self._files()
        observer = CryosparcObserver(self.prepared, self.job, self._particles, files.load, self.tell)
        with library_log(observer.hear):
            run_picking(
                request.run_request(self.folder / PICKS_FOLDER, self._own_model(files), self.prepared.selection),
                self._micrographs(self.prepared.exposures),
                observer,
                loader=files.load,
                stop=watch,
                engine_factory=self.engine_factory,
                finishers=[self._finish, report_finisher(observer, watch)] if last else [self._save],
            )

    def _micrographs(self, exposures: Sequence[Exposure]) -> list[Micrograph]:
        pixel_size_A = self.prepared.request.settings.pixel_size_A
        return [exposure.micrograph(self.prepared.project_dir, pixel_size_A) for exposure in exposures]

    def _files(self) -> ExposureFiles:
        paths = {exposure.key: exposure.file for exposure in self.prepared.exposures}
        return ExposureFiles(self.instance, self.job.project, paths, self.folder / "scratch")

    def _own_model(self, files: ExposureFiles) -> OwnModel | None:
        """The model to train on some of the exposures."""
        request = self.prepared.request
        if not request.train_on:
            return None
        sample = self._micrographs(evenly_spread(self.prepared.exposures, request.train_on))
        return OwnModel(
            self.folder / MODEL_FOLDER,
            f"{request.project}-{self.job.uid}",
            sample,
            data=f"{len(sample)} unlabelled exposures of {request.project} {request.exposures}",
            file_of=files.file_of,
        )

    def _save(self, run: Run) -> None:
        """Save all picks so far."""
        done = self._particles.save()
        self.job.log(f"{self._particles.saved} particles of {done} micrographs saved")

    def _finish(self, run: Run) -> None:
        """Save all picks, and report the results."""
        self.job.checkpoint()
        particles = self._particles
        done = particles.save()
        if not done:
            raise InputError(f"none of {run.counts.micrographs} micrographs could be picked; the reasons are above")
        picked = sum(count > 0 for count in particles.counts.values())
        self.divided.save(
            self.prepared.exposures, self.prepared.dataset, lambda one: particles.counts.get(one.key, 0) > 0
        )
        run.totals = Totals(picked=picked, empty=done - picked, picks=particles.saved)
        particles.plot()
        self.job.log(messages.summary(run.counts, particles.saved, particles.median))
        if run.log.profile.micrographs:
            self.job.log(run.log.profile.line())

    def _rescue(self, reason: str) -> str:
        """Save the picks so far when a run ends early; return a message for the user."""
        again = f"cryoemmae-cryosparc resume --project {self.job.project} --job {self.job.uid}"
        total = len(self.prepared.exposures)
        saved = ""
        try:
            self._particles.catch_up()
            if self._particles.counts:
                saved = f"The picks of {self._particles.save()} of {total} micrographs are saved. "
        except (CryosparcError, StoreError, InputError) as err:
            saved = f"Saving the picks failed ({err}). "
        return f"{saved}To resume: {again}"
