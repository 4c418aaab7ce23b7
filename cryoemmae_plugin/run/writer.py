"""Threads that store results while the next micrograph is picked."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, Protocol, TypeVar

THREADS = 4
"""A disk takes its time to say that a file is safe, but does so for several files at once."""


class Timed(Protocol):
    """Something that knows the seconds of its steps."""

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by step."""


T = TypeVar("T", bound=Timed)


class Writer(Generic[T]):
    """Runs tasks in threads of its own, a few at a time; gives back what they return, in order, once they are done.

    A context manager: leaving it waits until every task has run, whatever the reason for leaving.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="write")
        self._tasks: deque[Future[T]] = deque()

    def __enter__(self) -> Writer[T]:
        return self

    def __exit__(self, *details: object) -> None:
        self._threads.shutdown(wait=True)

    def put(self, task: Callable[[], T], patience_s: float = 0.0) -> float:
        """Add a task, and wait for it, but not longer than `patience_s`; the seconds of waiting."""
        start = time.perf_counter()
        self._tasks.append(self._threads.submit(task))
        wait([self._tasks[-1]], timeout=patience_s)
        return time.perf_counter() - start

    def take(self, room: int = 0) -> Iterator[T]:
        """Give out what is done, and wait while more than `room` tasks are not; that is booked under "wait".

        Raises
        ------
        Exception
            What a task has raised, when its turn comes; tasks after it run all the same.
        """
        while self._tasks and (self._tasks[0].done() or len(self._tasks) > room):
            start = time.perf_counter()
            done = self._tasks.popleft().result()
            done.seconds["wait"] = done.seconds.get("wait", 0.0) + time.perf_counter() - start
            yield done
