"""Training: the schedule, the tiles, and that a stopped run ends as an unstopped one."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

import pytest
import torch

from cryoemmae_plugin.core.encoder import EncoderConfig
from cryoemmae_plugin.errors import Interrupted, OutputError
from cryoemmae_plugin.training.fit import FitSettings, _LossLog, fit
from cryoemmae_plugin.training.mae import DecoderConfig, MaskedAutoencoder
from cryoemmae_plugin.training.tiles import GridTiles, RandomCrops

SETTINGS = FitSettings(epochs=3, batch=4, base_rate=0.05, warmup_epochs=0.5, checkpoint_steps=2)


def tiny() -> MaskedAutoencoder:
    torch.manual_seed(1)
    return MaskedAutoencoder(EncoderConfig(embed_dim=16, depth=1), DecoderConfig(embed_dim=16, depth=1, num_heads=2))


def images() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    wave = torch.sin(torch.arange(256) / 5)
    return [wave[:, None] * wave + 0.1 * torch.randn(256, 256, generator=generator) for _ in range(2)]


def losses(folder: Path) -> list[float]:
    with (folder / "loss.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_the_schedule_warms_up_and_ends_at_the_least_rate() -> None:
    settings = FitSettings()
    assert settings.rate == pytest.approx(1e-3 * 128 / 256)
    assert settings.rate_at(2.5) == pytest.approx(settings.rate / 2)
    middle = (settings.epochs + settings.warmup_epochs) / 2
    assert settings.rate_at(middle) == pytest.approx((settings.rate + settings.least_rate) / 2)
    assert settings.rate_at(400) == pytest.approx(1e-6)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    fit(GridTiles(images()), SETTINGS.model_copy(update={"epochs": 20}), tmp_path, start=tiny())
    curve = losses(tmp_path)
    assert sum(curve[-10:]) < 0.8 * sum(curve[:10])


def test_a_stopped_run_goes_on_and_ends_as_an_unstopped_one(tmp_path: Path) -> None:
    source = GridTiles(images())
    whole = fit(source, SETTINGS, tmp_path / "whole", start=tiny())
    steps = iter([False] * 6 + [True])
    with pytest.raises(Interrupted, match="run the same command again"):
        fit(source, SETTINGS, tmp_path / "parts", start=tiny(), should_stop=lambda: next(steps))
    parts = fit(source, SETTINGS, tmp_path / "parts", start=tiny())
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def test_losses_that_are_looked_at_rarely_are_all_written_down(tmp_path: Path) -> None:
    log = _LossLog(tmp_path / "loss.csv", keep=0)
    for step in range(1, 8):
        log.add(step, 1e-3, torch.tensor(float(step)))
        if step == 5:
            assert log.last() == 5.0
    log.flush()
    assert losses(tmp_path) == [1, 2, 3, 4, 5, 6, 7]


def test_the_pace_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        fit(GridTiles(images()), SETTINGS, tmp_path, start=tiny())
    assert re.search(r"step 24 of 24, loss \d\.\d+, \d+\.\d tiles/s", caplog.text)


def test_half_precision_leaves_loss_and_gradients_in_single_and_close() -> None:
    model, tiles, noise = tiny(), torch.randn(4, 1, 64, 64), torch.rand(4, 256)
    with torch.no_grad():
        exact, _, _ = model(tiles, noise)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _, _ = model(tiles, noise)
    loss.backward()
    assert loss.dtype == torch.float32
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
    assert abs(float(loss.detach() - exact)) < 0.01 * float(exact)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_on_a_gpu_sees_the_same_tiles_and_learns_as_much(tmp_path: Path) -> None:
    gpu = torch.device("cuda")
    tiles = RandomCrops(images(), diameter_px=30, diameters_px=(16.0, 30.0)).to(gpu).draw(3, 4)
    expected = RandomCrops(images(), diameter_px=30, diameters_px=(16.0, 30.0)).draw(3, 4)
    assert tiles.is_cuda
    assert (tiles.cpu() - expected).abs().max() < 1e-4
    settings = SETTINGS.model_copy(update={"epochs": 20})
    fit(GridTiles(images()), settings, tmp_path / "cpu", start=tiny())
    fit(GridTiles(images()), settings, tmp_path / "gpu", start=tiny(), device=gpu)
    assert abs(sum(losses(tmp_path / "gpu")[-10:]) / sum(losses(tmp_path / "cpu")[-10:]) - 1) < 0.05


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    source = GridTiles(images())
    fit(source, SETTINGS, tmp_path, start=tiny())
    with pytest.raises(OutputError, match="other settings"):
        fit(source, SETTINGS.model_copy(update={"seed": 5}), tmp_path, start=tiny())


def test_biases_and_norms_do_not_decay() -> None:
    from cryoemmae_plugin.training.fit import _groups

    decayed, free = _groups(tiny(), 0.1)
    assert decayed["weight_decay"] == 0.1
    assert free["weight_decay"] == 0.0
    assert all(p.ndim == 1 for p in free["params"])  # type: ignore[attr-defined]


def test_grid_tiles_are_the_image_cut_row_by_row_each_once_an_epoch() -> None:
    image = torch.arange(128 * 192.0).reshape(128, 192)
    source = GridTiles([image])
    assert len(source) == 6
    drawn = torch.cat([source.draw(step, 2) for step in range(3)]) * source.std + source.mean
    corners = sorted(round(float(v)) for v in drawn[:, 0, 0, 0])
    assert corners == [0, 64, 128, 64 * 192, 64 * 192 + 64, 64 * 192 + 128]


def test_crops_have_the_scale_asked_for() -> None:
    """A wave of known period keeps it, scaled: 30 px of diameter become 15."""
    wave = torch.sin(2 * math.pi * torch.arange(400) / 20).expand(400, 400)
    source = RandomCrops([wave], diameter_px=30, diameters_px=(15.0, 15.0), seed=3)
    tiles = source.draw(0, 2)
    spectrum = torch.fft.rfft2(tiles[0, 0]).abs()
    spectrum[0, 0] = 0
    y, x = divmod(int(spectrum.argmax()), spectrum.shape[1])
    assert max(min(y, 64 - y), x) in (6, 7)  # 64 / (20 * 15 / 30) = 6.4 waves a tile


def test_a_step_always_draws_the_same_crops() -> None:
    source = RandomCrops(images(), diameter_px=30, diameters_px=(16.0, 30.0))
    assert torch.equal(source.draw(7, 3), source.draw(7, 3))
    assert not torch.equal(source.draw(7, 3), source.draw(8, 3))


def test_an_image_smaller_than_a_crop_is_mirrored_outwards() -> None:
    source = RandomCrops([torch.randn(40, 200)], diameter_px=30, diameters_px=(16.0, 16.0))
    assert source.draw(0, 2).shape == (2, 1, 64, 64)


def test_constant_images_cannot_be_trained_on() -> None:
    with pytest.raises(ValueError, match="constant"):
        GridTiles([torch.ones(64, 64)])
