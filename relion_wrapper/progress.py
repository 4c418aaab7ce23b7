"""What a job writes into run.out and run.err, in the way that RELION's own jobs do."""

from __future__ import annotations

import sys
import time

from cryoemmae_plugin.terminal.streams import write_if_possible

_WIDTH = 60
_MOUSE, _HOLE = '~~(,_,">', "[oo]"


def say(text: str) -> None:
    """One line for run.out, at once."""
    write_if_possible(sys.stdout, f" {text}\n")


def say_in_ascii(text: str) -> None:
    """The same for a line that was made for a terminal: run.out may be read without UTF-8."""
    say(text.replace("Å", "Angstrom").encode("ascii", "replace").decode())


def warn(text: str) -> None:
    """One line for run.err, at once."""
    write_if_possible(sys.stdout, "")
    write_if_possible(sys.stderr, f"{text}\n")


class ProgressBar:
    """RELION's bar: one line that is written over, as `tail -f run.out` and the GUI show it."""

    def __init__(self, title: str, total: int) -> None:
        self._total, self._start, self._drawn = max(total, 1), time.monotonic(), -1
        self._done = 0
        say(f"{title} ...")
        self.show(0)

    @property
    def is_complete(self) -> bool:
        """Whether all steps are done."""
        return self._done >= self._total

    def show(self, done: int) -> bool:
        """Show that `done` steps are done; writes only when the bar changes, and says whether it did."""
        place = min(done, self._total) * _WIDTH // self._total
        self._done = done
        if place == self._drawn:
            return False
        self._draw(place)
        return True

    def beat(self) -> None:
        """Draw it again: its clock moves."""
        self._draw(self._drawn)

    def _draw(self, place: int) -> None:
        self._drawn, done = place, self._done
        end = "\n" if done >= self._total else ""
        write_if_possible(
            sys.stdout, f"\r{self._clock(done)} {'.' * place}{_MOUSE}{' ' * (_WIDTH - place)}{_HOLE}{end}"
        )

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

    def show(self, stage: str, done: int, total: int) -> ProgressBar:
        """Show that `done` of `total` steps of a stage are done, on the stage's bar."""
        if stage not in self._bars:
            self._bars[stage] = ProgressBar(stage, total)
        self._bars[stage].show(done)
        return self._bars[stage]
