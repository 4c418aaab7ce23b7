"""The run's side of picking on workers: send batches, collect answers, yield results in order.

Dask moves a batch to another worker when one dies. Each worker has at most a few batches, so that the run's memory does
not grow with the number of micrographs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_fixed

from cryoemmae_plugin import errors
from cryoemmae_plugin.errors import ClusterError, CryoemmaeError, Interrupted, StoreError
from cryoemmae_plugin.log import repeat_warning
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.run.stream import MicrographResult
from cryoemmae_plugin.run.workers.batch_size import BatchSizer
from cryoemmae_plugin.run.workers.monitor import Patience, WorkerMonitor, scheduler_lost
from cryoemmae_plugin.run.workers.run_spec import Answer, Batch, MakePicker, RunSpec
from cryoemmae_plugin.run.workers.task import pick_batch
from cryoemmae_plugin.types import Micrograph

if TYPE_CHECKING:
    from distributed import Client, Future, as_completed

BATCHES_PER_WORKER = 2
"""One is picked while the next one waits at the worker."""
POLL_S = 0.05
RUNNING = "running"
"""Status of a client that is connected to its scheduler."""
VISIBLE_S = 60.0
"""Network file systems show a new file to other hosts within this time."""
_MAX_DEATHS = 4
"""Deaths per worker, without any answer in between, after which the run ends."""


class Dispatcher:
    """Picks one list of micrographs on the workers of a Dask client."""

    def __init__(
        self,
        client: Client,
        spec: RunSpec,
        store: ResultStore,
        make: MakePicker,
        should_stop: Callable[[], bool],
        patience: Patience,
    ) -> None:
        from distributed import as_completed

        self._client, self._spec, self._store, self._make = client, spec.model_dump_json(), store, make
        self._base = spec.base
        self._should_stop = should_stop
        self._monitor = WorkerMonitor(client, patience)
        self._running: dict[Future, Batch] = {}
        self._completed: as_completed = as_completed(loop=client.loop)
        self._deaths = 0

    def pick(self, micrographs: Sequence[Micrograph]) -> Iterator[MicrographResult]:
        """Pick all micrographs; yields results in order.

        Raises
        ------
        Interrupted
            When `should_stop` returns True. Workers may still finish and store the batches that they have.
        CryoemmaeError
            When a worker cannot work, or the scheduler is lost.
        """
        sizer, sent, yielded = BatchSizer(), 0, 0
        outcomes: dict[int, MicrographResult] = {}
        try:
            while yielded < len(micrographs):
                workers = self._monitor.size()
                while sent < len(micrographs) and len(self._running) < BATCHES_PER_WORKER * workers:
                    size = sizer.next(len(micrographs) - sent, workers)
                    self._send(Batch(sent, micrographs[sent : sent + size]))
                    sent += size
                for batch, answer in self._answers():
                    sizer.add(len(batch.micrographs), answer["seconds"])
                    outcomes |= _outcomes(batch, answer)
                while yielded in outcomes:
                    yield self._with_result(outcomes.pop(yielded))
                    yielded += 1
        except Exception as err:
            if isinstance(err, CryoemmaeError) or self._client.status == RUNNING:
                raise
            raise scheduler_lost(err) from err
        finally:
            if self._client.status == RUNNING:
                self._client.cancel(list(self._running), force=True)

    def _send(self, batch: Batch) -> None:
        future = self._client.submit(
            pick_batch, self._spec, batch.first, batch.rows(), self._make, pure=False, priority=-batch.first
        )
        self._running[future] = batch
        self._completed.add(future)

    def _answers(self) -> Iterator[tuple[Batch, Answer]]:
        """Yield the batches that are picked since the last call; waits a moment when there is none."""
        if self._should_stop():
            raise Interrupted("stopped before all micrographs were picked")
        completed = self._completed.next_batch(block=False)
        if not completed:
            time.sleep(POLL_S)
        for future in completed:
            batch = self._running.pop(future)
            if future.status != "finished":
                self._send_again(batch, future)
                continue
            self._deaths = 0
            answer: Answer = future.result()
            if "error" in answer:
                raise _error_of(answer)
            for text in answer["warnings"]:
                repeat_warning(_with_our_paths(text, self._base, batch))
            yield batch, answer

    def _send_again(self, batch: Batch, future: Future) -> None:
        """Send a batch again that came back without an answer; raise if that cannot help."""
        from distributed import KilledWorker

        failure = future.exception() if future.status == "error" else None
        if isinstance(failure, KilledWorker):
            self._deaths += 1
            if self._deaths > _MAX_DEATHS * max(1, self._monitor.size()):
                raise ClusterError(
                    "workers die before they pick anything",
                    remedy="look at their logs, and at their memory ($worker_memory)",
                )
        elif failure is not None:
            self._monitor.check_versions()
            raise ClusterError(f"a worker failed with an unexpected {type(failure).__name__}: {failure}") from failure
        self._send(batch)

    def _with_result(self, outcome: MicrographResult) -> MicrographResult:
        """Add what the worker has stored, as soon as the file system shows it."""
        if outcome.reason is not None:
            return outcome
        uid, until = outcome.micrograph.uid, time.monotonic() + VISIBLE_S

        def give_up(state: RetryCallState) -> bool:
            return self._should_stop() or time.monotonic() > until

        def refresh(state: RetryCallState) -> None:
            os.listdir(self._store.path_of(uid).parent)  # noqa: PTH208 (NFS looks again)

        reading = Retrying(
            retry=retry_if_exception_type(StoreError),
            stop=give_up,
            wait=wait_fixed(POLL_S),
            before_sleep=refresh,
            reraise=True,
        )
        result = reading(self._store.load, uid)
        return MicrographResult(outcome.micrograph, result=result, seconds=outcome.seconds)


def _outcomes(batch: Batch, answer: Answer) -> dict[int, MicrographResult]:
    """Return how each micrograph of a batch ended, by its place on the list; results are still in the store."""
    ended = zip(batch.micrographs, answer["outcomes"], strict=True)
    return {
        batch.first + index: MicrographResult(micrograph, reason=reason, seconds=seconds)
        for index, (micrograph, (_, reason, seconds)) in enumerate(ended)
    }


def _with_our_paths(text: str, base: Path, batch: Batch) -> str:
    """Name files in a worker's text as the run names them; a worker has absolute paths."""
    for micrograph in batch.micrographs:
        text = text.replace(str(base / micrograph.path), str(micrograph.path))
    return text


def _error_of(answer: Answer) -> CryoemmaeError:
    """Return the error that a worker reports."""
    kind: type[CryoemmaeError] = getattr(errors, answer["error"], ClusterError)
    return kind(f"worker on {answer['host']}: {answer['text']}")
