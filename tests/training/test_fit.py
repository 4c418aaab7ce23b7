"""Training: the schedule, the tiles, the skill, and that a stopped run ends as an unstopped one."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path
from typing import IO

import pytest
import torch

from cryoemmae_plugin.core.encoder import DecoderConfig, EncoderConfig
from cryoemmae_plugin.core.flattening import gaussian_blur
from cryoemmae_plugin.errors import DeviceError, ImageError, Interrupted, OutputError, TrainingError
from cryoemmae_plugin.training.checkpoint import write_checkpoint
from cryoemmae_plugin.training.curve import LearningCurve, read_curve, skill_of
from cryoemmae_plugin.training.fit import fit, measure_skill
from cryoemmae_plugin.training.mae import MaskedAutoencoder, new_autoencoder, trivial_error
from cryoemmae_plugin.training.recipe import PUBLISHED, FitSettings
from cryoemmae_plugin.training.tiles import GridTiles, RandomCrops, TileSource

SETTINGS = FitSettings(epochs=3, batch=4, rate=8e-4, warmup_steps=4, checkpoint_steps=2, precision="float32")


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


def test_the_published_schedule_warms_up_for_five_epochs_and_ends_at_the_least_rate() -> None:
    tiles, an_epoch = 1280, 10
    assert PUBLISHED.rate == pytest.approx(1e-3 * 128 / 256)
    assert PUBLISHED.total_steps(tiles) == 400 * an_epoch
    assert PUBLISHED.rate_at(25, tiles) == pytest.approx(PUBLISHED.rate / 2)
    middle = (400 + 5) * an_epoch // 2
    assert PUBLISHED.rate_at(middle, tiles) == pytest.approx((PUBLISHED.rate + PUBLISHED.least_rate) / 2)
    assert PUBLISHED.rate_at(400 * an_epoch, tiles) == pytest.approx(1e-6)


def test_the_default_recipe_has_steps_enough_for_few_micrographs_and_passes_enough_for_many() -> None:
    settings = FitSettings()
    assert settings.total_steps(500) == 4000
    assert settings.total_steps(16 * 1000) == 20 * 1000
    assert settings.rate_at(50, 500) == pytest.approx(settings.rate / 2)
    assert settings.rate_at(100, 500) == pytest.approx(settings.rate)
    assert FitSettings(epochs=1).warmup(16 * 40) == 10


def smooth_images() -> list[torch.Tensor]:
    """Noise without detail: what is hidden can be told from what surrounds it."""
    generator = torch.Generator().manual_seed(0)
    return [gaussian_blur(torch.randn(256, 256, generator=generator), 12.0) for _ in range(4)]


@pytest.mark.slow
def test_an_autoencoder_leaves_the_plateau_on_smooth_tiles(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = EncoderConfig(patch_px=8, embed_dim=32, depth=1, num_heads=4, position_weight=1.0)
    model = MaskedAutoencoder(config, DecoderConfig(embed_dim=32, depth=1, num_heads=4))
    source = RandomCrops(smooth_images(), (1.0, 1.0))
    fitted = fit(source, FitSettings(epochs=75, rate=5e-3, warmup_steps=50), tmp_path, start=model)
    first, *_, last = fitted.curve.summary()
    assert first[1] < 0.1
    assert last[1] > 0.5
    assert fitted.curve.end().skill > 0.5
    assert measure_skill(fitted.model.eval(), source) > 0.5
    assert fitted.hours > 0


def test_queries_and_keys_begin_equal() -> None:
    model = new_autoencoder("default", FitSettings(query_key_gain=1.4))
    dim = model.encoder.config.embed_dim
    for block in model.encoder.blocks:
        query, key, _ = block.attn.qkv.weight.chunk(3)
        assert torch.equal(query, key)
        assert torch.allclose(query @ query.T, 1.4**2 * torch.eye(dim), atol=1e-4)
    random = new_autoencoder("default", FitSettings(query_key_gain=0)).encoder.blocks[0].attn.qkv.weight
    assert not torch.equal(random[:dim], random[dim : 2 * dim])


def test_skill_compares_with_the_mean_of_each_tile() -> None:
    model, tiles, noise = tiny(), torch.randn(3, 1, 64, 64) + 5, torch.rand(3, 256)
    with torch.no_grad():
        _, _, hidden = model(tiles, noise)
    patches = model.patchify(tiles)
    expected = ((patches - tiles.mean((1, 2, 3))[:, None, None]) ** 2)[hidden == 1].mean()
    assert float(trivial_error(patches, hidden)) == pytest.approx(float(expected), rel=1e-4)
    assert skill_of(0.25, 1.0) == 0.75
    assert skill_of(0.0, 0.0) == 0.0
    assert torch.equal(model.unpatchify(patches), tiles)


@pytest.mark.slow
def test_training_lowers_the_loss(tmp_path: Path) -> None:
    fit(GridTiles(images()), SETTINGS.model_copy(update={"epochs": 20}), tmp_path, start=tiny())
    curve = losses(tmp_path)
    assert sum(curve[-10:]) < 0.8 * sum(curve[:10])


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_ends_as_an_unstopped_one(tmp_path: Path) -> None:
    source = GridTiles(images())
    whole = fit(source, SETTINGS, tmp_path / "whole", start=tiny())
    steps = iter([False] * 6 + [True])
    with pytest.raises(Interrupted, match="run the same command again"):
        fit(source, SETTINGS, tmp_path / "parts", start=tiny(), should_stop=lambda: next(steps))
    parts = fit(source, SETTINGS, tmp_path / "parts", start=tiny())
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def test_figures_that_are_looked_at_rarely_are_all_written_down(tmp_path: Path) -> None:
    curve = LearningCurve(tmp_path / "loss.csv")
    for step in range(1, 8):
        curve.add(step, 1e-3, torch.tensor(float(step)), torch.tensor(10.0), torch.tensor(1.0))
        if step == 5:
            curve.look()
            assert curve.recent().loss == 3.0
    curve.write()
    assert losses(tmp_path) == [1, 2, 3, 4, 5, 6, 7]
    assert [point.skill for point in read_curve(tmp_path / "loss.csv")][-1] == pytest.approx(0.3)
    assert (tmp_path / "loss.csv").read_text().startswith("step,rate,loss,trivial,skill\n")
    assert len(LearningCurve(tmp_path / "loss.csv", keep=4).points) == 4


class Poisoned:
    """Tiles that are not finite from some step on: what a learning rate that is too high makes of weights."""

    def __init__(self, source: TileSource, step: int) -> None:
        self._source, self._step = source, step
        self.mean, self.std = source.mean, source.std

    def __len__(self) -> int:
        return len(self._source)

    def to(self, device: torch.device) -> Poisoned:
        return self

    def draw(self, step: int, batch: int) -> torch.Tensor:
        return self._source.draw(step, batch) * (math.nan if step >= self._step else 1.0)


@pytest.mark.slow
def test_a_training_that_diverges_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    source = GridTiles(images())
    with pytest.raises(TrainingError, match=r"at step 6 of 24 .*checkpoint\.pt of step 4 .* rate below 0.0008"):
        fit(Poisoned(source, 5), SETTINGS, tmp_path, start=tiny())
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == 4
    assert all(bool(tensor.isfinite().all()) for tensor in state["model"].values())
    assert len(losses(tmp_path)) == 5


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_checkpoint_is_named_with_what_to_delete(share: float, tmp_path: Path) -> None:
    source = GridTiles(images())
    fit(source, SETTINGS, tmp_path, start=tiny())
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(
        OutputError, match=rf"{re.escape(str(path))}: .*{path.stat().st_size} bytes is damaged.* delete this"
    ):
        fit(source, SETTINGS, tmp_path, start=tiny())
    path.unlink()
    assert len(fit(source, SETTINGS, tmp_path, start=tiny()).curve.points) == 24


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_said_where_a_checkpoint_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> IO[bytes]:
        return Path("/dev/full").open("wb")

    monkeypatch.setattr("cryoemmae_plugin.files._open_new", full)
    with pytest.raises(OutputError, match=r"checkpoint\.pt: no space left"):
        write_checkpoint(tmp_path / "checkpoint.pt", {"weights": torch.zeros(100_000)})


def test_a_gpu_without_memory_is_said(tmp_path: Path) -> None:
    class Full(MaskedAutoencoder):
        def forward(self, *arguments: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    config = EncoderConfig(embed_dim=16, depth=1)
    with pytest.raises(DeviceError, match="not enough memory to train with 4 tiles"):
        fit(GridTiles(images()), SETTINGS, tmp_path, start=Full(config, DecoderConfig(embed_dim=16, num_heads=2)))


def test_the_pace_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        fit(GridTiles(images()), SETTINGS, tmp_path, start=tiny())
    assert re.search(
        r"step 24 of 24, loss \d\.\d+, trivial predictor \d\.\d+, skill -?\d\.\d+, \d+\.\d tiles/s", caplog.text
    )


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
    tiles = RandomCrops(images()).to(gpu).draw(3, 4)
    expected = RandomCrops(images()).draw(3, 4)
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
    """A wave of known period keeps it, scaled: a crop of twice the tile's side halves it."""
    wave = torch.sin(2 * math.pi * torch.arange(400) / 20).expand(400, 400)
    source = RandomCrops([wave], (2.0, 2.0), seed=3)
    tiles = source.draw(0, 2)
    spectrum = torch.fft.rfft2(tiles[0, 0]).abs()
    spectrum[0, 0] = 0
    y, x = divmod(int(spectrum.argmax()), spectrum.shape[1])
    assert max(min(y, 64 - y), x) in (6, 7)  # 64 / (20 / 2) = 6.4 waves a tile


