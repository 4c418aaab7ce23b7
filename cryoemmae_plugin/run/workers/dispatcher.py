"""The run's side of picking on workers: hands out batches, waits, and yields results in order.

Dask moves a batch to another worker when one dies. The run never has more than a few batches a worker under way, so
that its memory does not grow with the number of micrographs.
"""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from cryoemmae_plugin import errors
from cryoemmae_plugin.errors import ClusterError, CryoemmaeError, Interrupted, StoreError
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.run.stream import MicrographResult
from cryoemmae_plugin.run.workers.batch_size import BatchSizer
from cryoemmae_plugin.run.workers.monitor import WorkerMonitor, scheduler_gone
from cryoemmae_plugin.run.workers.run_spec import Answer, Batch, MakePicker, RunSpec
from cryoemmae_plugin.run.workers.task import pick_batch
from cryoemmae_plugin.types import Micrograph

if TYPE_CHECKING:
    from distributed import Client, Future

BATCHES_PER_WORKER = 2
"""One is picked while the next one waits at the worker."""
POLL_S = 0.2
RUNNING = "running"
"""Status of a client that has its scheduler."""
SIGHT_S = 60.0
"""Network file systems show a new file to other hosts within this time."""
_MOST_DEATHS = 4
"""Deaths a worker without any result in between after which nothing will come of it."""


class Dispatcher:
    """Picks one list of micrographs on the workers of a Dask client.

    Parameters
    ----------
    client : distributed.Client
        Connected.
    spec : RunSpec
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
        spec: RunSpec,
        store: ResultStore,
        make: MakePicker,
        should_stop: Callable[[], bool],
        wait_s: float,
    ) -> None:
        self._client, self._spec, self._store, self._make = client, spec.model_dump_json(), store, make
        self._should_stop = should_stop
        self._monitor = WorkerMonitor(client, wait_s)
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
        sizer, taken, told = BatchSizer(), 0, 0
        outcomes: dict[int, MicrographResult] = {}
        try:
            while told < len(micrographs):
                workers = self._monitor.size()
                while taken < len(micrographs) and len(self._flying) < BATCHES_PER_WORKER * workers:
                    size = sizer.next(len(micrographs) - taken, workers)
                    self._send(Batch(taken, micrographs[taken : taken + size]))
                    taken += size
                landed = self._next_landed()
                if landed is not None:
                    batch, answer = landed
                    sizer.add(len(batch.micrographs), answer["seconds"])
                    outcomes |= self._outcomes(batch, answer)
                while told in outcomes:
                    yield self._with_result(outcomes.pop(told))
                    told += 1
        except Exception as err:
            if isinstance(err, CryoemmaeError) or self._client.status == RUNNING:
                raise
            raise scheduler_gone(err) from err
        finally:
            if self._client.status == RUNNING:
                self._client.cancel(list(self._flying), force=True)

    def _send(self, batch: Batch) -> None:
        future = self._client.submit(
            pick_batch, self._spec, batch.first, batch.rows(), self._make, pure=False, priority=-batch.first
        )
        self._flying[future] = batch
        future.add_done_callback(self._landed.put)

    def _next_landed(self) -> tuple[Batch, Answer] | None:
        """The next batch that is done; None if none is, for a moment."""
        if self._should_stop():
            raise Interrupted("stopped before all micrographs were picked")
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
            if self._deaths > _MOST_DEATHS * max(1, self._monitor.size()):
                raise ClusterError(
                    "workers die before they pick anything",
                    remedy="look at their logs, and at their memory ($worker_memory)",
                )
        elif failure is not None:
            self._monitor.check_versions()
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


def _error_of(answer: Answer) -> CryoemmaeError:
    """The error that a worker tells of."""
    kind: type[CryoemmaeError] = getattr(errors, answer["error"], ClusterError)
    return kind(f"worker on {answer['host']}: {answer['text']}")
