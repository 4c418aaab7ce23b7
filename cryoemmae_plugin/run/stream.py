"""Pick many micrographs: read ahead in threads, pick one after the other, store each result before the next."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.errors import CryoemmaeError, DeviceError, Interrupted, ModelError, OutputError
from cryoemmae_plugin.images import pixel_size_of, read_header, read_image
from cryoemmae_plugin.run.record import Result
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.types import Micrograph, Picks

logger = logging.getLogger(__name__)


class ImagePicker(Protocol):
    """What finds the particles of one image: :class:`cryoemmae_plugin.core.picker.Picker`, or a stand-in."""

    def pick(self, image: NDArray[np.float32], pixel_size_A: float, timer: StepTimer | None = None) -> Picks:
        """Find the candidates of an image of shape (ny, nx)."""
        ...


@dataclass(frozen=True)
class Loaded:
    """A micrograph in memory: image of shape (ny, nx), Å per pixel, size of the file, seconds that reading took."""

    image: NDArray[np.float32]
    pixel_size_A: float
    source_bytes: int
    seconds: float


@dataclass(frozen=True)
class MicrographResult:
    """What became of one micrograph.

    Attributes
    ----------
    micrograph : Micrograph
        The one.
    result : Result or None
        All candidates, as stored; None if it failed.
    reason : str or None
        Why it failed, with the file's name and the way out; None if it did not.
    seconds : dict
        Seconds by step: "read", the picker's own, "write".
    """

    micrograph: Micrograph
    result: Result | None = None
    reason: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)


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


def pick_micrographs(
    micrographs: Iterable[Micrograph],
    picker: ImagePicker,
    store: ResultStore,
    *,
    jobs: int = 2,
    should_stop: Callable[[], bool] = lambda: False,
    device: torch.device | None = None,
    loader: Callable[[Micrograph], Loaded] = load,
) -> Iterator[MicrographResult]:
    """Pick micrographs one after the other and store each; yields in the order given.

    A micrograph that cannot be read or picked is reported with its reason, and the next one follows. At most
    ``jobs + 1`` images are in memory at a time.

    Parameters
    ----------
    micrographs : iterable of Micrograph
        Those to be picked, see :meth:`ResultStore.pending`.
    jobs : int
        Threads that read ahead.
    should_stop : callable
        Asked before each micrograph.
    device : torch.device, optional
        Where the picker works: a GPU is waited for when its steps are timed.

    Raises
    ------
    Interrupted
        When `should_stop` says True; all that was yielded is stored.
    OutputError
        When a result cannot be written.
    DeviceError, ModelError
        When no micrograph could be picked any more.
    """
    pool = ThreadPoolExecutor(max(1, jobs), thread_name_prefix="read")
    try:
        for micrograph, future in _read_ahead(pool, micrographs, loader, jobs):
            if should_stop():
                raise Interrupted("stopped before all micrographs were picked; run the same command again to go on")
            outcome = _pick_one(micrograph, future, picker, store, StepTimer(device))
            del future  # or its image outlives its turn
            yield outcome
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read_ahead(
    pool: ThreadPoolExecutor, micrographs: Iterable[Micrograph], loader: Callable[[Micrograph], Loaded], jobs: int
) -> Iterator[tuple[Micrograph, Future[Loaded]]]:
    """Keep `jobs` micrographs in the making ahead of the one that is handed out."""
    waiting = ((micrograph, pool.submit(loader, micrograph)) for micrograph in micrographs)
    ahead = deque(islice(waiting, max(1, jobs)))
    while ahead:
        ahead.extend(islice(waiting, 1))
        yield ahead.popleft()


def _pick_one(
    micrograph: Micrograph, future: Future[Loaded], picker: ImagePicker, store: ResultStore, timer: StepTimer
) -> MicrographResult:
    """Pick and store one micrograph; what is wrong with it alone becomes a reason, what is wrong with all is raised."""
    try:
        loaded = future.result()
        picks = picker.pick(loaded.image, loaded.pixel_size_A, timer=timer)
    except (OutputError, DeviceError, ModelError, Interrupted):
        raise
    except Exception as err:
        logger.debug("%s", micrograph.path, exc_info=True)
        return MicrographResult(micrograph, reason=_reason(micrograph, err), seconds=dict(timer.seconds))
    with timer.step("write"):
        result = store.save(micrograph, picks, loaded.pixel_size_A, loaded.source_bytes)
    return MicrographResult(micrograph, result=result, seconds={"read": loaded.seconds, **timer.seconds})


def _reason(micrograph: Micrograph, err: Exception) -> str:
    """Why a micrograph failed, beginning with its path."""
    path = str(micrograph.path)
    if isinstance(err, CryoemmaeError):
        return str(err) if path in str(err) else f"{path}: {err}"
    if isinstance(err, MemoryError) or type(err).__name__ == "OutOfMemoryError":
        return (
            f"{path}: not enough memory to pick it ({err}); close other programs, lower --jobs, or use another --device"
        )
    if isinstance(err, OSError):
        return f"{path}: cannot be read ({err.strerror or err}); check the file and its permissions"
    return f"{path}: unexpected {type(err).__name__}: {err}; please report it (details with --debug)"
