"""Of candidates that lie too close, the best one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree


def non_maximum_suppression(xy: NDArray[np.float64], score: NDArray[np.float32], distance: float) -> NDArray[np.intp]:
    """Keep the better of any two closer than `distance`; indices of the kept ones, best first, the first of equals."""
    order = np.argsort(-score, kind="stable")
    if not len(xy):
        return order
    pairs = np.sort(cKDTree(xy[order]).query_pairs(distance, output_type="ndarray"), axis=1)
    keep = np.ones(len(order), bool)
    for better, worse in pairs[np.lexsort(pairs.T[::-1])].tolist():
        if keep[better]:
            keep[worse] = False
    return order[keep]
