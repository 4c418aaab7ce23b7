"""Where particles lie: random centres with a least distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

MAX_ROUNDS = 60


def place_centres(
    count: int,
    low: tuple[float, float],
    high: tuple[float, float],
    min_distance: float,
    blocked: NDArray[np.bool_],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw up to `count` centres (x, y) between `low` and `high`, no two closer than `min_distance`.

    Parameters
    ----------
    count : int
        Centres wanted; fewer come back when no more fit.
    low, high : tuple of float
        (x, y) limits in pixels of `blocked`.
    min_distance : float
        Least distance in pixels.
    blocked : ndarray of bool, shape (ny, nx)
        Pixels where no centre may lie.

    Returns
    -------
    ndarray, shape (N, 2), float64
        Centres in pixels of `blocked`.
    """
    kept = np.zeros((0, 2))
    if count == 0 or high[0] <= low[0] or high[1] <= low[1]:
        return kept
    fits = (high[0] - low[0] + min_distance) * (high[1] - low[1] + min_distance) / min_distance**2
    for _ in range(MAX_ROUNDS):
        wanted = min(count - len(kept), int(fits))
        fresh = rng.uniform(low, high, size=(max(64, 2 * wanted), 2))
        column, row = np.clip(np.rint(fresh).astype(int), 0, [blocked.shape[1] - 1, blocked.shape[0] - 1]).T
        fresh = fresh[~blocked[row, column]]
        if len(kept) and len(fresh):
            fresh = fresh[cKDTree(kept).query(fresh)[0] >= min_distance]
        kept = np.concatenate([kept, _thin(fresh, min_distance)])[:count]
        if len(kept) == count:
            break
    return kept


def _thin(xy: NDArray[np.float64], min_distance: float) -> NDArray[np.float64]:
    """Keep the earlier of any two centres that are too close."""
    if len(xy) < 2:
        return xy
    keep = np.ones(len(xy), bool)
    for first, second in sorted(cKDTree(xy).query_pairs(min_distance)):
        if keep[first]:
            keep[second] = False
    return xy[keep]
