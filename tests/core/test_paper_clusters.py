"""Clusters: against scikit-learn, plain loops, and the published rule written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from cryoemmae_plugin.core.paper import clusters


@pytest.fixture
def groups() -> torch.Tensor:
    rng = np.random.default_rng(1)
    centres = np.array([[0, 0, 0, 0], [9, 0, 0, 1], [0, 9, 0, 2], [-9, 0, 9, 0]])
    return torch.from_numpy(
        np.concatenate([c + rng.normal(size=(101 + 10 * i, 4)) for i, c in enumerate(centres)])
    ).float()


def test_kmeans_finds_separate_groups(groups: torch.Tensor) -> None:
    labels = clusters.nearest_centroid(groups, clusters.kmeans(groups, [4])[0])
    assert sorted(labels.bincount().tolist()) == [101, 111, 121, 131]


@pytest.mark.parametrize("k", [1, 3, 5])
def test_kmeans_ends_where_scikit_learn_ends_from_the_same_seeds(k: int) -> None:
    vectors = torch.from_numpy(np.random.default_rng(2).normal(size=(1500, 6))).float()
    centred = vectors - vectors.mean(0)
    seeds = clusters._seed_centroids(centred, k, np.random.RandomState(0)) + vectors.mean(0)
    expected = KMeans(k, init=seeds.numpy(), n_init=1).fit(vectors.numpy())
    ours = clusters.kmeans(vectors, [k])[0]
    np.testing.assert_allclose(ours.numpy(), expected.cluster_centers_, atol=1e-4)
    np.testing.assert_array_equal(clusters.nearest_centroid(vectors, ours).numpy(), expected.labels_)


@pytest.mark.parametrize("numbers", [(3, 4, 5), (2, 9, 4)])
def test_several_numbers_of_clusters_together_equal_each_alone(numbers: tuple[int, ...]) -> None:
    vectors = torch.from_numpy(np.random.default_rng(4).normal(size=(700, 6))).float()
    together = clusters.kmeans(vectors, numbers)
    for k, centroids in zip(numbers, together, strict=True):
        assert torch.equal(centroids, clusters.kmeans(vectors, [k])[0])


def test_sums_that_follow_the_changes_equal_sums_made_anew() -> None:
    vectors = torch.from_numpy(np.random.default_rng(5).normal(size=(900, 5))).float()
    expected = vectors[:4].double()
    for _ in range(clusters.MAX_ITERATIONS):
        labels = torch.cdist(vectors.double(), expected).argmin(1)
        expected = torch.stack([vectors[labels == k].double().mean(0) for k in range(4)])
    ours = clusters._iterate(vectors, vectors[:4], tolerance=0.0)
    np.testing.assert_allclose(ours.numpy(), expected.numpy(), atol=1e-5)


def test_kmeans_repeats_itself(groups: torch.Tensor) -> None:
    assert torch.equal(*(clusters.kmeans(groups, [3], seed=7)[0] for _ in range(2)))


def test_seeds_are_distinct_data(groups: torch.Tensor) -> None:
    seeds = clusters._seed_centroids(groups, 4, np.random.RandomState(0))
    assert len(torch.unique(seeds, dim=0)) == 4
    assert all((groups == seed).all(1).any() for seed in seeds)


def test_an_empty_cluster_takes_the_farthest_vector() -> None:
    vectors = torch.tensor([[0.0], [1.0], [10.0]])
    labels = torch.tensor([0, 0, 0])
    sums, counts = clusters._sums_of_clusters(vectors, labels, 2)
    means = clusters._means(vectors, labels, torch.tensor([[0.0], [99.0]]), sums, counts)
    assert means.flatten().tolist() == [0.5, 10.0]


def test_identical_vectors_make_clusters_without_nan() -> None:
    assert torch.isfinite(clusters.kmeans(torch.ones(50, 3), [3])[0]).all()


@pytest.mark.parametrize("k", [0, 4])
def test_impossible_number_of_clusters_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="clusters of 3"):
        clusters.kmeans(torch.zeros(3, 2), [k])


def test_nearest_centroid_equals_plain_distances() -> None:
    rng = np.random.default_rng(0)
    vectors, centroids = rng.normal(size=(5, 7, 3)), rng.normal(size=(4, 3))
    expected = np.linalg.norm(vectors[:, :, None] - centroids, axis=-1).argmin(-1)
    ours = clusters.nearest_centroid(torch.from_numpy(vectors), torch.from_numpy(centroids))
    np.testing.assert_array_equal(ours.numpy(), expected)


@pytest.mark.parametrize("window", [2, 4])
def test_smoothing_equals_plain_loops(window: int) -> None:
    embedding = np.random.default_rng(0).normal(size=(9, 12, 3))
    half, expected = window // 2, np.zeros_like(embedding)
    for i in range(half, 9 - half):
        for j in range(half, 12 - half):
            expected[i, j] = embedding[i - half : i + half, j - half : j + half].mean((0, 1))
    np.testing.assert_allclose(clusters.smooth_embedding(torch.from_numpy(embedding), window).numpy(), expected)


@pytest.mark.parametrize("window", [2, 4])
def test_smoothing_moves_a_point_by_its_constant(window: int) -> None:
    point = torch.zeros(20, 30, 1)
    point[8, 17] = 1
    rows, columns = clusters.smooth_embedding(point, window)[..., 0].nonzero().double().mean(0).tolist()
    assert (columns - 17, rows - 8) == (clusters.SMOOTHING_SHIFT_CELLS, clusters.SMOOTHING_SHIFT_CELLS)


@pytest.mark.parametrize(("diameter_cells", "window"), [(6.75, 2), (15.99, 2), (16.0, 4), (40, 4)])
def test_small_particles_get_the_small_window(diameter_cells: float, window: int) -> None:
    assert clusters.smoothing_window(diameter_cells) == window


def plain_follow(mask: NDArray[np.bool_], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Spell the rule out for square images: count, sort, take the second, compare with the third."""
    n = len(mask)
    for lo, hi in ((n // 10, n - n // 10), (0, n)):
        counts: dict[int, int] = {}
        for on, label in zip(mask[lo:hi, lo:hi].ravel(), labels[lo:hi, lo:hi].ravel(), strict=True):
            counts[int(label) if on else -1] = counts.get(int(label) if on else -1, 0) + 1
        if len(counts) > 1:
            break
    else:
        return mask
    ranked = sorted(sorted(counts), key=lambda label: counts[label])
    best = ranked[-2]
    if len(ranked) > 2:
        sizes = [int((labels == label).sum()) for label in range(labels.max() + 1)]
        if sizes[best] / counts[best] > sizes[ranked[-3]] / counts[ranked[-3]]:
            best = ranked[-3]
    return labels == best


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("share", [0.02, 0.2, 0.9])
def test_following_equals_the_rule_written_out(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    mask, labels = rng.random((24, 24)) < share, rng.integers(0, 4, (24, 24))
    np.testing.assert_array_equal(clusters.follow_cluster(mask, labels), plain_follow(mask, labels))


def test_following_takes_the_cluster_that_meets_the_mask_most() -> None:
    mask, labels = np.zeros((20, 30), bool), np.zeros((20, 30), int)
    mask[5:10, 5:15] = True
    labels[5:10, 5:14] = 2
    np.testing.assert_array_equal(clusters.follow_cluster(mask, labels), labels == 2)


def test_following_prefers_the_runner_up_that_lies_inside_the_mask() -> None:
    mask, labels = np.zeros((20, 20), bool), np.zeros((20, 20), int)
    mask[4:12, 4:12] = True
    labels[4:8, 4:12] = 1
    labels[8:12, 4:11] = 2
    labels[12:16] = 1  # the cluster with more hits has more cells elsewhere
    np.testing.assert_array_equal(clusters.follow_cluster(mask, labels), labels == 2)


def test_following_falls_back_on_the_whole_image() -> None:
    mask, labels = np.zeros((20, 20), bool), np.zeros((20, 20), int)
    mask[0, :5] = True
    labels[0] = 1
    np.testing.assert_array_equal(clusters.follow_cluster(mask, labels), labels == 1)


def test_following_an_empty_mask_keeps_it() -> None:
    assert not clusters.follow_cluster(np.zeros((20, 20), bool), np.ones((20, 20), int)).any()


def test_hierarchy_keeps_what_it_cannot_follow(groups: torch.Tensor) -> None:
    embedding = groups[:400].reshape(20, 20, 4)
    far = torch.full((2, 4), 1e4)
    far[0] = 0
    assert not clusters.hierarchical_mask(embedding, far, particle_cluster=1).any()


def test_hierarchy_finds_a_patch_of_particles() -> None:
    rng = np.random.default_rng(0)
    embedding = torch.from_numpy(rng.normal(size=(40, 60, 3)) * 0.1).float()
    embedding[:, 30:] += torch.tensor([0.0, 4.0, 0.0])
    embedding[10:20, 10:22] += torch.tensor([6.0, 0.0, 0.0])
    mask = clusters.hierarchical_mask(embedding, torch.tensor([[0.0, 2.0, 0.0], [6.0, 0.0, 0.0]]), particle_cluster=1)
    assert mask[10:20, 10:22].float().mean() > 0.4
    mask[10:20, 10:22] = False
    assert not mask.any()


def test_particles_that_are_more_common_than_background_are_followed_by_overlap() -> None:
    mask = np.ones((40, 40), bool)
    mask[:, :8] = False
    labels = mask.astype(int)
    labels[0, 20:] = 0
    np.testing.assert_array_equal(clusters.follow_best_overlap(mask, labels), labels == 1)
    assert not clusters.follow_best_overlap(np.zeros((40, 40), bool), labels).any()
