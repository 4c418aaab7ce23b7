"""How a picking run shows on a terminal, or in the log that a terminal's output is written to."""

from __future__ import annotations

from contextlib import ExitStack

from cryoemmae_plugin.run.observer import Observer
from cryoemmae_plugin.run.overlays import OVERLAY_FOLDER
from cryoemmae_plugin.run.service import Run
from cryoemmae_plugin.run.stream import MicrographResult
from cryoemmae_plugin.terminal.console import Reporter, Stages
from cryoemmae_plugin.terminal.options import OPTIONS


class TerminalObserver(Observer):
    """Writes lines and draws bars; a context manager, so that a bar ends with the run.

    Parameters
    ----------
    reporter : Reporter
        The terminal.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter, self._stages, self._bar = reporter, Stages(reporter), ExitStack()

    def __enter__(self) -> TerminalObserver:
        self._stages.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._bar.close()
        self._stages.__exit__(*details)

    def stage(self, text: str) -> None:
        """Say the line."""
        self._stages.close()
        self._reporter.say(OPTIONS(text))

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Move the bar of the task."""
        self._stages.show(task, done, total, note)

    def ready(self, run: Run) -> None:
        """Say what is going to be picked, and begin the bar."""
        self._stages.close()
        counts, engine = run.counts, run.engine
        skipped = f"{counts.skipped} were done before and are skipped, " if counts.skipped else ""
        self._reporter.say(
            f"{counts.micrographs} micrographs: {skipped}{len(run.pending)} to pick "
            f"with {engine.model_name} on {engine.device} into {run.store.folder}"
        )
        self._bar.enter_context(self._reporter.progress(len(run.pending), "Picking"))

    def micrograph(self, run: Run, outcome: MicrographResult, picks: int) -> None:
        """Move the bar; say why a micrograph has failed."""
        name = outcome.micrograph.path.name
        if outcome.reason is not None:
            self._reporter.warn(OPTIONS(f"Failed: {outcome.reason}"))
        self._reporter.advance(f"{name}: failed" if outcome.reason is not None else f"{name}: {picks} picks")
        if not run.counts.remaining:
            self._bar.close()  # what follows has bars of its own

    def warning(self, text: str) -> None:
        """Say it in yellow."""
        self._reporter.warn(OPTIONS(text))

    def done(self, run: Run) -> None:
        """Say how it went, where the results are, and what to do next."""
        self._bar.close()
        counts = run.counts
        done = counts.micrographs - counts.remaining - counts.failed
        line = f"{done} of {counts.micrographs} micrographs are done"
        line += f", {counts.failed} failed" if counts.failed else ""
        line += f", {counts.remaining} remain" if counts.remaining else ""
        self._reporter.say(f"{line}.")
        self._say_where(run)
        if run.log.profile.micrographs:
            self._reporter.say(f"{run.log.profile.line()}.")
        if run.reasons:
            self._reporter.warn("Failed micrographs. Fix the problems below, then run the same command again:")
            for reason in run.reasons:
                self._reporter.warn(OPTIONS(f"  {reason}"))

    def _say_where(self, run: Run) -> None:
        totals, folder = run.totals, run.store.folder
        if totals is None or not totals.picked + totals.empty:
            return
        micrographs = totals.picked + totals.empty
        empty = f"; {totals.empty} have no picks" if totals.empty else ""
        self._reporter.say(
            f"Wrote {totals.picks} picks from {micrographs} micrographs ({totals.picks / micrographs:.0f} each{empty}) "
            f"to {folder / 'picks.star'}"
        )
        if run.report is not None:
            self._reporter.say(f"Report: {run.report}")
        if run.request.outputs.overlays or run.report is not None:
            self._reporter.say(
                f"Next: look at {run.report or folder / OVERLAY_FOLDER}. Too many or too few picks? Run: "
                f"cryoemmae rethreshold {folder} --threshold {_other_threshold(run.log.threshold)}"
            )


def _other_threshold(threshold: float) -> str:
    """A higher one for an example."""
    return f"{min(threshold + 0.1, 1):.2g}"
