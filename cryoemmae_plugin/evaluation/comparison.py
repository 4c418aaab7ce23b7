"""Old picks and new picks of the same micrographs, compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.evaluation.metrics import match


@dataclass
class Comparison:
    """Number of old picks, of new picks, and of old ones with a new one within half a diameter, one to one."""

    before: int = 0
    after: int = 0
    found_again: int = 0

    def add(self, old: NDArray[np.float64] | None, new: NDArray[np.float64] | None, diameter_px: float) -> None:
        """Count the picks of one micrograph.

        Parameters
        ----------
        old, new : ndarray, shape (N, 2), or None
            Centres in pixels; None where there are none.
        """
        self.before += 0 if old is None else len(old)
        self.after += 0 if new is None else len(new)
        if old is not None and new is not None:
            self.found_again += len(match(old, new, diameter_px, "half_d"))

    @property
    def share(self) -> float | None:
        """Share of the old picks that are found again; None where there are no old ones."""
        return self.found_again / self.before if self.before else None
