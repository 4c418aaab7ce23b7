"""Micrographs over several devices, one thread each."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence

from cryoemmae_plugin.errors import Interrupted
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.run.stream import MicrographResult, pick_micrographs
from cryoemmae_plugin.types import Micrograph
from relion_wrapper.engine import Engine


def pick_on_all(
    micrographs: Sequence[Micrograph], engine: Engine, store: ResultStore, should_stop: Callable[[], bool]
) -> Iterator[MicrographResult]:
    """Pick micrographs on all devices of an engine and store each; several devices keep no order.

    Raises as :func:`cryoemmae_plugin.run.stream.pick_micrographs` does, once all devices have come to rest.
    """
    if len(engine.pickers) == 1:
        yield from pick_micrographs(
            micrographs, engine.pickers[0], store, should_stop=should_stop, device=engine.devices[0]
        )
        return
    outcomes: queue.Queue[MicrographResult | BaseException | None] = queue.Queue()
    stop = threading.Event()
    threads = [
        threading.Thread(target=_work, args=(_Share(micrographs, engine, store, index), outcomes, stop), daemon=True)
        for index in range(len(engine.pickers))
    ]
    for thread in threads:
        thread.start()
    error: BaseException | None = None
    try:
        working = len(threads)
        while working:
            outcome = outcomes.get()
            if isinstance(outcome, MicrographResult):
                yield outcome
            elif outcome is None:
                working -= 1
            elif error is None or isinstance(error, Interrupted):
                error = outcome
            if error is not None or should_stop():
                stop.set()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if error is None and should_stop():
        error = Interrupted("stopped before all micrographs were picked")
    if error is not None:
        raise error


class _Share:
    """What one device does: every n-th micrograph."""

    def __init__(self, micrographs: Sequence[Micrograph], engine: Engine, store: ResultStore, index: int) -> None:
        self._micrographs = micrographs[index :: len(engine.pickers)]
        self._picker, self._device, self._store = engine.pickers[index], engine.devices[index], store

    def pick(self, stop: threading.Event) -> Iterator[MicrographResult]:
        return pick_micrographs(
            self._micrographs, self._picker, self._store, should_stop=stop.is_set, device=self._device
        )


def _work(share: _Share, outcomes: queue.Queue[MicrographResult | BaseException | None], stop: threading.Event) -> None:
    """One thread's life; whatever goes wrong is handed to the thread that waits."""
    try:
        for outcome in share.pick(stop):
            outcomes.put(outcome)
    except BaseException as err:
        outcomes.put(err)
    finally:
        outcomes.put(None)
