"""Show a picking run in a job's run.out and run.err."""

from __future__ import annotations

from pathlib import Path

from cryoemmae_plugin.run.observer import Observer
from cryoemmae_plugin.run.service import Run
from cryoemmae_plugin.run.stream import MicrographResult
from cryoemmae_plugin.terminal.heartbeat import Heartbeat
from relion_wrapper.arguments import PARAMETERS
from relion_wrapper.progress import ProgressBar, StageBars, say, say_in_ascii, warn


class RelionObserver(Observer):
    """Writes lines and bars as RELION's own jobs do; a context manager, so that run.out is never silent for long.

    Parameters
    ----------
    in_mics : Path
        Micrographs STAR.
    """

    def __init__(self, in_mics: Path) -> None:
        self._in_mics, self._stages = in_mics, StageBars()
        self._bar: ProgressBar | None = None
        self._done = 0
        self._heart = Heartbeat(self._beat)

    def __enter__(self) -> RelionObserver:
        self._heart.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._heart.__exit__(*details)

    def _beat(self, seconds: float) -> None:
        """Say that the job goes on."""
        if self._bar is not None and not self._bar.is_complete:
            self._bar.beat()
        else:
            say(f"... still working, {seconds:.0f} sec so far")

    def stage(self, text: str) -> None:
        """One line."""
        self._bar = None
        self._heart.task()
        say_in_ascii(PARAMETERS(text))

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Move the bar of the task."""
        self._bar = self._stages.show(task, done, total)

    def ready(self, run: Run) -> None:
        """Say what is picked with what, and begin the bar."""
        say(f"Picking particles of {run.settings.diameter_A:g} Angstrom in {self._in_mics}")
        say(f"Model {run.engine.model_name} on {run.engine.device}")
        if run.counts.skipped:
            say(f"{run.counts.skipped} of {run.counts.micrographs} micrographs are done already")
        if run.pending:
            self._heart.task()
            self._bar = ProgressBar(f"Autopicking {len(run.pending)} micrographs", len(run.pending))
        else:
            say("No new micrographs to do")

    def micrograph(self, run: Run, outcome: MicrographResult, picks: int) -> None:
        """Move the bar; say why a micrograph is left out."""
        self._done += 1
        if outcome.reason is not None:
            warn(PARAMETERS(f"WARNING: skipped {outcome.reason}"))
        if self._bar is not None:
            self._bar.show(self._done)

    def warning(self, text: str) -> None:
        """One line for run.err."""
        warn(PARAMETERS(f"WARNING: {text}"))

    def done(self, run: Run) -> None:
        """Say what does not fit the settings, and where the time went."""
        for text in run.log.warnings:
            say_in_ascii(PARAMETERS(f"WARNING: {text}"))
        if run.log.profile.micrographs:
            say(run.log.profile.line())
        if run.report is not None:
            say(f"Report, to open in a browser: {run.report}")