def test_a_step_always_draws_the_same_crops() -> None:
    source = RandomCrops(images())
    assert torch.equal(source.draw(7, 3), source.draw(7, 3))
    assert not torch.equal(source.draw(7, 3), source.draw(8, 3))


def test_an_image_smaller_than_a_crop_is_mirrored_outwards() -> None:
    source = RandomCrops([torch.randn(40, 200)], (1.9, 1.9))
    assert source.draw(0, 2).shape == (2, 1, 64, 64)


def test_constant_images_cannot_be_trained_on() -> None:
    with pytest.raises(ImageError, match="no contrast"):
        GridTiles([torch.ones(64, 64)])


def test_crops_show_all_eight_symmetries_and_nothing_else() -> None:
    """One image of just one tile: every crop is that tile, turned or mirrored."""
    image = torch.arange(64 * 64.0).reshape(64, 64)
    source = RandomCrops([image], (1.0, 1.0))
    drawn = source.draw(0, 64)[:, 0] * source.std + source.mean
    turned = [torch.rot90(flipped, k) for flipped in (image, image.flip(1)) for k in range(4)]
    seen = {next(at for at, one in enumerate(turned) if torch.allclose(tile, one, atol=0.1)) for tile in drawn}
    assert seen == set(range(8))


def test_a_share_of_the_steps_keeps_the_pixels_as_they_are() -> None:
    image = torch.arange(200 * 200.0).reshape(200, 200) % 7
    source = RandomCrops([image], (1.2, 2.0), native_share=0.5)
    native = [
        float((tiles - tiles.round()).abs().max()) < 1e-3
        for tiles in (source.draw(s, 4) * source.std + source.mean for s in range(40))
    ]
    assert 10 < sum(native) < 30
