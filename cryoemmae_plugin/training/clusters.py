"""The train-set clusters, and which of them is the particle: without a label.

Source: Zamanos et al. 2025, algorithm 1. There a reference micrograph with an annotated mask names the particle
cluster; here physics does: protein scatters more than ice, so of all clusters the particle's is the darkest in the
disc of the particle's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor

from cryoemmae_plugin.core.embed import cut_tiles
from cryoemmae_plugin.core.encoder import Encoder
from cryoemmae_plugin.core.flattening import gaussian_blur
from cryoemmae_plugin.core.paper.preprocess import preprocess_paper
from cryoemmae_plugin.simulate import demo_scenes, simulate

CLUSTERS = 4
ENCODE_BATCH = 64
LARGEST_SHARE = 0.6
"""A cluster that holds more of the cells than this is the background, however dark."""

LEAST_VARIANCE = 1e-12


class ParticleCluster(NamedTuple):
    """Which cluster is the particle.

    Attributes
    ----------
    number : int
        Of its centroid.
    separation : float
        Share of the variance of the cells' darkness, at the particle's scale, that lies between the clusters: 0.25 to
        0.6 where they tell particle from ice, hardly more than 0 where they follow something else.
    """

    number: int
    separation: float


def encode_tiles(encoder: Encoder, tiles: Tensor) -> Tensor:
    """Encode standardised tiles (N, 1, 64, 64) batch by batch; tokens (N, cells, dim) on the CPU."""
    with torch.inference_mode():
        return torch.cat([encoder(batch).cpu() for batch in torch.split(tiles, ENCODE_BATCH)])


def fit_clusters(tokens: Tensor, seed: int = 0) -> NDArray[np.float32]:
    """Cluster patch tokens (N, cells, dim) into `CLUSTERS` centroids (k, dim)."""
    points = tokens.reshape(-1, tokens.shape[-1]).numpy()
    centroids: NDArray[np.float32] = KMeans(CLUSTERS, random_state=seed, n_init=4).fit(points).cluster_centers_
    return centroids.astype(np.float32)


def find_particle_cluster(
    tokens: Tensor, tiles: Tensor, centroids: NDArray[np.float32], diameters_px: Sequence[float]
) -> ParticleCluster:
    """Name the particle cluster: the one whose cells are darkest at the particle's scale.

    Parameters
    ----------
    tokens : Tensor, shape (N, cells, dim)
    tiles : Tensor, shape (N, 1, tile, tile)
        The tiles that gave the tokens; particles dark.
    centroids : ndarray, shape (k, dim)
    diameters_px : sequence of float, length N
        Particle diameter in each tile, in tile pixels.
    """
    grid = round(tokens.shape[1] ** 0.5)
    darkness = torch.stack([_darkness(t[0], d, grid) for t, d in zip(tiles.cpu(), diameters_px, strict=True)]).reshape(
        -1
    )
    label = torch.cdist(tokens.reshape(-1, tokens.shape[-1]), torch.from_numpy(centroids)).argmin(1)
    size = torch.bincount(label, minlength=len(centroids)).clamp(min=1)
    mean = torch.bincount(label, weights=darkness, minlength=len(centroids)) / size
    between = float((size * (mean - darkness.mean()).square()).sum() / len(label))
    mean[size > LARGEST_SHARE * len(label)] = -torch.inf
    return ParticleCluster(int(mean.argmax()), between / max(float(darkness.var()), LEAST_VARIANCE))


def particle_cluster_by_simulation(encoder: Encoder, mean: float, std: float, centroids: NDArray[np.float32]) -> int:
    """Name the particle cluster of a paper-mode model whose training micrographs are not at hand, on simulated ones."""
    tiles, diameters = [], []
    for seed, scene in enumerate(demo_scenes()[:2], start=1):
        micrograph = simulate(scene.settings, seed)
        image, frame = preprocess_paper(torch.from_numpy(micrograph.image), micrograph.diameter_px)
        cut = cut_tiles(image, encoder.config.tile_px)[::4]
        tiles.append((cut - mean) / std)
        diameters += [micrograph.diameter_px / max(frame.scale)] * len(cut)
    together = torch.cat(tiles)
    return find_particle_cluster(encode_tiles(encoder.eval(), together), together, centroids, diameters).number


def _darkness(tile: Tensor, diameter_px: float, grid: int) -> Tensor:
    """How much darker each cell is than its surroundings, at the scale of the particle; shape (grid * grid,)."""
    narrow, wide = gaussian_blur(tile, diameter_px / 4), gaussian_blur(tile, diameter_px)
    cell = len(tile) // grid
    return (wide - narrow).reshape(grid, cell, grid, cell).mean((1, 3)).reshape(-1)
