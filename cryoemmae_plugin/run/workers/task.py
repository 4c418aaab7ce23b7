"""The task that Dask calls in a worker. Its import is fast, so that workers answer while they load PyTorch.

An error that concerns the worker or the whole run comes back as an answer with the error's name, its text and the host,
so that the run can raise it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from cryoemmae_plugin.errors import UNSPELLED, CryoemmaeError, render
from cryoemmae_plugin.log import library_log
from cryoemmae_plugin.run.workers.run_spec import Answer, Batch, MakePicker, Row, host_name

_TURN = threading.Lock()
"""A worker picks one batch at a time, even if it has several threads."""


def pick_batch(spec: str, first: int, rows: Sequence[Row], make: MakePicker) -> Answer:
    """Pick a batch of micrographs into the store.

    Parameters
    ----------
    spec : str
        A :class:`RunSpec` as JSON.
    first, rows : int, sequence
        A :class:`Batch`.
    make : callable
        Makes the picker, once in each process.

    Returns
    -------
    dict
        "host", and either "outcomes" (uid, reason and seconds by step of each), "seconds" of the whole batch, and
        "warnings", or "error" and "text".
    """
    answer: Answer = {"host": host_name()}
    warnings: list[str] = []
    try:
        with _TURN, library_log(warnings.append):
            from cryoemmae_plugin.run.workers.worker import batch_picker_for

            picker = batch_picker_for(spec, make)
            start = time.perf_counter()
            outcomes = picker.pick(Batch.from_rows(first, rows))
    except CryoemmaeError as err:
        return answer | {"error": type(err).__name__, "text": render(err, UNSPELLED)}
    plain = [(outcome.micrograph.uid, outcome.reason, outcome.seconds) for outcome in outcomes]
    return answer | {"outcomes": plain, "seconds": time.perf_counter() - start, "warnings": warnings}
