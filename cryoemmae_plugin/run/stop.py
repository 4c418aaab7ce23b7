"""Why a run ends early: the only place that takes signals.

A signal that is already ignored stays ignored: shells make background jobs ignore Ctrl-C, and nohup makes a program
ignore the end of its terminal.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_NAMES = {
    "SIGINT": "Ctrl-C",
    "SIGTERM": "SIGTERM (a kill, or the end of its time)",
    "SIGHUP": "the end of its terminal",
}


class Stopped(KeyboardInterrupt):
    """A signal ends the program at once."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass
class Stop:
    """A request to end between two micrographs; callable, for `should_stop`.

    Attributes
    ----------
    reason : str or None
        In words; None until it is set.
    ending : bool
        Further signals are ignored, because the end is being written.
    """

    reason: str | None = None
    signal: int | None = None
    ending: bool = False

    def __call__(self) -> bool:
        """Say whether to stop."""
        return self.reason is not None


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[Stop]:
    """Note the first signal in `stop`; the second one raises :class:`Stopped`. Outside the main thread, do nothing."""

    def note(number: int, frame: FrameType | None) -> None:
        if stop.ending:
            return
        if stop.signal is not None:
            raise Stopped(number)
        name = signal.Signals(number).name
        stop.signal, stop.reason = number, f"stopped by {_NAMES.get(name, name)}"

    with _handling(note):
        yield stop


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Raise :class:`Stopped` at the first signal; later ones are ignored, so that the end can be recorded."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    with _handling(stop):
        yield


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
