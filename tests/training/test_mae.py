"""The masked autoencoder against a plain implementation of masking and loss."""

from __future__ import annotations

import numpy as np
import torch

from cryoemmae_plugin.core.encoder import DecoderConfig, EncoderConfig
from cryoemmae_plugin.training.mae import MaskedAutoencoder

SMALL = EncoderConfig(embed_dim=32, depth=2)


def model() -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(SMALL, DecoderConfig(embed_dim=16, depth=1, num_heads=2)).eval()


def test_patches_are_cut_row_by_row() -> None:
    tile = torch.arange(64 * 64.0).reshape(1, 1, 64, 64)
    patches = model().patchify(tile)
    assert patches.shape == (1, 256, 16)
    assert torch.equal(patches[0, 17].reshape(4, 4), tile[0, 0, 4:8, 4:8])


def test_half_of_each_tile_is_hidden_and_each_tile_differently() -> None:
    _, _, hidden = model()(torch.randn(3, 1, 64, 64), torch.rand(3, 256))
    assert hidden.sum(1).tolist() == [128, 128, 128]
    assert not torch.equal(hidden[0], hidden[1])


def test_the_loss_is_the_mean_square_over_hidden_patches_alone() -> None:
    tiles, noise = torch.randn(2, 1, 64, 64), torch.rand(2, 256)
    autoencoder = model()
    with torch.no_grad():
        loss, prediction, hidden = autoencoder(tiles, noise)
    errors = []
    for n in range(2):
        for patch in range(256):
            if hidden[n, patch]:
                y, x = divmod(patch, 16)
                target = tiles[n, 0, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].reshape(-1)
                errors.append(float(((prediction[n, patch] - target) ** 2).mean()))
    assert abs(float(loss) - np.mean(errors)) < 1e-5


def test_hidden_pixels_do_not_reach_the_prediction() -> None:
    tiles, noise = torch.randn(1, 1, 64, 64), torch.rand(1, 256)
    autoencoder = model()
    with torch.no_grad():
        _, before, hidden = autoencoder(tiles, noise)
        changed = tiles.clone()
        patch = int(hidden[0].nonzero()[0])
        y, x = divmod(patch, 16)
        changed[0, 0, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] += 100
        _, after, _ = autoencoder(changed, noise)
    assert torch.equal(before, after)


def test_the_published_dimensions_have_the_published_number_of_parameters() -> None:
    """5.20 million with the fixed positions of encoder (257 x 192) and decoder (257 x 128) counted in."""
    autoencoder = MaskedAutoencoder()
    count = sum(p.numel() for p in autoencoder.parameters()) + 257 * (192 + 128)
    assert round(count / 1e6, 2) == 5.20
