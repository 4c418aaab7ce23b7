"""The two things that travel between adapters and the core: a micrograph, and its picks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Micrograph:
    """One exposure to pick.

    Attributes
    ----------
    path : Path
        File that holds the image.
    pixel_size_A : float or None
        Pixel size in Å; None means "take it from the file's header".
    uid : str
        Name that is unique within a run and safe as a relative path without suffix; results are stored under it.
    shape : tuple of int or None
        (ny, nx) in pixels where known beforehand.
    defocus_um : float or None
        Mean defocus in µm where known.
    """

    path: Path
    pixel_size_A: float | None
    uid: str
    shape: tuple[int, int] | None = None
    defocus_um: float | None = None


@dataclass(frozen=True, repr=False)
class Picks:
    """Picks of one micrograph, best first.

    Examples
    --------
    >>> picks = Picks(np.array([[10.0, 20.0]]), np.array([0.9], "f4"), np.array([1.5], "f4"), shape=(100, 200))
    >>> print(picks)
    Picks(1 in 200 × 100 px, score 0.90 to 0.90)
    >>> picks.to_dataframe().iloc[0].round(2).to_dict()
    {'x': 10.0, 'y': 20.0, 'score': 0.9, 'power': 1.5}

    Attributes
    ----------
    xy : ndarray, shape (N, 2), float64
        Centres in pixels of the stored micrograph: x = column, y = row, row 0 = first row stored;
        the centre of the first pixel is (0.0, 0.0).
    score : ndarray, shape (N,), float32
        Figure of merit in 0..1.
    power : ndarray, shape (N,), float32
        Contrast of the candidate: mean darkness inside the particle's disc, in standard deviations of the background on
        the model's grid; in paper mode against the ring around it.
    shape : tuple of int
        (ny, nx) of the micrograph in pixels.
    group : ndarray, shape (N,), int32, or None
        Group of picks that look alike, from 1; None where they are not grouped.
    diameter_A : ndarray, shape (N,), optional
        Diameter of each pick in Å, where particles of several sizes are picked.
    """

    xy: NDArray[np.float64]
    score: NDArray[np.float32]
    power: NDArray[np.float32]
    shape: tuple[int, int]
    group: NDArray[np.int32] | None = None
    diameter_A: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        n = len(self.xy)
        if self.xy.shape != (n, 2) or self.score.shape != (n,) or self.power.shape != (n,):
            raise ValueError(
                f"xy {self.xy.shape}, score {self.score.shape} and power {self.power.shape} "
                "do not describe the same picks"
            )
        if self.group is not None and self.group.shape != (n,):
            raise ValueError(f"group {self.group.shape} does not describe {n} picks")

    def __len__(self) -> int:
        return len(self.xy)

    def __repr__(self) -> str:
        ny, nx = self.shape
        scores = f", score {self.score.min():.2f} to {self.score.max():.2f}" if len(self) else ""
        return f"Picks({len(self)} in {nx} × {ny} px{scores})"

    def to_dataframe(self) -> pd.DataFrame:
        """A table with a row for each pick: x and y in pixels, score, power; group and diameter_A where they differ."""
        import pandas as pd

        columns = {"x": self.xy[:, 0], "y": self.xy[:, 1], "score": self.score, "power": self.power}
        more = {"group": self.group, "diameter_A": self.diameter_A}
        return pd.DataFrame(columns | {name: values for name, values in more.items() if values is not None})

    def above(self, threshold: float) -> Picks:
        """Return the picks whose figure of merit is at least `threshold`."""
        return self.only(self.score >= threshold)

    def away_from_edge(self, distance_px: float | NDArray[np.float64]) -> Picks:
        """Return the picks at least so far from the micrograph's edge; one distance, or one for each pick."""
        last = np.array(self.shape[::-1]) - 1.0
        margin = np.minimum(self.xy, last - self.xy)
        return self.only((margin[:, 0] >= distance_px) & (margin[:, 1] >= distance_px))

    def outside_groups(self, groups: Collection[int]) -> Picks:
        """Return the picks that are in none of these groups."""
        if not groups or self.group is None:
            return self
        return self.only(~np.isin(self.group, list(groups)))

    def only(self, keep: NDArray[np.bool_] | NDArray[np.intp]) -> Picks:
        """Return the picks that `keep` says, a mask or indices."""
        group = None if self.group is None else self.group[keep]
        sizes = None if self.diameter_A is None else self.diameter_A[keep]
        return Picks(self.xy[keep], self.score[keep], self.power[keep], self.shape, group, sizes)

    def diameter_px(self, diameter_A: float, pixel_size_A: float) -> float | NDArray[np.float64]:
        """Diameters in pixels: of each pick where they differ, else the run's own, `diameter_A`."""
        return (diameter_A if self.diameter_A is None else self.diameter_A) / pixel_size_A

    @classmethod
    def none(cls, shape: tuple[int, int]) -> Picks:
        """Return an empty set for a micrograph of (ny, nx) pixels."""
        return cls(np.zeros((0, 2)), np.zeros(0, np.float32), np.zeros(0, np.float32), shape)
