"""Clusters of patch vectors: k-means, smoothing, and the published hierarchy from training set to micrograph.

Source: Zamanos et al. 2025, algorithm 2, and its released code for details.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Follow = Callable[[NDArray[np.bool_], NDArray[np.integer]], NDArray[np.bool_]]

HIERARCHY = (3, 4, 5)
"""Numbers of clusters that a micrograph is split into, one after the other."""

CENTRAL_MARGIN = 0.1
"""Share of the image at each border that does not vote on which cluster holds the particles."""

SMOOTHING_CELLS = 4
SMOOTHING_CELLS_SMALL = 2
SMALL_DIAMETER_CELLS = 16
"""Side of the window that the embedding is averaged over; the second for particles smaller than the third."""

SMOOTHING_SHIFT_CELLS = 0.5
"""A mean over an even window lies half a cell before its centre, so the content moves by this much (cells, x and y)."""

MAX_ITERATIONS = 300
TOLERANCE = 1e-4
"""k-means ends when the centroids move by less than this, as a share of the data's mean variance."""

ROWS_PER_SUM = 64
"""Vectors added up at once: they fit into the cache, and the order of additions does not depend on threads."""


def nearest_centroid(vectors: Tensor, centroids: Tensor) -> Tensor:
    """Return which centroid is nearest to each vector, the first on a tie.

    Parameters
    ----------
    vectors : Tensor, shape (..., dim)
    centroids : Tensor, shape (k, dim)

    Returns
    -------
    Tensor, shape (...), int64
    """
    distances = centroids.square().sum(1) - 2 * (vectors @ centroids.T)  # but for |vector|^2, the same for all
    return distances.argmin(-1)


def kmeans(vectors: Tensor, numbers: Sequence[int], seed: int = 0) -> list[Tensor]:
    """Find the centroids of several numbers of clusters: greedy k-means++ seeds, then Lloyd's iterations, one start.

    Draws random numbers in the order of scikit-learn 1.2, the release that published clusters were made with, and stops
    as it does, so that a micrograph falls into the published clusters on any device. The same seed gives the same
    result.

    Parameters
    ----------
    vectors : Tensor, shape (N, dim), float32
    numbers : sequence of int
        Each from 1 to N.

    Returns
    -------
    list of Tensor, shape (k, dim), float32

    Raises
    ------
    ValueError
        If there are fewer vectors than clusters.
    """
    if not 1 <= min(numbers) <= max(numbers) <= len(vectors):
        raise ValueError(f"cannot make {', '.join(map(str, numbers))} clusters of {len(vectors)} vectors")
    origin = vectors.mean(0)
    centred = vectors - origin
    tolerance = TOLERANCE * float(torch.linalg.vector_norm(centred)) ** 2 / centred.numel()
    seeds: dict[int, Tensor] = {}  # by trials: the draws for fewer clusters are the first of those for more
    for k in sorted(numbers, reverse=True):
        seeds.setdefault(_trials(k), _seed_centroids(centred, k, np.random.RandomState(seed)))
    return [_iterate(centred, seeds[_trials(k)][:k], tolerance) + origin for k in numbers]


def _iterate(vectors: Tensor, centroids: Tensor, tolerance: float) -> Tensor:
    """Lloyd's iterations from given centroids. Sums follow the vectors that change sides, in double precision."""
    labels = nearest_centroid(vectors, centroids)
    sums, counts = _sums_of_clusters(vectors, labels, len(centroids))
    for _ in range(MAX_ITERATIONS):
        moved = _means(vectors, labels, centroids, sums, counts)
        shift = float((moved - centroids).square().sum())
        centroids, previous = moved, labels
        if shift <= tolerance:
            break
        labels = nearest_centroid(vectors, centroids)
        changed = (labels != previous).nonzero().flatten()
        if not len(changed):
            break
        joined = _membership(labels[changed], len(centroids)) - _membership(previous[changed], len(centroids))
        sums = sums + joined.T @ vectors[changed].double()
        counts = counts + joined.sum(0)
    return centroids


