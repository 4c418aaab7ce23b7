"""The task that travels: what Dask calls in a worker. Importing it is light, so that workers answer while they load.

Whatever is wrong with the worker or with the whole run, and not with one micrograph, comes back as an answer too: as
the name of the error and its text, with the host, so that the run can raise it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from cryoemmae_plugin.errors import UNSPELLED, CryoemmaeError, render
from cryoemmae_plugin.run.workers.run_spec import Answer, Batch, MakePicker, Row, host_name

_TURN = threading.Lock()
"""A worker picks one batch at a time, however many threads it has."""


def pick_batch(spec: str, first: int, rows: Sequence[Row], make: MakePicker) -> Answer:
    """Pick some micrographs into the store.

    Parameters
    ----------
    spec : str
        A :class:`RunSpec` as JSON.
    first, rows : int, sequence
        A :class:`Batch`.
    make : callable
        Makes the picker, once in a process.

    Returns
    -------
    dict
        "host", and "outcomes" (uid, reason, and seconds by step of each) with "seconds" of all, or "error" and "text".
    """
    answer: Answer = {"host": host_name()}
    try:
        with _TURN:
            from cryoemmae_plugin.run.workers.worker import batch_picker_for

            picker = batch_picker_for(spec, make)
            start = time.perf_counter()
            outcomes = picker.pick(Batch.from_rows(first, rows))
    except CryoemmaeError as err:
        return answer | {"error": type(err).__name__, "text": render(err, UNSPELLED)}
    plain = [(outcome.micrograph.uid, outcome.reason, outcome.seconds) for outcome in outcomes]
    return answer | {"outcomes": plain, "seconds": time.perf_counter() - start}
