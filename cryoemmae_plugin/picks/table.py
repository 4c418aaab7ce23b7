"""Picks of one micrograph as a file has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PickTable:
    """Picks of one micrograph.

    Attributes
    ----------
    micrograph : str
        Its name as the file has it; where the file names none, the file's own path.
    xy : ndarray, shape (N, 2)
        Centres in pixels: x = column, y = row, row 0 = the first row stored.
    score : ndarray, shape (N,)
        Figure of merit; NaN where there is none.
    diameter_px : float or None
        Diameter of the particle, or side of its box, where the file has it.
    pixel_size_A : float or None
        Å per pixel of the coordinates where the file has it.
    shape : tuple of int or None
        (ny, nx) of the micrograph where known.
    uid : int or None
        CryoSPARC's number of the micrograph.
    named_by_file : bool
        The file names no micrograph: only its own name says which one it is of.
    relion_frame : bool
        Coordinates are RELION's, which counts the rows of a TIFF from the last one stored.
    extras : mapping
        Further columns (N,) by their STAR label.
    """

    micrograph: str
    xy: NDArray[np.float64]
    score: NDArray[np.float64]
    diameter_px: float | None = None
    pixel_size_A: float | None = None
    shape: tuple[int, int] | None = None
    uid: int | None = None
    named_by_file: bool = False
    relion_frame: bool = False
    extras: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.xy)

    def rows(self, keep: NDArray[np.bool_] | NDArray[np.intp]) -> PickTable:
        """Return the same with these rows, a mask or indices."""
        extras = {label: values[keep] for label, values in self.extras.items()}
        return replace(self, xy=self.xy[keep], score=self.score[keep], extras=extras)

    @property
    def quality(self) -> NDArray[np.float64]:
        """Scores to order picks by: where there is none, the lowest of all."""
        return np.nan_to_num(self.score, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
