"""How many micrographs to send to a worker at a time."""

from __future__ import annotations

import math

BATCH_S = 4.0
"""Seconds that a batch should take: long enough to read ahead, short enough that workers end at about the same time."""
MAX_BATCH = 32


class BatchSizer:
    """Chooses the size of batches from the time that earlier ones took."""

    def __init__(self) -> None:
        self._micrographs, self._seconds = 0.0, 0.0

    def add(self, micrographs: int, seconds: float) -> None:
        """Record the size and the time of a batch; recent ones weigh more."""
        self._micrographs, self._seconds = self._micrographs / 2 + micrographs, self._seconds / 2 + seconds

    def next(self, remaining: int, workers: int) -> int:
        """Return the size of the next batch: one at first, and smaller towards the end, so that no worker is idle."""
        if not self._micrographs:
            return 1
        fitting = BATCH_S * self._micrographs / max(self._seconds, 1e-3)
        share = math.ceil(remaining / (2 * workers))
        return max(1, min(int(fitting), share, MAX_BATCH))
