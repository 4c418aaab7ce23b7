"""Of candidates that lie too close, the best one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree


def non_maximum_suppression(
    xy: NDArray[np.float64], score: NDArray[np.float32], distance: float | NDArray[np.float64]
) -> NDArray[np.intp]:
    """Keep the better of any two closer than `distance`; indices of the kept ones, best first, the first of equals.

    Where each has its own distance (N,), the mean of both counts.
    """
    order = np.argsort(-score, kind="stable")
    if not len(xy):
        return order
    pairs = np.sort(cKDTree(xy[order]).query_pairs(np.max(distance), output_type="ndarray"), axis=1)
    if isinstance(distance, np.ndarray):
        mean = distance[order][pairs].mean(axis=1)
        pairs = pairs[np.hypot(*(xy[order][pairs[:, 0]] - xy[order][pairs[:, 1]]).T) <= mean]
    keep = np.ones(len(order), bool)
    for better, worse in pairs[np.lexsort(pairs.T[::-1])].tolist():
        if keep[better]:
            keep[worse] = False
    return order[keep]
