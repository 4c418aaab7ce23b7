"""The life of a job: whatever happens here, it does not stay "running" there, and is "completed" only when it is.

The client's own `job.run()` would mark a job as completed at Ctrl-C, and leave it running at SIGTERM.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from cryoemmae_plugin.cli.signals import handling
from cryoemmae_plugin.errors import CryoemmaeError, Interrupted
from cryosparc_job.errors import CryosparcError, JobStopped, Refused
from cryosparc_job.job import ACTIVE, ExternalJob
from cryosparc_job.retry import is_gone

CHECK_EVERY_S = 15.0
"""Seconds between two looks at the job's status: a kill in the interface shows nowhere else."""

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_NAMES = {
    "SIGINT": "Ctrl-C",
    "SIGTERM": "SIGTERM (a kill, or the end of its time)",
    "SIGHUP": "the end of its terminal",
}


@dataclass
class Stop:
    """Why a job is to end early, if it is.

    Attributes
    ----------
    reason : str or None
        In words; None as long as nothing has happened.
    signal : int or None
        The signal, where it was one.
    elsewhere : bool
        The job has been ended in CryoSPARC: it is not ours to mark any more.
    """

    reason: str | None = None
    signal: int | None = None
    elsewhere: bool = False
    ending: bool = False
    """The end is being written into CryoSPARC: no further signal keeps it from that."""

    def __call__(self) -> bool:
        """Say whether to stop."""
        return self.reason is not None


@contextmanager
def signals_into(stop: Stop) -> Iterator[Stop]:
    """Note the first signal in `stop`; the second one raises KeyboardInterrupt. In a thread of a server: nothing."""

    def note(number: int, frame: FrameType | None) -> None:
        if stop.ending:
            return
        if stop.signal is not None:
            raise KeyboardInterrupt
        name = signal.Signals(number).name
        stop.signal, stop.reason = number, f"stopped by {_NAMES.get(name, name)}"

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    with handling(SIGNALS, note):
        yield stop


class Watch:
    """Looks at the job in CryoSPARC now and then; callable, for `should_stop`."""

    def __init__(self, job: ExternalJob, stop: Stop) -> None:
        self._job, self._stop, self._every_s = job, stop, CHECK_EVERY_S
        self._last = time.monotonic()

    def __call__(self) -> bool:
        """Say whether to stop, by a signal or in CryoSPARC."""
        if not self._stop() and time.monotonic() - self._last >= self._every_s:
            self.look()
        return self._stop()

    def look(self) -> None:
        """Look at the job now. An instance that does not answer changes nothing."""
        self._last = time.monotonic()
        try:
            status = self._job.status()
        except Refused as err:
            self._stop.reason, self._stop.elsewhere = f"the job is gone from CryoSPARC ({err})", True
            return
        except CryosparcError:
            return
        if status not in ACTIVE:
            word = {"building": "cleared"}.get(status, status)
            self._stop.reason, self._stop.elsewhere = f"the job was {word} in CryoSPARC", True


@contextmanager
def running(job: ExternalJob, stop: Stop, rescue: Callable[[str], str]) -> Iterator[None]:
    """Keep a job running while the work inside goes on, and end it by how that ends.

    Parameters
    ----------
    stop : Stop
        Filled by signals, and asked by the work inside.
    rescue : callable
        Saves what there is when the work ends early; gets the reason, returns what to add to it.

    Raises
    ------
    JobStopped
        When the work was stopped; other errors go through.
    """
    with signals_into(stop):
        job.start()
        try:
            yield
            if stop():
                raise JobStopped(stop.reason or "")
            job.complete()
        except BaseException as err:
            stop.ending, asked = True, stop()
            stop.reason = reason = _reason(stop, err)
            _end(job, stop, reason, rescue)
            asked = asked and isinstance(err, Interrupted)
            if asked or stop.elsewhere or isinstance(err, (KeyboardInterrupt, JobStopped)):
                raise JobStopped(reason) from err
            raise


def _end(job: ExternalJob, stop: Stop, reason: str, rescue: Callable[[str], str]) -> None:
    """Save and mark. A server that is away gets a shorter while than during the run: somebody waits for the end."""
    caller = job.instance.caller
    patience, should_stop = caller.patience_s, caller.should_stop
    caller.patience_s, caller.should_stop = min(patience, 60.0), lambda: False
    try:
        if not stop.elsewhere:
            Watch(job, stop).look()
        if stop.elsewhere:
            return
        job.fail(f"{reason}. {rescue(reason)}".strip())
    except CryosparcError as err:
        caller.tell(f"{job.uid} could not be marked as failed in CryoSPARC ({err}); mark it there, or resume it")
    finally:
        caller.patience_s, caller.should_stop = patience, should_stop


def _reason(stop: Stop, err: BaseException) -> str:
    if stop.reason is not None and isinstance(err, (CryoemmaeError, KeyboardInterrupt)):
        return stop.reason
    if isinstance(err, KeyboardInterrupt):
        return "stopped by Ctrl-C"
    if isinstance(err, CryoemmaeError):
        return str(err)
    gone = " (CryoSPARC does not answer)" if is_gone(err) else ""
    return f"unexpected {type(err).__name__}: {err}{gone}"