def _trials(k: int) -> int:
    """Vectors drawn for each new seed."""
    return 2 + int(math.log(k))


def _seed_centroids(vectors: Tensor, k: int, random: np.random.RandomState) -> Tensor:
    """Choose k of the vectors, each the best of a few drawn with probability proportional to squared distance."""
    trials = _trials(k)
    exact = vectors.double()  # differences of large numbers follow
    squares = exact.square().sum(1)

    def squared_distances(at: list[int]) -> Tensor:
        between = squares[:, None] - 2 * (exact @ exact[at].T) + squares[at]
        return between.T.clamp(min=0)

    chosen = [int(random.randint(len(vectors)))]
    nearest = squared_distances(chosen)[0]
    for _ in range(1, k):
        running = nearest.cumsum(0)
        draws = torch.from_numpy(random.random_sample(trials)).to(vectors.device) * running[-1]
        candidates = torch.searchsorted(running, draws).clamp_(max=len(vectors) - 1).tolist()
        options = torch.minimum(nearest, squared_distances(candidates))
        best = int(options.sum(1).argmin())
        chosen.append(candidates[best])
        nearest = options[best]
    return vectors[chosen]


def _means(vectors: Tensor, labels: Tensor, centroids: Tensor, sums: Tensor, counts: Tensor) -> Tensor:
    """Return the mean of each cluster; an empty one gets the vector that is farthest from its own centroid."""
    if bool((counts == 0).any()):
        empty = (counts == 0).nonzero().flatten()
        distances = (vectors - centroids[labels]).square().sum(1)
        labels = labels.index_copy(0, distances.topk(len(empty)).indices, empty)
        sums, counts = _sums_of_clusters(vectors, labels, len(centroids))
    return (sums / counts.clamp(min=1)[:, None]).to(vectors)


