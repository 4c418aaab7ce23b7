"""Pick many micrographs in order: threads read ahead, one micrograph is picked at a time, threads store results."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch

from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.errors import (
    UNSPELLED,
    CryoemmaeError,
    DeviceError,
    Interrupted,
    ModelError,
    OutputError,
    render,
)
from cryoemmae_plugin.run.prefetch import Loader, Prefetched, Prefetcher, load
from cryoemmae_plugin.run.record import Result
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.run.transfer import Image, Transfer, transfer_to
from cryoemmae_plugin.run.writer import Writer
from cryoemmae_plugin.types import Micrograph, Picks

logger = logging.getLogger(__name__)

UNWRITTEN = 8
"""Most results that wait to be written; then picking waits for the disk."""
PATIENCE = 0.01
"""Share of its own time that picking waits for its result to be on the disk, so that slow runs report at once."""

_FATAL = (OutputError, DeviceError, ModelError, Interrupted)


class ImagePicker(Protocol):
    """What finds the particles of one image: :class:`cryoemmae_plugin.core.picker.CandidatePicker`, or a stand-in."""

    def pick(self, image: Image, pixel_size_A: float, timer: StepTimer | None = None) -> Picks:
        """Find the candidates of an image of shape (ny, nx)."""
        ...


@dataclass(frozen=True)
class MicrographResult:
    """How one micrograph ended.

    Attributes
    ----------
    result : Result or None
        All candidates, as stored; None if it failed.
    reason : str or None
        Why it failed, with the file's name and a remedy; None if it did not fail.
    seconds : dict
        Seconds by step: "read" and "write", which run in parallel, those of the picker, and "wait": the time
        that the picker waited for its image, or for earlier results to be written.
    """

    micrograph: Micrograph
    result: Result | None = None
    reason: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)


def pick_micrographs(
    micrographs: Iterable[Micrograph],
    picker: ImagePicker,
    store: ResultStore,
    *,
    jobs: int = 2,
    should_stop: Callable[[], bool] = lambda: False,
    device: torch.device | None = None,
    loader: Loader = load,
    transfer: Transfer | None = None,
) -> Iterator[MicrographResult]:
    """Pick micrographs one after the other and store each; yields, in the order given, what is stored.

    A micrograph that cannot be read or picked is reported with its reason, and the next one follows. At most
    ``jobs + 1`` images are in memory at a time, two of them on the device, and at most `UNWRITTEN` results.

    Parameters
    ----------
    micrographs : iterable of Micrograph
        Those to be picked, see :meth:`ResultStore.pending`.
    device : torch.device, optional
        Where the picker works: images are brought to a GPU ahead of their turn, and it is waited for when its steps are
        timed.
    loader : callable
        Reads a micrograph; called in the threads.
    transfer : Transfer, optional
        How images get to the device; by default, as suits it.

    Raises
    ------
    Interrupted
        When `should_stop` says True.
    OutputError
        When a result cannot be written. Those before it have been yielded; those after it are stored if they can be.
    DeviceError, ModelError
        When no micrograph could be picked any more.
    """
    fatal: CryoemmaeError | None = None
    transfer = transfer or transfer_to(device)
    with Prefetcher(micrographs, loader, transfer, jobs) as prefetched, Writer[MicrographResult]() as writer:
        for one in prefetched:
            if should_stop():
                fatal = Interrupted("stopped before all micrographs were picked")
                break
            try:
                finish, seconds = _pick_one(one, prefetched.next, picker, store, StepTimer(device))
            except _FATAL as err:
                fatal = err
                break
            seconds["wait"] += writer.put(finish, PATIENCE * (sum(seconds.values()) - seconds.get("read", 0.0)))
            yield from writer.take(UNWRITTEN - 1)
        yield from writer.take()
    if fatal is not None:
        raise fatal


def _pick_one(
    one: Prefetched, following: Prefetched | None, picker: ImagePicker, store: ResultStore, timer: StepTimer
) -> tuple[Callable[[], MicrographResult], dict[str, float]]:
    """Pick one micrograph; what is left to do for its result, and the seconds so far.

    What is wrong with it alone becomes a reason, what is wrong with all is raised.
    """
    start = time.perf_counter()
    seconds = {"wait": 0.0}
    try:
        loaded = one.receive()
        seconds |= {"read": loaded.seconds, "wait": time.perf_counter() - start}
        if following is not None:
            following.send()
        picks = picker.pick(loaded.image, loaded.pixel_size_A, timer=timer)
    except _FATAL:
        raise
    except Exception as err:
        logger.debug("%s", one.micrograph.path, exc_info=True)
        seconds |= timer.seconds
        failed = MicrographResult(one.micrograph, reason=_reason(one.micrograph, err), seconds=seconds)
        return lambda: failed, seconds
    seconds |= timer.seconds
    return partial(_save, store, one.micrograph, picks, loaded.pixel_size_A, loaded.source_bytes, seconds), seconds


def _save(
    store: ResultStore,
    micrograph: Micrograph,
    picks: Picks,
    pixel_size_A: float,
    source_bytes: int,
    seconds: dict[str, float],
) -> MicrographResult:
    start = time.perf_counter()
    result = store.save(micrograph, picks, pixel_size_A, source_bytes)
    seconds["write"] = time.perf_counter() - start
    return MicrographResult(micrograph, result=result, seconds=seconds)


def _reason(micrograph: Micrograph, err: Exception) -> str:
    """Why a micrograph failed, beginning with its path; settings are named as ``$field``."""
    path = str(micrograph.path)
    if isinstance(err, CryoemmaeError):
        text = render(err, UNSPELLED)
        return text if path in text else f"{path}: {text}"
    if isinstance(err, torch.cuda.OutOfMemoryError):
        return f"{path}: not enough GPU memory to pick it ({err}); raise $gpu_memory, or use another $device"
    if isinstance(err, MemoryError) or "DefaultCPUAllocator" in str(err):
        return (
            f"{path}: not enough memory to pick it ({err}); close other programs, lower $jobs, or use another $device"
        )
    if isinstance(err, OSError):
        return f"{path}: cannot be read ({err.strerror or err}); check the file and its permissions"
    return f"{path}: unexpected {type(err).__name__}: {err}; please report it"
