"""What the embedding says of each cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryoemmae_plugin.core.embed import embed_image
from cryoemmae_plugin.core.embedding_features import embed_any_size, particle_cluster_map, sample_map
from cryoemmae_plugin.core.encoder import Encoder, EncoderConfig


def test_any_size_is_embedded_and_whole_tiles_are_unchanged() -> None:
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(embed_dim=16, depth=1)).eval()
    pixels = torch.randn(90, 150)
    tokens = embed_any_size(pixels, encoder, 0.0, 1.0)
    assert tokens.shape == (23, 38, 16)
    whole = embed_image(pixels[:64, :128].contiguous(), encoder, 0.0, 1.0)
    assert torch.allclose(tokens[:16, :32], whole, atol=1e-5)


@pytest.mark.parametrize("shape", [(10, 10), (70, 20)])
def test_an_image_smaller_than_a_tile_is_embedded(shape: tuple[int, int]) -> None:
    encoder = Encoder(EncoderConfig(embed_dim=16, depth=1)).eval()
    assert embed_any_size(torch.randn(shape), encoder, 0.0, 1.0).shape[:2] == (-(-shape[0] // 4), -(-shape[1] // 4))


def test_a_map_of_cells_is_sampled_at_pixel_positions() -> None:
    cells = torch.arange(12.0).reshape(3, 4)
    centres = np.array([[1.5, 1.5], [5.5, 9.5], [3.5, 1.5]])
    assert sample_map(cells, centres, 4) == pytest.approx([0.0, 9.0, 0.5])


def test_cells_off_the_image_are_in_no_cluster_and_the_particle_cluster_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = 0.1 * torch.randn(60, 80, 12, generator=generator)
    particle = torch.zeros(60, 80, dtype=torch.bool)
    particle[2::10, 5::10] = particle[3::10, 5::10] = particle[2::10, 6::10] = True
    tokens[particle] += 2.0
    valid = torch.ones(240, 320, dtype=torch.bool)
    valid[:40] = False
    centroids = torch.stack([torch.zeros(12), torch.full((12,), 2.0), torch.full((12,), -3.0)])
    cluster = particle_cluster_map(tokens, valid, centroids, 1, 4)
    assert not cluster[:10].any()
    assert float(cluster[10:][particle[10:]].mean()) > 0.95
    assert float(cluster[10:][~particle[10:]].mean()) < 0.05
