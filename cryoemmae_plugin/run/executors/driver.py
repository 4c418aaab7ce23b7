"""The run's side of picking on workers: hands out batches, waits, and yields results in order.

Dask moves a batch to another worker when one dies. The run never has more than a few batches a worker under way, so
that its memory does not grow with the number of micrographs.
"""

from __future__ import annotations

import logging
import os
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from cryoemmae_plugin import errors
from cryoemmae_plugin.errors import ClusterError, CryoemmaeError, Interrupted, StoreError
from cryoemmae_plugin.run.executors.pace import Pace
from cryoemmae_plugin.run.executors.recipe import Answer, Batch, MakePicker, Recipe
from cryoemmae_plugin.run.executors.worker import pick_batch
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.run.stream import MicrographResult
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.version import NOT_INSTALLED, package_version

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

BATCHES_PER_WORKER = 2
"""One is picked while the next one waits at the worker."""
POLL_S = 0.2
LOOK_S = 2.0
"""Seconds between two looks at who works."""
SAY_S = 60.0
GONE_S = 30.0
"""A scheduler that has not answered for so long is gone."""
SIGHT_S = 60.0
"""Network file systems show a new file to other hosts within this time."""
_MOST_DEATHS = 4
"""Deaths a worker without any result in between after which nothing will come of it."""


class Driver:
    """Picks one list of micrographs on the workers of a Dask client.

    Parameters
    ----------
    client : distributed.Client
        Connected.
    recipe : Recipe
        How to pick.
    store : ResultStore
        Where workers put results.
    make : callable
        Makes the picker on the worker.
    should_stop : callable
        Asked several times a second.
    wait_s : float
        Longest wait for a worker.
    """

    def __init__(
        self,
        client: Client,
        recipe: Recipe,
        store: ResultStore,
        make: MakePicker,
        should_stop: Callable[[], bool],
        wait_s: float,
    ) -> None:
        self._client, self._recipe, self._store, self._make = client, recipe.model_dump_json(), store, make
        self._should_stop = should_stop
        self._crew = Crew(client, wait_s)
        self._flying: dict[Future, Batch] = {}
        self._landed: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._deaths = 0

    def pick(self, micrographs: Sequence[Micrograph]) -> Iterator[MicrographResult]:
        """Pick all; yields in order.

        Raises
        ------
        Interrupted
            When `should_stop` says True; what is under way may still be finished, and is then stored.
        CryoemmaeError
            When a worker cannot do its part, or the scheduler is gone.
        """
        pace, taken, told = Pace(), 0, 0
        outcomes: dict[int, MicrographResult] = {}
        try:
            while told < len(micrographs):
                workers = self._crew.size()
                while taken < len(micrographs) and len(self._flying) < BATCHES_PER_WORKER * workers:
                    size = pace.batch_size(len(micrographs) - taken, workers)
                    self._send(Batch(taken, micrographs[taken : taken + size]))
                    taken += size
                landed = self._next_landed()
                if landed is not None:
                    batch, answer = landed
                    pace.add(len(batch.micrographs), answer["seconds"])
                    outcomes |= self._outcomes(batch, answer)
                while told in outcomes:
                    yield self._with_result(outcomes.pop(told))
                    told += 1
        finally:
            self._client.cancel(list(self._flying), force=True)

    def _send(self, batch: Batch) -> None:
        future = self._client.submit(
            pick_batch, self._recipe, batch.first, batch.rows(), self._make, pure=False, priority=-batch.first
        )
        self._flying[future] = batch
        future.add_done_callback(self._landed.put)

    def _next_landed(self) -> tuple[Batch, Answer] | None:
        """The next batch that is done; None if none is, for a moment."""
        if self._should_stop():
            raise Interrupted("stopped before all micrographs were picked; run the same command again to go on")
        try:
            future = self._landed.get(timeout=POLL_S)
        except queue.Empty:
            return None
        batch = self._flying.pop(future)
        if future.status != "finished":
            self._again(batch, future)
            return None
        self._deaths = 0
        answer: Answer = future.result()
        if "error" in answer:
            raise _error_of(answer)
        return batch, answer

    def _again(self, batch: Batch, future: Future) -> None:
        """Hand out once more what has come back without an answer; raise where that is of no use."""
        from distributed import KilledWorker

        failure = future.exception() if future.status == "error" else None
        if isinstance(failure, KilledWorker):
            self._deaths += 1
            if self._deaths > _MOST_DEATHS * max(1, self._crew.size()):
                raise ClusterError(
                    "workers die before they pick anything; look at their logs, and at their memory (--worker-memory)"
                )
        elif failure is not None:
            self._crew.check_versions()
            raise ClusterError(f"a worker failed with an unexpected {type(failure).__name__}: {failure}") from failure
        self._send(batch)

    @staticmethod
    def _outcomes(batch: Batch, answer: Answer) -> dict[int, MicrographResult]:
        found = zip(batch.micrographs, answer["outcomes"], strict=True)
        return {
            batch.first + index: MicrographResult(micrograph, reason=reason, seconds=seconds)
            for index, (micrograph, (_, reason, seconds)) in enumerate(found)
        }

    def _with_result(self, outcome: MicrographResult) -> MicrographResult:
        """Add what the worker has stored."""
        if outcome.reason is not None:
            return outcome
        uid, until = outcome.micrograph.uid, time.monotonic() + SIGHT_S
        while True:
            try:
                result = self._store.load(uid)
            except StoreError:
                if self._should_stop() or time.monotonic() > until:
                    raise
                os.listdir(self._store.path_of(uid).parent)  # noqa: PTH208 (lets NFS look again)
                time.sleep(POLL_S)
            else:
                return MicrographResult(outcome.micrograph, result=result, seconds=outcome.seconds)


class Crew:
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
                raise ClusterError(
                    f"the scheduler does not answer any more ({err}); what is done is stored: run the command again"
                ) from err
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
                f"no worker for {self._wait_s / 60:g} minutes; see whether they start (SLURM: squeue, and the logs "
                "in the result folder), or wait longer with --worker-wait"
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


def _version_in(answer: object) -> str | None:
    """The version that a worker tells; None where it tells nothing, since it has just died."""
    if isinstance(answer, PackageNotFoundError):
        return NOT_INSTALLED
    return answer if isinstance(answer, str) else None


def _lost(count: int) -> str:
    return "a worker is gone" if count == 1 else f"{count} workers are gone"


def _error_of(answer: Answer) -> CryoemmaeError:
    """The error that a worker tells of."""
    kind: type[CryoemmaeError] = getattr(errors, answer["error"], ClusterError)
    return kind(f"worker on {answer['host']}: {answer['text']}")
