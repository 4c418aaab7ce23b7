"""Show a picking run in the log of a job in CryoSPARC, and on the terminal that started it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import SimpleQueue

from cryoemmae_plugin.errors import ImageError
from cryoemmae_plugin.run.inputs import evenly_spread
from cryoemmae_plugin.run.observer import Observer
from cryoemmae_plugin.run.overlay_picture import png_bytes
from cryoemmae_plugin.run.overlays import draw_result
from cryoemmae_plugin.run.prefetch import Loader
from cryoemmae_plugin.run.service import Run
from cryoemmae_plugin.run.stream import MicrographResult
from cryosparc_job import messages
from cryosparc_job.job import ExternalJob
from cryosparc_job.particles import ParticlesOutput
from cryosparc_job.preflight import Prepared
from cryosparc_job.terminal import NAMES

logger = logging.getLogger(__name__)


class CryosparcObserver(Observer):
    """Writes into the job's log, draws some micrographs, and saves particles during the run.

    Parameters
    ----------
    particles : ParticlesOutput
        Receives what is picked.
    loader : callable
        Reads a micrograph that is to be drawn.
    """

    def __init__(
        self,
        prepared: Prepared,
        job: ExternalJob,
        particles: ParticlesOutput,
        loader: Loader,
        tell: Callable[[str], None],
    ) -> None:
        self._job, self._particles, self._loader, self._tell = job, particles, loader, tell
        self._output = prepared.request.output
        count = prepared.request.overlays
        self._shown = {exposure.key for exposure in evenly_spread(prepared.exposures, count)} if count else set()
        self._progress, self._ready = messages.Progress(0), False
        self._heard: SimpleQueue[str] = SimpleQueue()

    def hear(self, text: str) -> None:
        """Keep a warning of the library for the job's log; any thread may call this."""
        self._heard.put(text)

    def stage(self, text: str) -> None:
        """One line."""
        self._job.log(NAMES(text))
        self._tell(NAMES(text))

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Write over the line of progress."""
        line = f"{task}  {messages.bar(done, total)}  {done} / {total}   {note}".rstrip()
        self._tell(line)
        self._job.progress(line, now=done == total, line="report" if self._ready else "progress")

    def ready(self, run: Run) -> None:
        """Log the model and the device, and how many micrographs are already done."""
        self._ready = True
        self._log_heard()
        self._job.log(messages.engine(run.engine))
        self._job.checkpoint()
        self._particles.begin(run)
        if run.counts.skipped:
            line = (
                f"{run.counts.skipped} micrographs were picked before and are kept, {len(run.pending)} remain to pick."
            )
            self._job.log(line)
        self._progress = messages.Progress(len(run.pending))

    def micrograph(self, run: Run, outcome: MicrographResult, picks: int) -> None:
        """Log the progress; save particles and show pictures from time to time."""
        self._log_heard()
        if outcome.result is None:
            self._job.log(NAMES(f"Left out: {outcome.reason}"), "warning")
        else:
            self._particles.add(outcome.result)
            if outcome.micrograph.uid in self._shown:
                self._show(run, outcome)
        line = self._progress.advance(picks)
        self._tell(line)
        self._job.progress(line, now=self._progress.done in (1, self._progress.total))
        self._particles.save_if_due()

    def warning(self, text: str) -> None:
        """One line, marked as a warning."""
        self._tell(f"Warning: {NAMES(text)}")
        self._job.log(NAMES(text), "warning")

    def done(self, run: Run) -> None:
        """Say where the report is."""
        self._log_heard()
        if run.report is not None:
            self._job.log(f"Report, to open in a browser: {run.report}")

    def _log_heard(self) -> None:
        while not self._heard.empty():
            self._job.log(self._heard.get(), "warning")

    def _show(self, run: Run, outcome: MicrographResult) -> None:
        """Draw the picks of a micrograph into the job's log."""
        assert outcome.result is not None
        result, name = outcome.result, outcome.micrograph.path.name
        try:
            loaded = self._loader(outcome.micrograph)
        except ImageError as err:
            logger.warning("no overlay: %s", err)
            return
        picture = png_bytes(draw_result(result, run.selection, loaded.image, name))
        self._job.plot(picture, f"{len(run.selection.picks(result))} picks in {name[-80:]}")
        self._job.show(self._output, picture)
