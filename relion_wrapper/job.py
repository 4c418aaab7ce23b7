"""One pass of the picking job: what is new is picked, all of it is published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from cryoemmae_plugin.device import split_devices
from cryoemmae_plugin.errors import CryoemmaeError, ImageError
from cryoemmae_plugin.images import read_header
from cryoemmae_plugin.report.finisher import report_finisher
from cryoemmae_plugin.run.inputs import evenly_spread
from cryoemmae_plugin.run.outputs import Totals
from cryoemmae_plugin.run.request import NO_OUTPUTS, OwnModel, RunRequest
from cryoemmae_plugin.run.service import Run, run_picking
from cryoemmae_plugin.run.store import Existing
from cryoemmae_plugin.run.workers.engine import needs_workers
from cryoemmae_plugin.settings import DeviceOptions, device_of_gpus, pictures_of
from relion_wrapper.arguments import JobArguments
from relion_wrapper.dialect import DEFAULT_VERSION, DIALECTS, Dialect, detect_version
from relion_wrapper.display import write_display_settings
from relion_wrapper.logfile import write_logfile
from relion_wrapper.micrographs import JobMicrograph, read_job_micrographs
from relion_wrapper.observer import RelionObserver
from relion_wrapper.progress import say, warn
from relion_wrapper.publish import LOGFILE, Published, publish_coordinates, write_list, write_output_nodes
from relion_wrapper.refining import selection_of_job

WORK_FOLDER = "cryoemmae"
"""In the job's folder: all candidates of all micrographs, and the model that the job has trained."""
OWN_MODEL = "project"
"""Name and folder of that model."""


class PickJob:
    """The job between the first line of run.out and the exit marker; the project is the current folder.

    Parameters
    ----------
    should_stop : callable
        Whether to abort the job; called before each micrograph and after each training step.
    """

    def __init__(self, arguments: JobArguments, should_stop: Callable[[], bool]) -> None:
        self._arguments, self._should_stop = arguments, should_stop
        self._folder = arguments.folder

    def run(self) -> None:
        """Pick what is not done yet, and publish everything.

        Raises
        ------
        CryoemmaeError
            When the job has failed; :class:`Interrupted` when it is aborted.
        """
        micrographs = read_job_micrographs(self._arguments.in_mics, self._arguments.settings.pixel_size_A)
        with RelionObserver(self._arguments.in_mics) as observer:
            run_picking(
                self._request(micrographs),
                [m.micrograph for m in micrographs],
                observer,
                stop=self._should_stop,
                finishers=[
                    lambda run: self._publish(micrographs, run),
                    report_finisher(observer, self._should_stop),
                ],
            )

    def _request(self, micrographs: Sequence[JobMicrograph]) -> RunRequest:
        asked, work = self._arguments, self._folder / WORK_FOLDER
        device = DeviceOptions(device=device_of_gpus(asked.job.gpu), threads=asked.threads)
        return RunRequest(
            asked.settings,
            work,
            existing=Existing.RENEW,
            device=device,
            worker_threads=self._worker_threads(device),
            compute=asked.compute,
            workers=asked.workers,
            own_model=self._own_model(micrographs, work),
            selection=selection_of_job(asked, micrographs),
            outputs=replace(NO_OUTPUTS, report=pictures_of(asked.job.report)),
        )

    def _worker_threads(self, device: DeviceOptions) -> int:
        """RELION's number of threads counts for the whole job on this machine, but for each worker on a cluster."""
        threads, workers = self._arguments.threads, self._arguments.workers
        if not threads or workers.scheduler is not None or not needs_workers(workers, device.device):
            return threads
        return max(1, threads // (workers.workers or len(split_devices(device.device))))

    def _own_model(self, micrographs: Sequence[JobMicrograph], work: Path) -> OwnModel | None:
        """The model to train on some of the micrographs."""
        job = self._arguments.job
        if not job.train_on:
            return None
        chosen = evenly_spread([m.micrograph for m in micrographs], job.train_on)
        return OwnModel(work / OWN_MODEL, OWN_MODEL, chosen, job.train_epochs)

    def _publish(self, micrographs: Sequence[JobMicrograph], run: Run) -> None:
        """Write what RELION reads, in its order: coordinates, log, list, nodes."""
        dialect = self._dialect()
        published = publish_coordinates(self._folder, micrographs, run.store, run.selection)
        total, done = sum(published.picks), len(published.micrographs)
        if not done:
            raise ImageError(f"all {len(micrographs)} micrographs failed; first {''.join(run.reasons[:1])}")
        picked = sum(picks > 0 for picks in published.picks)
        run.totals = Totals(picked=picked, empty=done - picked, picks=total)
        with_logfile = self._write_logfile(published, run)
        self._set_display(published, run.settings.diameter_A)
        write_list(self._folder, dialect, self._arguments.in_mics, published.micrographs)
        write_output_nodes(self._folder, dialect, logfile=with_logfile)
        say(f"Total number of particles from {done} micrographs is {total}")
        say(f"i.e. on average there were {round(total / done)} particles per micrograph")
        if run.reasons:
            warn(
                f"WARNING: {len(run.reasons)} of {len(micrographs)} micrographs were skipped; Continue picks those "
                "that are mended by then"
            )
        say(f"Done! Written: {self._folder / dialect.list_name}")
        if with_logfile:
            say(f"Next: look at {self._folder / LOGFILE}, then run Particle extraction with these coordinates")

    def _write_logfile(self, published: Published, run: Run) -> bool:
        """Draw the log; a picture that cannot be drawn is not worth a job."""
        try:
            write_logfile(self._folder / LOGFILE, published, run.store, run.selection)
        except Exception as err:
            warn(f"WARNING: no {LOGFILE} ({type(err).__name__}: {err})")
            return False
        return True

    @staticmethod
    def _set_display(published: Published, diameter_A: float) -> None:
        sizes = [micrograph.pixel_size_A for micrograph in published.micrographs]
        try:
            width_px = read_header(Path(published.micrographs[0].name)).shape[1]
            write_display_settings(Path(), diameter_A, sizes, width_px)
        except CryoemmaeError as err:
            warn(f"WARNING: RELION's display keeps its own circle size ({err})")

    def _dialect(self) -> Dialect:
        """How the RELION at hand wants its output."""
        wanted = self._arguments.job.relion_version
        if wanted != "auto":
            return DIALECTS[wanted]
        found = detect_version(self._folder / "job_pipeline.star") or detect_version(Path("default_pipeline.star"))
        if found is None:
            say(f"No RELION pipeline here that tells its version: writing for RELION {DEFAULT_VERSION}")
        return DIALECTS[found or DEFAULT_VERSION]
