"""Micrographs on their way to the picker: threads read them ahead of their turn."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.images import pixel_size_of, read_header, read_image
from cryoemmae_plugin.run.lanes import Image, Lane
from cryoemmae_plugin.types import Micrograph


@dataclass(frozen=True)
class Loaded:
    """A micrograph in memory: image of shape (ny, nx), Å per pixel, size of the file, seconds that reading took."""

    image: NDArray[np.float32]
    pixel_size_A: float
    source_bytes: int
    seconds: float


@dataclass(frozen=True)
class Staged:
    """The same on its way to the device: the image may be anywhere."""

    image: Image
    pixel_size_A: float
    source_bytes: int
    seconds: float


def load(micrograph: Micrograph) -> Loaded:
    """Read a micrograph from its file.

    Raises
    ------
    ImageError
        When it cannot be read, or has no pixel size.
    """
    start = time.perf_counter()
    header = read_header(micrograph.path)
    pixel_size_A = pixel_size_of(micrograph.path, header, micrograph.pixel_size_A)
    source_bytes = micrograph.path.stat().st_size
    return Loaded(read_image(micrograph.path), pixel_size_A, source_bytes, time.perf_counter() - start)


class Coming:
    """A micrograph on its way from the file to the picker."""

    def __init__(self, micrograph: Micrograph, staged: Future[Staged], lane: Lane) -> None:
        self.micrograph = micrograph
        self._staged, self._lane = staged, lane

    def send(self) -> None:
        """Start to copy the image to the device, if it has been read."""
        if self._staged.done() and self._staged.exception() is None:
            staged = self._staged.result()
            self._staged = Future()  # forget the image in the host's memory
            self._staged.set_result(replace(staged, image=self._lane.send(staged.image)))

    def arrive(self) -> Staged:
        """Wait until it has been read, and hand it over; to be called once."""
        staged = self._staged.result()
        del self._staged  # or the image outlives its turn
        return replace(staged, image=self._lane.receive(staged.image))


class ReadAhead:
    """Keeps `jobs` micrographs in the making ahead of the one that is handed out."""

    def __init__(
        self, micrographs: Iterable[Micrograph], loader: Callable[[Micrograph], Loaded], lane: Lane, jobs: int
    ) -> None:
        self._loader, self._lane, self._jobs = loader, lane, max(1, jobs)
        self._pool = ThreadPoolExecutor(self._jobs, thread_name_prefix="read")
        self._waiting = (Coming(m, self._pool.submit(self._read, m), lane) for m in micrographs)
        self._ahead: deque[Coming] = deque()

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[Coming]:
        self._ahead.extend(islice(self._waiting, self._jobs))
        while self._ahead:
            self._ahead.extend(islice(self._waiting, 1))
            yield self._ahead.popleft()

    @property
    def next(self) -> Coming | None:
        """The one after the one that was handed out last."""
        return self._ahead[0] if self._ahead else None

    def _read(self, micrograph: Micrograph) -> Staged:
        loaded = self._loader(micrograph)
        return Staged(self._lane.stage(loaded.image), loaded.pixel_size_A, loaded.source_bytes, loaded.seconds)
