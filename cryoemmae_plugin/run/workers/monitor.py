"""Check the workers of a run every few seconds: count them, check new ones, replace lost ones."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryoemmae_plugin.errors import ClusterError
from cryoemmae_plugin.version import PACKAGE

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

LOOK_S = 2.0
"""Seconds between two looks at the workers."""
REMIND_S = 60.0
"""Seconds between two warnings that there is no worker."""
GONE_S = 30.0
"""A scheduler that does not answer for this time is lost."""


@dataclass(frozen=True)
class Patience:
    """How many seconds to wait while there is no worker, and what helps when none comes."""

    seconds: float
    remedy: tuple[str, ...]


LOCAL_PATIENCE = Patience(
    300.0,  # they wait in no queue, and one that dies is started again at once
    (
        "free some memory of this machine; then run the same command again, with fewer $workers, to resume",
        "pick in one process, without $workers",
    ),
)
"""For processes of this machine."""


def cluster_patience(minutes: float) -> Patience:
    """Return how long to wait for the workers of a cluster."""
    return Patience(
        60 * minutes,
        (
            "see whether they start (SLURM: squeue, and the logs in the result folder)",
            "wait longer with $worker_wait",
        ),
    )


class WorkerMonitor:
    """Knows how many workers there are."""

    def __init__(self, client: Client, patience: Patience) -> None:
        self._client, self._patience = client, patience
        self._known: frozenset[str] = frozenset()
        now = time.monotonic()
        self._looked, self._answered, self._seen, self._reminded = now - LOOK_S, now, now, now

    def size(self) -> int:
        """Return the number of workers, which is updated every few seconds.

        Raises
        ------
        ClusterError
            When the scheduler is lost, there was no worker for too long, or a new one has another version of cryoemmae.
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
                raise scheduler_lost(err) from err
            return
        self._answered = now
        lost = len(self._known - present)
        if lost:
            what = "a worker" if lost == 1 else f"{lost} workers"
            logger.warning("%s died; the micrographs in work go to the next free worker", what)
        if present - self._known:
            self.check_versions()
        self._known = present
        self._replace_lost()
        if present:
            self._seen = now
        elif now - self._seen > self._patience.seconds:
            raise ClusterError(f"no worker for {self._patience.seconds / 60:g} minutes", remedy=self._patience.remedy)
        elif now - self._reminded >= REMIND_S:
            self._reminded = now
            logger.warning("waiting for workers")

    def check_versions(self) -> None:
        """Compare this package's version on all workers with that of the run.

        Raises
        ------
        ClusterError
            When a worker has another one; the message names its address and version.
        """
        found = self._client.get_versions(packages=[PACKAGE])
        ours = found["client"]["packages"][PACKAGE]
        theirs = {address: worker["packages"][PACKAGE] for address, worker in found["workers"].items()}
        wrong = [f"{address} has {version or 'none'}" for address, version in sorted(theirs.items()) if version != ours]
        if wrong:
            raise ClusterError(
                f"workers must have the cryoemmae of this run, which is {ours}: {', '.join(wrong[:5])}",
                remedy="install the same version there",
            )

    def _replace_lost(self) -> None:
        """Start workers again that Dask has given up; one that still starts, or waits in a queue, counts as there."""
        cluster = self._client.cluster
        if cluster is not None and len(self._known) < len(cluster.plan):
            cluster.scale(len(cluster.plan))


def scheduler_lost(err: Exception) -> ClusterError:
    """Return the error that says that the scheduler was lost during a run."""
    return ClusterError(
        f"the scheduler does not answer any more ({err})",
        remedy="run the same command again to resume; finished micrographs are stored",
    )
