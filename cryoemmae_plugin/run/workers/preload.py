"""What Dask runs in a worker's main thread before the worker begins."""

from __future__ import annotations

import signal


def dask_setup(worker: object) -> None:
    """Leave Ctrl-C to the run that has started this worker: a terminal sends it to all processes at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
