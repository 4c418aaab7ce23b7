"""How many micrographs to hand to a worker at a time."""

from __future__ import annotations

import math

BATCH_S = 4.0
"""Seconds that a batch should take: long enough for reading ahead to pay, short enough to share the end fairly."""
MOST = 32


class BatchSizer:
    """Learns from batches how long a micrograph takes."""

    def __init__(self) -> None:
        self._micrographs, self._seconds = 0.0, 0.0

    def add(self, micrographs: int, seconds: float) -> None:
        """Note a batch; recent ones weigh more."""
        self._micrographs, self._seconds = self._micrographs / 2 + micrographs, self._seconds / 2 + seconds

    def next(self, remaining: int, workers: int) -> int:
        """Micrographs of the next batch: one at first, and fewer again towards the end, so that no worker is idle."""
        if not self._micrographs:
            return 1
        fitting = BATCH_S * self._micrographs / max(self._seconds, 1e-3)
        share = math.ceil(remaining / (2 * workers))
        return max(1, min(int(fitting), share, MOST))
