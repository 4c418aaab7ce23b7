"""Who works for a run: looked at every few seconds, and each new worker is checked."""

from __future__ import annotations

import logging
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from cryoemmae_plugin.errors import ClusterError
from cryoemmae_plugin.version import NOT_INSTALLED, package_version

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

LOOK_S = 2.0
"""Seconds between two looks at who works."""
SAY_S = 60.0
GONE_S = 30.0
"""A scheduler that has not answered for so long is gone."""


class WorkerMonitor:
    """The workers there are.

    Parameters
    ----------
    client : distributed.Client
        Connected.
    wait_s : float
        Longest wait for a worker.
    """

    def __init__(self, client: Client, wait_s: float) -> None:
        self._client, self._wait_s = client, wait_s
        self._known: frozenset[str] = frozenset()
        self._looked = self._answered = self._seen = self._said = time.monotonic()
        self._looked -= LOOK_S

    def size(self) -> int:
        """How many workers there are; looks every few seconds, and checks those that are new.

        Raises
        ------
        ClusterError
            When the scheduler is gone, no worker comes, or one has another version of this package.
        """
        now = time.monotonic()
        if now - self._looked >= LOOK_S:
            self._looked = now
            self._look(now)
        return len(self._known)

    def _look(self, now: float) -> None:
        try:
            present = frozenset(self._client.nthreads())
        except (OSError, TimeoutError) as err:
            if now - self._answered > GONE_S:
                raise scheduler_gone(err) from err
            return
        self._answered = now
        if present - self._known:
            self.check_versions(sorted(present - self._known))
        if self._known - present:
            logger.warning("%s; what was under way goes to others", _lost(len(self._known - present)))
        self._known = present
        if present:
            self._seen = now
        elif now - self._seen > self._wait_s:
            raise ClusterError(
                f"no worker for {self._wait_s / 60:g} minutes",
                remedy=(
                    "see whether they start (SLURM: squeue, and the logs in the result folder)",
                    "wait longer with $worker_wait",
                ),
            )
        elif now - self._said >= SAY_S:
            self._said = now
            logger.warning("waiting for workers: there is none")

    def check_versions(self, workers: list[str] | None = None) -> None:
        """Compare the workers' version of this package with our own; of all workers by default.

        Raises
        ------
        ClusterError
            When one differs; the message names hosts and versions.
        """
        ours = package_version()
        answers: dict[str, Any] = self._client.run(version, "cryoemmae", workers=workers, on_error="return")
        found = {address: _version_in(answer) for address, answer in answers.items()}
        wrong = {address: theirs for address, theirs in found.items() if theirs not in (ours, None)}
        if wrong:
            named = ", ".join(f"{address} has {theirs}" for address, theirs in sorted(wrong.items())[:5])
            raise ClusterError(
                f"workers must have the cryoemmae of this run, which is {ours}: {named}; install the same version there"
            )


def scheduler_gone(err: Exception) -> ClusterError:
    """The error that says that the scheduler has been lost in the middle of a run."""
    return ClusterError(
        f"the scheduler does not answer any more ({err}); what is done is stored: run the command again to go on"
    )


def _version_in(answer: object) -> str | None:
    """The version that a worker tells; None where it tells nothing, since it has just died."""
    if isinstance(answer, PackageNotFoundError):
        return NOT_INSTALLED
    return answer if isinstance(answer, str) else None


def _lost(count: int) -> str:
    return "a worker is gone" if count == 1 else f"{count} workers are gone"
