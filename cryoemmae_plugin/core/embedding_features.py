"""Features of every cell from the embedding: its token, and whether it lies in a cluster of particles."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cryoemmae_plugin.core.embed import embed_image
from cryoemmae_plugin.core.encoder import Encoder
from cryoemmae_plugin.core.paper.clusters import hierarchical_mask, nearest_centroid

FIT_CELLS = 6000
"""Cells that the micrograph's own clusters are fitted to."""


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
    """Extend the rows to a whole multiple by mirroring them at the lower edge, as often as needed."""
    rows = len(image)
    wanted = -(-rows // multiple) * multiple
    index = torch.arange(wanted, device=image.device) % (2 * rows)
    return image[torch.where(index < rows, index, 2 * rows - 1 - index)]


def particle_cluster_map(
    tokens: Tensor, valid: Tensor, centroids: Tensor, particle_cluster: int, patch_px: int
) -> Tensor:
    """Cells of the particle cluster: half by the train set's clusters, half by the micrograph's own, hierarchical ones.

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
    patch_px : int
        Grid pixels per cell.

    Returns
    -------
    Tensor, shape (rows, columns), float32
        0, 0.5 or 1.
    """
    image_cells = _cells_of(valid, tokens.shape[:2], patch_px)
    trained = nearest_centroid(tokens, centroids.to(tokens)) == particle_cluster
    own = hierarchical_mask(tokens, centroids, particle_cluster, FIT_CELLS)
    return 0.5 * (trained.float() + own.float()) * image_cells


def _cells_of(valid: Tensor, shape: torch.Size, patch_px: int) -> Tensor:
    """Cells whose pixels are mostly image."""
    rows, columns = shape
    padded = F.pad(valid.float(), (0, columns * patch_px - valid.shape[1], 0, rows * patch_px - valid.shape[0]))
    return F.avg_pool2d(padded[None, None], patch_px)[0, 0] > 0.5


def sample_map(cells: Tensor, xy: NDArray[np.float64], patch_px: int) -> NDArray[np.float64]:
    """Interpolate a map of cells (rows, columns) at grid positions (N, 2), bilinearly; outside, as at the border."""
    if not len(xy):
        return np.zeros(0)
    rows, columns = cells.shape
    size = torch.tensor([columns, rows], dtype=torch.float64)
    at = (torch.from_numpy(xy) + 0.5) / patch_px / size * 2 - 1
    values = F.grid_sample(
        cells[None, None].float(), at[None, None].to(cells), mode="bilinear", padding_mode="border", align_corners=False
    )
    return values[0, 0, 0].double().cpu().numpy()
