"""Tiles in batches: that memory and precision decide about speed and not about tokens."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from cryoemmae_plugin.core.encoder import Encoder, EncoderConfig
from cryoemmae_plugin.core.tile_encoder import MEMORY_SHARE, TileEncoder, bytes_per_tile, fitting_batch
from cryoemmae_plugin.errors import DeviceError

CONFIG = EncoderConfig(tile_px=16, embed_dim=16, depth=2)
TILES = torch.randn(23, 1, 16, 16, generator=torch.Generator().manual_seed(0))


class Hungry(Encoder):
    """Has memory for so many tiles at a time, and remembers how many it was given."""

    def __init__(self, enough: int) -> None:
        super().__init__(CONFIG)
        self.enough = enough
        self.asked: list[int] = []

    def forward(self, tiles: Tensor) -> Tensor:
        self.asked.append(len(tiles))
        if len(tiles) > self.enough:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return super().forward(tiles)


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(CONFIG).eval()


@torch.no_grad()
def test_when_memory_runs_out_the_batch_is_halved_until_it_fits_and_stays_so(caplog: pytest.LogCaptureFixture) -> None:
    hungry = Hungry(enough=5).eval()
    patient = TileEncoder(hungry, batch=16)
    with caplog.at_level(logging.WARNING):
        tokens = patient(TILES)
    assert hungry.asked == [16, 8, 4, 4, 4, 4, 4, 3]
    assert [record.getMessage() for record in caplog.records] == [
        f"cpu: out of memory; going on with {n} tiles at a time" for n in (8, 4)
    ]
    torch.testing.assert_close(tokens, Encoder.forward(hungry, TILES))
    caplog.clear()
    patient(TILES)
    assert max(hungry.asked[8:]) == 4
    assert not caplog.records


@torch.no_grad()
def test_memory_that_runs_out_in_the_middle_loses_no_tile() -> None:
    hungry = Hungry(enough=8).eval()
    whole = Encoder.forward(hungry, TILES)
    patient = TileEncoder(hungry, batch=8)
    patient(TILES[:8])
    hungry.enough = 3
    torch.testing.assert_close(patient(TILES), whole)


def test_no_memory_for_a_single_tile_says_so_with_a_way_out() -> None:
    hungry = Hungry(enough=0)
    with pytest.raises(DeviceError, match=r"no GPU memory left.*gpu_memory"):
        TileEncoder(hungry, batch=4)(TILES)
    assert hungry.asked == [4, 2, 1]


@pytest.mark.parametrize("gigabytes", [0.001, 0.5, 6.0, 80.0])
def test_batch_on_a_gpu_fits_its_share_of_the_memory(gigabytes: float) -> None:
    config, memory = EncoderConfig(), int(gigabytes * 1e9)
    batch = fitting_batch(config, torch.device("cuda", 0), memory)
    assert batch == 1 or batch * bytes_per_tile(config) <= MEMORY_SHARE * memory
    assert batch == 1024 or (batch + 1) * bytes_per_tile(config) > MEMORY_SHARE * memory
    assert fitting_batch(config, torch.device("cpu"), memory) == fitting_batch(config, torch.device("cpu"), None)


@torch.no_grad()
def test_sixteen_bits_move_tokens_little_and_float32_not_at_all(encoder: Encoder) -> None:
    exact = encoder(TILES)
    assert torch.equal(TileEncoder(encoder, batch=23, precision="float32")(TILES), exact)
    assert torch.equal(TileEncoder(encoder, batch=23)(TILES), exact)  # auto on a CPU
    rough = TileEncoder(encoder, batch=23, precision="bfloat16")(TILES)
    assert rough.dtype == torch.float32
    assert 0 < float((rough - exact).abs().max()) < 0.05


@torch.no_grad()
def test_numbers_too_large_for_float16_are_noticed(encoder: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    for block in encoder.blocks:
        block.mlp.fc1.weight.mul_(1e6)  # type: ignore[union-attr, operator]
    half = TileEncoder(encoder, batch=23, precision="float16")
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(half(TILES), encoder(TILES))
        half(TILES)
    assert [record.getMessage() for record in caplog.records] == [
        "cpu: numbers too large for torch.float16; going on with float32"
    ]
