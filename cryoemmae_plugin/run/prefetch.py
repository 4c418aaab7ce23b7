"""Prefetch micrographs: threads read the next ones while one is picked."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.errors import ImageError
from cryoemmae_plugin.images import pixel_size_of, read_header, read_image
from cryoemmae_plugin.run.folders import LINE_BREAK, has_line_break
from cryoemmae_plugin.run.transfer import Image, Transfer
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
    """The same; the image may be in the host's memory or on the device."""

    image: Image
    pixel_size_A: float
    source_bytes: int
    seconds: float


Loader = Callable[[Micrograph], Loaded]
"""Reads a micrograph."""


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


class Prefetched:
    """A micrograph that is being read for the picker."""

    def __init__(self, micrograph: Micrograph, staged: Future[Staged], transfer: Transfer) -> None:
        self.micrograph = micrograph
        self._staged, self._transfer = staged, transfer

    def send(self) -> None:
        """Start to copy the image to the device, if it is read already."""
        if self._staged.done() and self._staged.exception() is None:
            staged = self._staged.result()
            self._staged = Future()  # forget the image in the host's memory
            self._staged.set_result(replace(staged, image=self._transfer.send(staged.image)))

    def receive(self) -> Staged:
        """Wait until it is read, and return it on the picker's device; call it once."""
        staged = self._staged.result()
        del self._staged  # so that the image is freed after its turn
        return replace(staged, image=self._transfer.receive(staged.image))


class Prefetcher:
    """Iterates over micrographs, and keeps `jobs` of them read or being read beyond the present one."""

    def __init__(self, micrographs: Iterable[Micrograph], loader: Loader, transfer: Transfer, jobs: int) -> None:
        self._loader, self._transfer, self._jobs = loader, transfer, max(1, jobs)
        self._pool = ThreadPoolExecutor(self._jobs, thread_name_prefix="read")
        self._rest = (Prefetched(m, self._pool.submit(self._read, m), transfer) for m in micrographs)
        self._queue: deque[Prefetched] = deque()

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *details: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[Prefetched]:
        self._queue.extend(islice(self._rest, self._jobs))
        while self._queue:
            self._queue.extend(islice(self._rest, 1))
            yield self._queue.popleft()

    @property
    def next(self) -> Prefetched | None:
        """The micrograph that follows the present one."""
        return self._queue[0] if self._queue else None

    def _read(self, micrograph: Micrograph) -> Staged:
        if has_line_break(micrograph.path):
            raise ImageError(f"{micrograph.path}: {LINE_BREAK}")
        loaded = self._loader(micrograph)
        return Staged(self._transfer.stage(loaded.image), loaded.pixel_size_A, loaded.source_bytes, loaded.seconds)
