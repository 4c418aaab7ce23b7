"""What the embedding says of every cell: particle or ice, learned from the micrograph itself without a label.

The train-set clusters and the micrograph's own, found hierarchically, say which cells look like particles; where they
agree with the matched filter, cells serve as examples, and a linear discriminant in the embedding judges all others.
Each half of the micrograph is judged by the discriminant of the other, so that noise cannot confirm itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cryoemmae_plugin.core.cluster import hierarchical_mask, nearest_centroid
from cryoemmae_plugin.core.embed import embed_image
from cryoemmae_plugin.core.encoder import Encoder

EXAMPLE_RADIUS = 0.2
"""Cells within this distance of a seed's centre are examples of a particle; in diameters."""
ICE_RADIUS = 0.7
"""Cells farther than this from every candidate are examples of ice; in diameters."""
LEAST_EXAMPLES = 24
"""With fewer cells of either kind there is nothing to learn from."""
BLOCK = 4.0
"""Side of the blocks that alternate between the two halves, in diameters."""
FIT_CELLS = 6000
"""Cells that the micrograph's own clusters are fitted to."""
SHRINKAGE = 0.1
"""Share of the identity in the discriminant's covariance."""


@dataclass(frozen=True)
class Evidence:
    """Cell by cell, on the embedding's grid.

    Attributes
    ----------
    discriminant : Tensor, shape (rows, columns)
        Log-odds of particle against ice, by the other half's examples; 0 where nothing could be learned.
    cluster : Tensor, shape (rows, columns)
        1 on cells of the particle cluster, averaged with the micrograph's own hierarchical one.
    patch_px : int
        Grid pixels per cell.
    """

    discriminant: Tensor
    cluster: Tensor
    patch_px: int


def embed_any_size(pixels: Tensor, encoder: Encoder, mean: float, std: float) -> Tensor:
    """Embed an image of any size, mirrored outwards to whole tiles.

    Returns
    -------
    Tensor, shape (ceil(rows / patch_px), ceil(columns / patch_px), dim)
    """
    tile, patch = encoder.config.tile_px, encoder.config.patch_px
    rows, columns = pixels.shape
    padded = _mirror(_mirror(pixels, tile).T, tile).T
    tokens = embed_image(padded.contiguous(), encoder, mean, std)
    return tokens[: -(-rows // patch), : -(-columns // patch)]


def _mirror(image: Tensor, multiple: int) -> Tensor:
    """Extend the rows to a whole multiple by mirroring them at the lower edge, as often as it takes."""
    rows = len(image)
    wanted = -(-rows // multiple) * multiple
    index = torch.arange(wanted, device=image.device) % (2 * rows)
    return image[torch.where(index < rows, index, 2 * rows - 1 - index)]


def weigh_evidence(
    tokens: Tensor,
    valid: Tensor,
    centroids: Tensor,
    particle_cluster: int,
    candidates: NDArray[np.float64],
    seeds: NDArray[np.float64],
    diameter_px: float,
    patch_px: int,
) -> Evidence:
    """Judge every cell.

    Parameters
    ----------
    tokens : Tensor, shape (rows, columns, dim)
        Embedding of the micrograph.
    valid : Tensor, shape (grid rows, grid columns), bool
        Where there is image, on the grid of pixels.
    centroids : Tensor, shape (k, dim)
        Train-set clusters.
    particle_cluster : int
        Which of them holds particles.
    candidates, seeds : ndarray, shape (N, 2)
        Grid positions (x, y) of everything that might be a particle, and of what surely looks like one.
    diameter_px : float
        Particle diameter on the grid.
    patch_px : int
        Grid pixels per cell.
    """
    image_cells = _cells_of(valid, tokens.shape[:2], patch_px)
    trained = (nearest_centroid(tokens, centroids.to(tokens)) == particle_cluster) & image_cells
    own = hierarchical_mask(tokens, centroids, particle_cluster, FIT_CELLS) & image_cells
    cluster = 0.5 * (trained.float() + own.float())
    near_seed = _distance(seeds, tokens.shape[:2], patch_px).to(tokens.device) < EXAMPLE_RADIUS * diameter_px
    far = _distance(candidates, tokens.shape[:2], patch_px).to(tokens.device) > ICE_RADIUS * diameter_px
    particle = near_seed & image_cells
    ice = far & image_cells & ~own
    return Evidence(cross_discriminant(tokens, particle, ice, BLOCK * diameter_px / patch_px), cluster, patch_px)


def cross_discriminant(tokens: Tensor, particle: Tensor, ice: Tensor, block: float) -> Tensor:
    """Log-odds of every cell (rows, columns) by a linear discriminant that was learned on the other blocks."""
    rows, columns, dim = tokens.shape
    half = _checkerboard(rows, columns, block).to(tokens.device)
    out = tokens.new_zeros(rows, columns)
    for side in (False, True):
        learn = half != side
        positive, negative = tokens[particle & learn], tokens[ice & learn]
        if min(len(positive), len(negative)) < LEAST_EXAMPLES:
            continue
        mean_p, mean_n = positive.mean(0), negative.mean(0)
        centred = torch.cat([positive - mean_p, negative - mean_n])
        covariance = centred.T @ centred / len(centred)
        scale = covariance.diagonal().mean().clamp(min=1e-12)
        covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * scale * torch.eye(dim, device=tokens.device)
        weight = torch.linalg.solve(covariance, mean_p - mean_n)
        odds = (tokens - 0.5 * (mean_p + mean_n)) @ weight
        out = torch.where(half == side, odds, out)
    return out


def _checkerboard(rows: int, columns: int, block: float) -> Tensor:
    across = (torch.arange(columns) / block).long()
    down = (torch.arange(rows) / block).long()
    return (across + down[:, None]) % 2 == 1


def _cells_of(valid: Tensor, shape: torch.Size, patch_px: int) -> Tensor:
    """Cells whose pixels are mostly image."""
    rows, columns = shape
    padded = F.pad(valid.float(), (0, columns * patch_px - valid.shape[1], 0, rows * patch_px - valid.shape[0]))
    return F.avg_pool2d(padded[None, None], patch_px)[0, 0] > 0.5


def _distance(xy: NDArray[np.float64], shape: torch.Size, patch_px: int) -> Tensor:
    """Distance of every cell's centre to the nearest of some grid positions, in grid pixels; inf without any."""
    rows, columns = shape
    centre = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1) * patch_px + (patch_px - 1) / 2
    if not len(xy):
        return torch.full((rows, columns), torch.inf)
    distance, _ = cKDTree(xy).query(centre.reshape(-1, 2))
    return torch.from_numpy(distance.reshape(rows, columns)).float()


def sample(cells: Tensor, xy: NDArray[np.float64], patch_px: int) -> NDArray[np.float64]:
    """Interpolate a map of cells (rows, columns) at grid positions (N, 2), bilinearly; borders go on outwards."""
    if not len(xy):
        return np.zeros(0)
    rows, columns = cells.shape
    size = torch.tensor([columns, rows], dtype=torch.float64)
    at = (torch.from_numpy(xy) + 0.5) / patch_px / size * 2 - 1
    values = F.grid_sample(
        cells[None, None].float(), at[None, None].to(cells), mode="bilinear", padding_mode="border", align_corners=False
    )
    return values[0, 0, 0].double().cpu().numpy()
