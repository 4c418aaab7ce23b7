"""Dask runs this in the main thread of a worker process before the worker starts."""

from __future__ import annotations

import signal


def dask_setup(worker: object) -> None:
    """Ignore Ctrl-C, which a terminal sends to all processes at once: the run decides when workers end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
