"""What the embedding says: learned without labels, unable to confirm itself on noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryoemmae_plugin.core.embed import embed_image
from cryoemmae_plugin.core.encoder import Encoder, EncoderConfig
from cryoemmae_plugin.core.evidence import cross_discriminant, embed_any_size, sample, weigh_evidence


def tokens_with_particles(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(60, 80, 12, generator=generator)
    particle = torch.zeros(60, 80, dtype=torch.bool)
    particle[5::10, 5::10] = particle[6::10, 5::10] = particle[5::10, 6::10] = particle[6::10, 6::10] = True
    tokens[particle] += torch.linspace(-2, 2, 12)
    return tokens, particle


def test_the_discriminant_tells_particles_from_ice_on_blocks_it_has_not_seen() -> None:
    tokens, particle = tokens_with_particles()
    odds = cross_discriminant(tokens, particle, ~particle, block=10)
    assert ((odds > 0) == particle).float().mean() > 0.97


def test_the_discriminant_finds_nothing_in_noise() -> None:
    """Examples taken at random must not look better than the rest."""
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randn(80, 80, 64, generator=generator)
    chosen = torch.rand(80, 80, generator=generator) < 0.1
    odds = cross_discriminant(tokens, chosen, ~chosen, block=10)
    assert abs(float(odds[chosen].mean() - odds[~chosen].mean())) < 0.15


def test_too_few_examples_say_nothing() -> None:
    tokens, particle = tokens_with_particles()
    few = torch.zeros_like(particle)
    few[5, 5] = True
    assert not cross_discriminant(tokens, few, ~particle, block=10).any()


def test_the_discriminant_equals_the_textbook_formula() -> None:
    tokens, particle = tokens_with_particles(1)
    wide = cross_discriminant(tokens, particle, ~particle, block=40).double().numpy()
    t = tokens.double().numpy()
    half = ((np.arange(80) // 40) + (np.arange(60) // 40)[:, None]) % 2 == 1
    mask = particle.numpy()
    a, b = t[mask & half], t[~mask & half]
    spread = np.concatenate([a - a.mean(0), b - b.mean(0)])
    cov = spread.T @ spread / len(spread)
    cov = 0.9 * cov + 0.1 * np.trace(cov) / 12 * np.eye(12)
    weight = np.linalg.solve(cov, a.mean(0) - b.mean(0))
    expected = (t - (a.mean(0) + b.mean(0)) / 2) @ weight
    assert np.abs(wide - expected)[~half].max() < 1e-3


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
    assert sample(cells, centres, 4) == pytest.approx([0.0, 9.0, 0.5])


def test_evidence_is_zero_off_the_image() -> None:
    tokens, _ = tokens_with_particles()
    valid = torch.ones(240, 320, dtype=torch.bool)
    valid[:40] = False
    centroids = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    grid = np.stack(np.meshgrid(np.arange(22, 320, 40), np.arange(22, 240, 40)), -1).reshape(-1, 2).astype(float)
    evidence = weigh_evidence(tokens, valid, centroids, 1, grid, grid, 24.0, 4)
    assert not evidence.cluster[:9].any()
    assert float(evidence.discriminant[5::10, 5::10].mean()) > float(evidence.discriminant[0::10, 0::10].mean()) + 2
