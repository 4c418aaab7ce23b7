"""What a job writes into run.out and run.err, in the way that RELION's own jobs do."""

from __future__ import annotations

import sys
import time

_WIDTH = 60
_MOUSE, _HOLE = '~~(,_,">', "[oo]"


def say(text: str) -> None:
    """One line for run.out, at once."""
    sys.stdout.write(f" {text}\n")
    sys.stdout.flush()


def say_in_ascii(text: str) -> None:
    """The same for a line that was made for a terminal: run.out may be read without UTF-8."""
    say(text.replace("Å", "Angstrom").encode("ascii", "replace").decode())


def warn(text: str) -> None:
    """One line for run.err, at once."""
    sys.stdout.flush()
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class ProgressBar:
    """RELION's bar: one line that is written over, as `tail -f run.out` and the GUI show it.

    Parameters
    ----------
    title : str
        What is being done.
    total : int
        Steps to do.
    """

    def __init__(self, title: str, total: int) -> None:
        self._total, self._start, self._drawn = max(total, 1), time.monotonic(), -1
        say(f"{title} ...")
        self.show(0)

    def show(self, done: int) -> None:
        """Show that `done` steps are done; writes only when the bar changes."""
        place = min(done, self._total) * _WIDTH // self._total
        if place == self._drawn:
            return
        self._drawn = place
        sys.stdout.write(f"\r{self._clock(done)} {'.' * place}{_MOUSE}{' ' * (_WIDTH - place)}{_HOLE}")
        if done >= self._total:
            sys.stdout.write("\n")
        sys.stdout.flush()

    def _clock(self, done: int) -> str:
        """Time spent, and the expected total time if it is known."""
        spent = time.monotonic() - self._start
        whole = spent * self._total / done if done else None
        for unit, seconds in (("hrs", 3600.0), ("min", 60.0)):
            if whole is not None and whole > seconds:
                return f"{spent / seconds:.2f}/{whole / seconds:.2f} {unit}"
        return f"{spent:3.0f}/{'???' if whole is None else f'{whole:3.0f}'} sec"


class StageBars:
    """One bar for each stage of a long task, drawn when the stage starts."""

    def __init__(self) -> None:
        self._bars: dict[str, ProgressBar] = {}

    def show(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps of a stage are done."""
        if stage not in self._bars:
            self._bars[stage] = ProgressBar(stage, total)
        self._bars[stage].show(done)
