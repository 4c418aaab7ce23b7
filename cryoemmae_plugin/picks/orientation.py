"""Are two tables of picks in one frame? Flips in y, binnings and shifts are tried; the best fit is told.

For each flip and binning, all differences between the picks of the two tables vote for a shift. A frame is another one
when it brings far more picks together than the coordinates as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.spatial import cKDTree

from cryoemmae_plugin.picks.matching import close_pairs
from cryoemmae_plugin.picks.transform import Transform

SCALES = (1.0, 2.0, 0.5, 4.0, 0.25, 3.0, 1 / 3, 8.0, 0.125)
"""Binnings that are tried."""
MOST_MICROGRAPHS, MOST_PICKS = 12, 500
"""What is looked at: so many micrographs, and the best picks of each."""
REACH = 0.2
"""Picks are together within this part of the distance between neighbours."""
LEAST_PICKS, LEAST_SHARE, LEAST_GAIN = 20, 0.35, 0.2
"""Another frame must bring together at least so many picks, this share of them, and so much more than before."""
WORTH = 0.1
"""Share that a shift, a flip or a binning must add to be preferred to a simpler frame."""
BINS_MOST = 2048


class Pair(NamedTuple):
    """Centres of one micrograph in two tables, (N, 2) and (M, 2), and its rows where known."""

    picks: NDArray[np.float64]
    other: NDArray[np.float64]
    ny: int | None


@dataclass(frozen=True)
class Finding:
    """How two tables fit.

    Attributes
    ----------
    as_they_are : float
        Share of picks that have one of the other table beside them.
    share : float
        The same after `transform`.
    """

    as_they_are: float
    share: float
    transform: Transform

    @property
    def differs(self) -> bool:
        """Whether the coordinates are in another frame."""
        return not self.transform.is_identity

    def message(self, name: str, other: str) -> str:
        """Say what is wrong, and how to put it right."""
        return (
            f"{name}: {self.share:.0%} of the picks are those of {other} once they are taken as "
            f"{self.transform.describe()}, {self.as_they_are:.0%} as they are; convert them with "
            f"{self.transform.options()}"
        )


def compare(pairs: Sequence[Pair]) -> Finding | None:
    """Find the frame of picks in which they fit those of another table best; None where there are too few.

    Parameters
    ----------
    pairs : sequence of Pair
        The micrographs that both tables have, picks best first.
    """
    pairs = [Pair(p.picks[:MOST_PICKS], p.other[:MOST_PICKS], p.ny) for p in pairs if len(p.picks) and len(p.other)]
    pairs = sorted(pairs, key=lambda pair: -min(len(pair.picks), len(pair.other)))[:MOST_MICROGRAPHS]
    if sum(min(len(pair.picks), len(pair.other)) for pair in pairs) < LEAST_PICKS:
        return None
    reach = REACH * _spacing(pairs)
    guessed = any(pair.ny is None for pair in pairs)
    if guessed:  # a flip about other rows shows as a shift in y
        rows = 1 + int(max(np.concatenate([pair.picks, pair.other])[:, 1].max() for pair in pairs))
        pairs = [pair._replace(ny=rows) for pair in pairs]
    before = _share(pairs, Transform(), reach)
    best, most = Transform(), before
    for candidate in _candidates(pairs, reach):
        share = _share(pairs, candidate, reach)
        if share > most + WORTH * (_steps(candidate) > _steps(best)):
            best, most = candidate, share
    if most < LEAST_SHARE or most < before + LEAST_GAIN:
        return Finding(before, before, Transform())
    if guessed and best.flip_y:
        best = replace(best, shift=(0.0, 0.0))
    return Finding(before, most, best)


def _spacing(pairs: Sequence[Pair]) -> float:
    """Median distance of a pick of the other table to its neighbour, in pixels."""
    distances = [cKDTree(pair.other).query(pair.other, k=2)[0][:, 1] for pair in pairs if len(pair.other) > 1]
    return float(np.median(np.concatenate(distances))) if distances else 1.0


def _candidates(pairs: Sequence[Pair], reach: float) -> list[Transform]:
    """Frames to try, the simple ones first."""
    frames = []
    for flip, scale in product((False, True), SCALES):
        plain = Transform(scale, flip)
        frames.append(plain)
        shift = _voted_shift(pairs, plain, reach)
        if shift is not None:
            frames.append(replace(plain, shift=shift))
    return sorted(frames, key=_steps)


def _steps(transform: Transform) -> int:
    """How far a frame is from the one at hand."""
    return (transform.scale != 1) + transform.flip_y + 2 * (transform.shift != (0.0, 0.0))


def _share(pairs: Sequence[Pair], transform: Transform, reach: float) -> float:
    """Share of picks with one of the other table within `reach`, one to one, of as many as there could be."""
    together = sum(len(close_pairs(transform.apply(pair.picks, pair.ny), pair.other, reach)) for pair in pairs)
    return together / sum(min(len(pair.picks), len(pair.other)) for pair in pairs)


def _voted_shift(pairs: Sequence[Pair], plain: Transform, reach: float) -> tuple[float, float] | None:
    """The shift that most pairs of picks ask for, at most a quarter of the micrograph; None where there is none."""
    offsets = []
    for pair in pairs:
        turned = plain.apply(pair.picks, pair.ny)
        offset = (pair.other[None] - turned[:, None]).reshape(-1, 2)
        offsets.append(offset[(np.abs(offset) < np.ptp(pair.other, axis=0) / 4).all(axis=1)])
    offset = np.concatenate(offsets)
    if len(offset) < LEAST_PICKS:
        return None
    limit = np.abs(offset).max() + reach
    count = int(min(2 * limit / reach, BINS_MOST))
    edges = np.linspace(-limit, limit, count + 1)
    votes = np.histogram2d(offset[:, 0], offset[:, 1], bins=(edges, edges))[0]
    column, row = np.unravel_index(np.argmax(uniform_filter(votes, 3, mode="constant")), votes.shape)
    centre = np.array([edges[column : column + 2].mean(), edges[row : row + 2].mean()])
    near = offset[np.abs(offset - centre).max(axis=1) <= 1.5 * reach]
    x, y = np.round(np.median(near, axis=0)) if len(near) else (0.0, 0.0)
    return None if max(abs(x), abs(y)) <= reach / 2 else (float(x), float(y))
