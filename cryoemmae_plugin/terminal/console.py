"""What a run says: a progress bar on a terminal, dated lines in a log file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import datetime, timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from cryoemmae_plugin.terminal.heartbeat import EVERY_S, Heartbeat
from cryoemmae_plugin.terminal.streams import discard

LOG_EVERY_S = EVERY_S
"""Least seconds between two progress lines in a log."""


class Reporter:
    """Messages and progress of one command.

    Parameters
    ----------
    interactive : bool, optional
        Draw a progress bar; by default when standard output is a terminal.
    dated : bool
        Begin each line with date and time where standard output is no terminal but, most likely, a log.
    aside : bool
        Say everything on standard error, for a command whose standard output another program may read.
    """

    def __init__(self, interactive: bool | None = None, *, dated: bool = False, aside: bool = False) -> None:
        self._err = _LastingConsole(highlight=False, stderr=True)
        self._out = self._err if aside else _LastingConsole(highlight=False)
        self.interactive = self._out.is_terminal if interactive is None else interactive
        self._dated = dated and not self.interactive
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._total, self._done, self._before, self._start, self._last = 0, 0, 0, 0.0, 0.0
        self._label, self._said = "", ""
        self._heart: Heartbeat | None = None

    def say(self, text: str) -> None:
        """A message for the user."""
        self._said = text
        if self._heart is not None:
            self._heart.task()
        self._write(self._out, text)

    def warn(self, text: str) -> None:
        """A message about something that went wrong, to standard error."""
        if self._heart is not None:
            self._heart.told()
        self._write(self._err, text, style="yellow")

    def error(self, text: str) -> None:
        """The reason why a command ends, to standard error."""
        self._print(self._err, Text(printable(f"Error: {text}"), "red"))

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Until the end of the block, say at least every ten seconds that the command goes on."""
        if self._heart is not None:  # of a block around this one
            yield
            return
        with Heartbeat(self._beat) as self._heart:
            try:
                yield
            finally:
                self._heart = None

    def _beat(self, seconds: float) -> None:
        """Say what goes on; a bar on a terminal moves by itself."""
        if self._bar is not None and self._done < self._total:
            return
        task = f"{self._done}/{self._total}  {self._label}" if self._label else "".join(self._said.splitlines()[-1:])
        self._last = time.monotonic()
        self._write(self._out, f"{task[:100]} … still working, {timedelta(seconds=round(seconds))} so far")

    @contextmanager
    def progress(self, total: int, label: str) -> Iterator[None]:
        """Show how far `total` steps have come, as :meth:`advance` counts them."""
        self._total, self._done, self._before = total, 0, 0
        self._start, self._last = time.monotonic(), float("-inf")
        self._label = label
        if self._heart is not None:
            self._heart.task()
        try:
            with self._shown(label) if self.interactive else nullcontext():
                yield
        finally:
            self._label, self._said = "", f"{label}: done"  # not what was said before it
            if self._heart is not None:
                self._heart.task()

    @contextmanager
    def _shown(self, label: str) -> Iterator[None]:
        """Draw a bar; the wheel before it turns also while no step ends."""
        columns = (
            SpinnerColumn("line"),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
        )
        with Progress(*columns, console=self._out) as self._bar:
            self._task = self._bar.add_task(label, total=self._total, note="")
            try:
                yield
            finally:
                self._bar.stop()
                self._bar, self._task = None, None

    def advance(self, note: str) -> None:
        """Count one step; in a log, write a line from time to time, and for the first and the last step."""
        self.advance_to(self._done + 1, self._total, note)

    def advance_to(self, done: int, total: int, note: str) -> None:
        """Show that `done` of `total` steps are done."""
        if self._done == 0 and done > 1:
            self._before = done - 1  # a resumed task: its time began here
        self._done, self._total = done, total
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)
            return
        now = time.monotonic()
        if now - self._last >= LOG_EVERY_S or done == total:
            self._last = now
            if self._heart is not None:
                self._heart.told()
            left = timedelta(seconds=round((now - self._start) / (done - self._before) * (total - done)))
            self._write(self._out, f"{done}/{total}  {note}  ({left} left)")

    def _write(self, console: Console, text: str, style: str = "") -> None:
        if self._dated:
            text = f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}"
        target = self._bar.console if self._bar is not None else console
        self._print(target, Text(printable(text), style))

    @staticmethod
    def _print(target: Console, text: Text) -> None:
        try:
            target.print(text, soft_wrap=True)
        except OSError:  # such as a full disk: what is written counts more than what is said
            target.quiet = True
            discard(target.file)


class _LastingConsole(Console):
    """A console that falls silent when nobody reads it any more; the command goes on."""

    def on_broken_pipe(self) -> None:
        """Send everything else nowhere."""
        self.quiet = True
        discard(self.file)


def printable(text: str) -> str:
    r"""A text without the half characters that stand for bytes of a file name that are not UTF-8.

    Examples
    --------
    >>> printable("mic\udcff.mrc")
    'mic?.mrc'
    """
    return text.encode("utf-8", "replace").decode()


class Stages:
    """One bar after the other: each stage of a training has its own; a context manager, so that no stage is silent."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter, self._stage, self._bar, self._life = reporter, "", ExitStack(), ExitStack()

    def __enter__(self) -> Stages:
        self._life.enter_context(self._reporter.alive())
        return self

    def __exit__(self, *details: object) -> None:
        self.close()
        self._life.close()

    def close(self) -> None:
        """End the bar of the stage, if there is one."""
        self._stage = ""
        self._bar.close()

    def show(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` steps of a stage are done."""
        if stage != self._stage:
            self._bar.close()
            self._stage = stage
            if not self._reporter.interactive:
                self._reporter.say(stage)
            self._bar.enter_context(self._reporter.progress(total, stage))
        if done:
            self._reporter.advance_to(done, total, note)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, one for each row, with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
