"""A sign of life at least every ten seconds, whatever a command is busy with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

EVERY_S = 10.0
"""Longest silence."""


class Heartbeat:
    """Calls a function from a thread of its own when nothing else was said for a while; a context manager.

    Parameters
    ----------
    beat : callable
        Told for how many seconds the present task has been running.
    """

    def __init__(self, beat: Callable[[float], None], every_s: float = EVERY_S) -> None:
        self._beat, self._every_s = beat, every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)
        self._begun = self._told = time.monotonic()

    def task(self) -> None:
        """Note that another task begins, which was said."""
        self._begun = self._told = time.monotonic()

    def told(self) -> None:
        """Note that something was said."""
        self._told = time.monotonic()

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(max(0.05, self._told + self._every_s - time.monotonic())):
            now = time.monotonic()
            if now - self._told >= self._every_s:
                self._told = now
                self._beat(now - self._begun)
