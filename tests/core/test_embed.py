"""Tiles in, tokens out, every one in its place."""

from __future__ import annotations

import pytest
import torch

from cryoemmae_plugin.core.embed import cut_tiles, embed_image, stitch_tokens
from cryoemmae_plugin.core.encoder import Encoder, EncoderConfig

CONFIG = EncoderConfig(tile_px=16, embed_dim=8, depth=1)


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(CONFIG).eval()


def test_tiles_lie_row_by_row() -> None:
    image = torch.arange(32 * 48).reshape(32, 48)
    tiles = cut_tiles(image, 16)
    assert tiles.shape == (6, 1, 16, 16)
    assert torch.equal(tiles[4, 0], image[16:32, 16:32])


def test_tokens_return_to_where_their_patch_was() -> None:
    image = torch.arange(32 * 48, dtype=torch.float32).reshape(32, 48)
    patches = torch.nn.functional.unfold(cut_tiles(image, 16), 4, stride=4).transpose(1, 2)
    stitched = stitch_tokens(patches, 2, 3)
    assert stitched.shape == (8, 12, 16)
    assert torch.equal(stitched[5, 7].reshape(4, 4), image[20:24, 28:32])


def test_embedding_is_the_encoder_on_standardised_tiles(encoder: Encoder) -> None:
    image = torch.rand(32, 48)
    with torch.no_grad():
        tokens = encoder((image[16:, 32:][None, None] - 0.5) / 0.2)[0]
    embedding = embed_image(image, encoder, 0.5, 0.2)
    assert embedding.shape == (8, 12, 8)
    torch.testing.assert_close(embedding[4:, 8:].reshape(16, 8), tokens)


def test_batch_size_changes_nothing(encoder: Encoder) -> None:
    image = torch.rand(32, 48)
    torch.testing.assert_close(embed_image(image, encoder, 0.5, 0.2, batch=1), embed_image(image, encoder, 0.5, 0.2))


def test_embedding_carries_no_gradient(encoder: Encoder) -> None:
    assert not embed_image(torch.rand(16, 16), encoder, 0.5, 0.2).requires_grad


def test_image_that_is_no_multiple_of_a_tile_is_refused() -> None:
    with pytest.raises(ValueError, match="32 x 40"):
        cut_tiles(torch.zeros(32, 40), 16)