def _sums_of_clusters(vectors: Tensor, labels: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Add up the vectors of each cluster, (k, dim), and count them, (k,); both float64."""
    membership = _membership(labels, k)
    whole = len(vectors) // ROWS_PER_SUM * ROWS_PER_SUM
    in_chunks = torch.bmm(
        membership[:whole].to(vectors).reshape(-1, ROWS_PER_SUM, k).transpose(1, 2),
        vectors[:whole].reshape(-1, ROWS_PER_SUM, vectors.shape[1]),
    )
    sums = in_chunks.sum(0, dtype=torch.float64) + membership[whole:].T @ vectors[whole:].double()
    return sums, membership.sum(0)


def _membership(labels: Tensor, k: int) -> Tensor:
    return torch.nn.functional.one_hot(labels, k).double()


def smoothing_window(diameter_cells: float) -> int:
    """Return the side, in cells, of the window for a particle of this diameter in cells."""
    return SMOOTHING_CELLS if diameter_cells >= SMALL_DIAMETER_CELLS else SMOOTHING_CELLS_SMALL


def smooth_embedding(embedding: Tensor, window: int) -> Tensor:
    """Average over window x window cells, as published: without padding, zeros where the window leaves the image.

    Parameters
    ----------
    embedding : Tensor, shape (rows, columns, dim)
    window : int
        Even; cell i averages i - window / 2 to i + window / 2 - 1.

    Returns
    -------
    Tensor, shape (rows, columns, dim)
        The first and last window / 2 rows and columns are zero, which the clusters of published weights have seen.
    """
    half = window // 2
    rows, columns = (size - window for size in embedding.shape[:2])
    across = _sum_of_slices([embedding[:, start : start + columns] for start in range(window)])
    total = _sum_of_slices([across[start : start + rows] for start in range(window)])
    smooth = torch.zeros_like(embedding)
    smooth[half:-half, half:-half] = total.div_(window**2)
    return smooth


def _sum_of_slices(slices: Sequence[Tensor]) -> Tensor:
    total = slices[0].clone()
    for part in slices[1:]:
        total += part
    return total


def hierarchical_mask(
    embedding: Tensor,
    centroids: Tensor,
    particle_cluster: int,
    fit_cells: int | None = None,
    follow: Follow | None = None,
    hierarchy: Sequence[int] = HIERARCHY,
) -> Tensor:
    """Follow the particles from the training set's clusters into the micrograph's own (algorithm 2).

    Parameters
    ----------
    embedding : Tensor, shape (rows, columns, dim), float32
        Smoothed embedding of one micrograph.
    centroids : Tensor, shape (k, dim)
        Clusters of the training set.
    particle_cluster : int
        Which of them holds particles.
    fit_cells : int, optional
        Fit the micrograph's clusters to about this many evenly spaced cells; as published, to all.
    follow : callable, optional
        Finds the particles of one clustering in the next: :func:`follow_cluster`, as released, or
        :func:`follow_best_overlap`.
    hierarchy : sequence of int
        Numbers of clusters that the micrograph is split into, one after the other.

    Returns
    -------
    Tensor, shape (rows, columns), bool
        Cells of the particles' cluster.
    """
    vectors = embedding.reshape(-1, embedding.shape[-1])
    examples = vectors if fit_cells is None else vectors[:: max(1, len(vectors) // fit_cells)]
    mask = (nearest_centroid(embedding, centroids.to(embedding)) == particle_cluster).cpu().numpy()
    for own in kmeans(examples, hierarchy):
        labels = nearest_centroid(vectors, own).reshape(mask.shape).cpu().numpy()
        mask = (follow or follow_cluster)(mask, labels)
    return torch.from_numpy(mask).to(embedding.device)


def follow_cluster(mask: NDArray[np.bool_], labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Find the cluster in which the particles of a previous clustering are now.

    Counts, over the central part of the image, how often each new cluster meets the previous mask; cells off the mask
    count as background. Background is taken to come first, the cluster next to it is the answer, unless a larger share
    of the runner-up lies inside the mask. Kept as released, also where particles are more common than background: the
    second most common is then the background itself, and the mask comes out empty.

    Parameters
    ----------
    mask : ndarray, shape (rows, columns), bool
        Cells of the particles so far.
    labels : ndarray, shape (rows, columns), int
        The new clustering, 0..k-1.

    Returns
    -------
    ndarray, shape (rows, columns), bool
        The new mask; the old one if no cell was on it.
    """
    rows, columns = _central_part(mask.shape)
    met = np.where(mask, labels + 1, 0)  # 0 is background
    values, counts = np.unique(met[rows, columns], return_counts=True)
    if len(values) == 1:
        values, counts = np.unique(met, return_counts=True)
    if len(values) == 1:
        return mask
    sizes = np.bincount(labels.ravel())
    order = np.argsort(counts, kind="stable")[::-1]
    best = order[1]
    if len(values) > 2:
        runner_up = order[2]
        cells_per_hit = {at: sizes[values[at] - 1] / counts[at] for at in (best, runner_up)}
        if cells_per_hit[best] > cells_per_hit[runner_up]:
            best = runner_up
    followed: NDArray[np.bool_] = labels == values[best] - 1
    return followed


def follow_best_overlap(mask: NDArray[np.bool_], labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Find the cluster that overlaps the particles of a previous clustering best, by intersection over union.

    Arguments and result as of :func:`follow_cluster`, which loses the particles where they are more common than the
    background.
    """
    rows, columns = _central_part(mask.shape)
    old, new = mask[rows, columns], labels[rows, columns]
    if not old.any():
        return mask
    k = int(labels.max()) + 1
    both = np.bincount(new[old], minlength=k)
    either = np.bincount(new.ravel(), minlength=k) + int(old.sum()) - both
    followed: NDArray[np.bool_] = labels == (both / either).argmax()
    return followed


def _central_part(shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the part that votes."""
    rows, columns = (slice(int(n * CENTRAL_MARGIN), n - int(n * CENTRAL_MARGIN)) for n in shape)
    return rows, columns
