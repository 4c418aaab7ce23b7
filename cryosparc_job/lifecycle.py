"""The life cycle of a job: it never stays "running" after the program ends, and is "completed" only if all is saved.

The client's own `job.run()` would mark a job as completed at Ctrl-C, and leave it running at SIGTERM.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cryoemmae_plugin.errors import CryoemmaeError, Interrupted, render
from cryoemmae_plugin.run.stop import Stop, stop_on_signals
from cryosparc_job.errors import CryosparcError, JobStopped, Refused
from cryosparc_job.job import ACTIVE, ExternalJob
from cryosparc_job.retry import is_gone
from cryosparc_job.terminal import NAMES

CHECK_EVERY_S = 15.0
"""Seconds between two checks of the job's status, which shows a kill in the interface."""


@dataclass
class JobStop(Stop):
    """Why a job must end early.

    Attributes
    ----------
    elsewhere : bool
        The job was ended in CryoSPARC, so its status is not set from here.
    """

    elsewhere: bool = False


class Watch:
    """Checks the job in CryoSPARC regularly; callable, for `should_stop`."""

    def __init__(self, job: ExternalJob, stop: JobStop) -> None:
        self._job, self._stop, self._every_s = job, stop, CHECK_EVERY_S
        self._last = time.monotonic()

    def __call__(self) -> bool:
        """Say whether to stop, by a signal or in CryoSPARC."""
        if not self._stop() and time.monotonic() - self._last >= self._every_s:
            self.look()
        return self._stop()

    def look(self) -> None:
        """Check the job now. Without an answer, nothing changes."""
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
def running(job: ExternalJob, stop: JobStop, rescue: Callable[[str], str]) -> Iterator[None]:
    """Keep a job running during the work inside, and set its status by how the work ends.

    Parameters
    ----------
    stop : Stop
        Filled by signals, and asked by the work inside.
    rescue : callable
        Saves the picks so far when the work ends early; takes the reason, returns text to add to it.

    Raises
    ------
    JobStopped
        When the work was stopped; other errors go through.
    """
    with stop_on_signals(stop):
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


def _end(job: ExternalJob, stop: JobStop, reason: str, rescue: Callable[[str], str]) -> None:
    """Save the picks and mark the job. The wait for a server is shorter than during the run, since a user waits."""
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


def _reason(stop: JobStop, err: BaseException) -> str:
    if stop.reason is not None and isinstance(err, (CryoemmaeError, KeyboardInterrupt)):
        return stop.reason
    if isinstance(err, KeyboardInterrupt):
        return "stopped by Ctrl-C"
    if isinstance(err, CryoemmaeError):
        return render(err, NAMES)
    gone = " (CryoSPARC does not answer)" if is_gone(err) else ""
    return f"unexpected {type(err).__name__}: {err}{gone}"
