"""Seconds per step of the method."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class StepTimer:
    """Adds up the wall time of named steps.

    Parameters
    ----------
    device : torch.device or None
        A CUDA device to wait for at the end of each step, so that its work is booked where it was asked for; images
        that are on their way to it in another stream are not waited for.

    Attributes
    ----------
    seconds : dict of str to float
        Wall time per step so far, in the order in which steps first ended.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._cuda = device if device is not None and device.type == "cuda" else None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Book the time spent inside the `with` block under `name`, also when it raises."""
        start = time.perf_counter()
        try:
            yield
            if self._cuda is not None:
                torch.cuda.current_stream(self._cuda).synchronize()
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
