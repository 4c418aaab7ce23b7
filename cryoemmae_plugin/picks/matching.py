"""Which picks of several tables are one particle: arrays in, indices out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree


def _pair_closest(i: NDArray[np.intp], j: NDArray[np.intp], distance: NDArray[np.float64]) -> NDArray[np.intp]:
    """Pair items one to one, the closest first.

    Parameters
    ----------
    i, j : ndarray, shape (K,)
        Items that may be paired.
    distance : ndarray, shape (K,)
        Of these two.

    Returns
    -------
    ndarray, shape (M, 2)
        Pairs (i, j), the closest first.
    """
    taken_i, taken_j = set(), set()
    pairs: list[tuple[int, int]] = []
    for k in np.lexsort((j, i, distance)).tolist():
        a, b = int(i[k]), int(j[k])
        if a not in taken_i and b not in taken_j:
            taken_i.add(a)
            taken_j.add(b)
            pairs.append((a, b))
    return np.array(pairs, np.intp).reshape(-1, 2)


def close_pairs(
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    reach: float,
    may_pair: Callable[[NDArray[np.float64]], NDArray[np.bool_]] | None = None,
) -> NDArray[np.intp]:
    """Pair centres (N, 2) and (M, 2) at most `reach` apart one to one, the closest first; indices, shape (K, 2).

    `may_pair` says of offsets (P, 2) between two centres which of them may be paired.
    """
    if not len(one) or not len(other):
        return np.zeros((0, 2), np.intp)
    near = cKDTree(one).query_ball_tree(cKDTree(other), reach)
    i = np.repeat(np.arange(len(one)), [len(row) for row in near])
    j = np.array([index for row in near for index in row], np.intp)
    offset = one[i] - other[j]
    if may_pair is not None:
        allowed = may_pair(offset)
        i, j, offset = i[allowed], j[allowed], offset[allowed]
    return _pair_closest(i, j, np.hypot(*offset.T))


def group(sources: Sequence[NDArray[np.float64]], reach: float) -> NDArray[np.intp]:
    """Find the picks of several sources that are one particle.

    All picks of a group lie within `reach` of each other, and no source has two of them. The closest join first, so
    the order of the sources does not matter.

    Parameters
    ----------
    sources : sequence of ndarray, shape (N, 2)
        Centres of each source in pixels.
    reach : float
        Largest distance in pixels.

    Returns
    -------
    ndarray, shape (G, S)
        Index of each group's pick in each source; -1 where it has none.
    """
    xy = np.concatenate([np.zeros((0, 2)), *sources])
    source = np.repeat(np.arange(len(sources)), [len(one) for one in sources])
    members = {number: [number] for number in range(len(xy))}
    of = np.arange(len(xy))
    pairs = cKDTree(xy).query_pairs(reach, output_type="ndarray") if len(xy) else np.zeros((0, 2), np.intp)
    pairs = pairs[source[pairs[:, 0]] != source[pairs[:, 1]]]
    distance = np.hypot(*(xy[pairs[:, 0]] - xy[pairs[:, 1]]).T)
    for a, b in pairs[np.lexsort((pairs[:, 1], pairs[:, 0], distance))].tolist():
        left, right = sorted((int(of[a]), int(of[b])))
        if left != right and _fit(members[left], members[right], xy, source, reach):
            of[members[right]] = left
            members[left] += members.pop(right)
    first = np.cumsum([0, *(len(one) for one in sources)])
    groups = np.full((len(members), len(sources)), -1, np.intp)
    for row, numbers in enumerate(members.values()):
        groups[row, source[numbers]] = np.array(numbers) - first[source[numbers]]
    return groups


def _fit(left: list[int], right: list[int], xy: NDArray[np.float64], source: NDArray[np.intp], reach: float) -> bool:
    """Whether two groups may become one."""
    if set(source[left].tolist()) & set(source[right].tolist()):
        return False
    offset = xy[left][:, None] - xy[right][None]
    return bool((np.hypot(offset[..., 0], offset[..., 1]) <= reach).all())
