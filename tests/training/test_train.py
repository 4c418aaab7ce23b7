"""From unlabelled micrographs to a model folder that picks."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import torch

from cryoemmae_plugin.core.encoder import DecoderConfig, EncoderConfig
from cryoemmae_plugin.core.head import Head
from cryoemmae_plugin.core.picker import CandidatePicker
from cryoemmae_plugin.errors import ImageError, Interrupted, OutputError, TrainingError
from cryoemmae_plugin.images import read_image
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.simulate import Scene, SimulationSettings, write_micrographs
from cryoemmae_plugin.training import examples
from cryoemmae_plugin.training.clusters import find_particle_cluster, fit_clusters
from cryoemmae_plugin.training.complete import CLUSTERING
from cryoemmae_plugin.training.examples import make_examples
from cryoemmae_plugin.training.head import HeadSettings, calibrate, mean_head, train_head
from cryoemmae_plugin.training.mae import MaskedAutoencoder
from cryoemmae_plugin.training.make_head import EXAMINING, JUDGING, HeadPlan, make_head
from cryoemmae_plugin.training.prepare import READING, TrainingMicrograph, prepare, tile_source
from cryoemmae_plugin.training.recipe import FitSettings
from cryoemmae_plugin.training.start import Start
from cryoemmae_plugin.training.train import train_model
from cryoemmae_plugin.weights import load_decoder_state, load_model

SETTINGS = FitSettings(epochs=1, batch=8, least_skill=-99, least_separation=-99)
HEAD = HeadPlan(2, 1, HeadSettings(steps=3, batch=2, crop_cells=32))
SCENE = SimulationSettings(
    shape=(320, 400), particle="globular", diameter_A=120.0, pixel_size_A=3.0, n_particles=14, contrast=1.5
)


def tiny() -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(EncoderConfig(embed_dim=16, depth=1), DecoderConfig(embed_dim=16, depth=1, num_heads=2))


@pytest.fixture(scope="module")
def micrographs(tmp_path_factory: pytest.TempPathFactory) -> list[TrainingMicrograph]:
    folder = tmp_path_factory.mktemp("micrographs")
    paths = write_micrographs(folder, [Scene(f"m{at}", SCENE) for at in range(2)], [1, 2])
    return [TrainingMicrograph(path, 120.0) for path in paths]


@pytest.fixture(autouse=True)
def small_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "training_scene", lambda seed, sides: SCENE)


@pytest.mark.slow
def test_training_leaves_a_model_that_picks_and_training_again_gives_the_same(
    micrographs: list[TrainingMicrograph], tmp_path: Path
) -> None:
    told: list[tuple[str, int, int]] = []

    def train() -> Path:
        return train_model(
            micrographs,
            tmp_path / "mine",
            "mine",
            settings=SETTINGS,
            start=Start(tiny()),
            head=HEAD,
            kept_back=micrographs[1:],
            on_stage=lambda *stage: told.append(stage),
        )

    folder = train()
    assert told == [
        *((READING, at, 2) for at in (0, 1, 2)),
        (READING, 0, 1),
        (READING, 1, 1),
        (CLUSTERING, 0, 1),
        (CLUSTERING, 1, 1),
        *((EXAMINING, at, 3) for at in (1, 2, 3)),
        *((JUDGING, at, 3) for at in (1, 2, 3)),
    ]
    model = load_model(folder)
    assert model.card.modes == ("default",)
    assert "(1 epochs of" in model.card.recipe
    learned = model.card.training
    assert learned is not None
    assert None not in (learned.skill, learned.kept_back_skill, learned.hours)
    assert learned.curve[-1][0] == 4
    for picture in ("loss.png", "reconstructions.png"):
        assert (folder / "training" / picture).stat().st_size > 1000
    assert load_decoder_state(folder)
    picks = CandidatePicker(model, PickerSettings(diameter_A=120.0)).pick(read_image(micrographs[0].path), 3.0)
    assert len(picks) > 0
    assert load_model(train()).sha256 == model.sha256


@pytest.mark.slow
def test_a_head_that_is_trained_further_ends_halfway_on_scenes_of_its_own(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(examples, "training_scene", lambda seed, sides: (seeds.append(seed), SCENE)[1])
    model = load_model(tiny_model)
    start = Head(model.encoder.config.embed_dim).eval()
    start.calibration.copy_(torch.tensor([2.0, 0.5, 6.0]))
    plan = replace(HEAD, first_seed=500)
    made = make_head(model, plan, tmp_path / "mean", start)
    assert seeds == [500, 501, 502]
    shown = make_examples(model, range(500, 502))
    trained = train_head(shown, plan.settings, start=start)
    before, after, mean = (dict(head.named_parameters())["body.0.conv.weight"] for head in (start, trained, made))
    assert not torch.equal(before, after)
    torch.testing.assert_close(mean, (before + after) / 2)
    calibrated = calibrate(mean_head(start, trained), make_examples(model, [502])).calibration
    torch.testing.assert_close(made.calibration, (600 * start.calibration + calibrated) / 601)
    assert not torch.equal(calibrated, start.calibration)


@pytest.mark.slow
def test_paper_mode_is_trained_on_its_own_preprocessing(micrographs: list[TrainingMicrograph], tmp_path: Path) -> None:
    folder = train_model(micrographs[:1], tmp_path, "mine", mode="paper", settings=SETTINGS, start=Start(tiny()))
    model = load_model(folder)
    assert model.card.modes == ("paper",)
    assert 0 < model.mean < 1
    picker = CandidatePicker(model, PickerSettings(diameter_A=120.0, mode="paper"))
    picks = picker.pick(read_image(micrographs[0].path), 3.0)
    assert picks.shape == SCENE.shape


@pytest.mark.slow
def test_a_training_does_not_go_on_with_anything_else(micrographs: list[TrainingMicrograph], tmp_path: Path) -> None:
    def train(used: list[TrainingMicrograph], start: MaskedAutoencoder | None, **options: Any) -> None:
        train_model(
            used, tmp_path, "mine", start=start and Start(start), **{"settings": SETTINGS, "head": HEAD} | options
        )

    with pytest.raises(Interrupted):
        train(micrographs, tiny(), should_stop=lambda: True)
    other = tiny()
    next(iter(other.parameters())).data += 1
    for what, begin in {
        "micrographs": lambda: train(micrographs[:1], tiny()),
        "start": lambda: train(micrographs, other),
        "mode, head": lambda: train(micrographs, tiny(), mode="paper"),
        "settings": lambda: train(micrographs, tiny(), settings=SETTINGS.model_copy(update={"seed": 3})),
    }.items():
        with pytest.raises(OutputError, match=rf"holds a training with other {what}; .* delete .*training"):
            begin()
    train(micrographs, tiny(), settings=SETTINGS.model_copy(update={"checkpoint_steps": 7}))
    assert (tmp_path / "card.toml").exists()
    (tmp_path / "training" / "manifest.json").unlink()
    with pytest.raises(OutputError, match="earlier release"):
        train(micrographs, tiny())


def test_a_bad_micrograph_is_named_and_left_out(
    micrographs: list[TrainingMicrograph], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = tmp_path / "bad.mrc"
    bad.write_bytes(b"nothing")
    with caplog.at_level(logging.WARNING):
        images, diameters = prepare([TrainingMicrograph(bad, 120.0), *micrographs], "default")
    assert len(images) == len(diameters) == 2
    assert "bad.mrc" in caplog.text


@pytest.mark.slow
def test_a_model_that_has_learned_nothing_is_refused(micrographs: list[TrainingMicrograph], tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"least_skill": 0.05})
    with pytest.raises(TrainingError, match=r"learned nothing: .* No model is installed; check .* delete .*training"):
        train_model(micrographs, tmp_path, "mine", settings=settings, start=Start(tiny()), head=HEAD)
    assert not (tmp_path / "card.toml").exists()
    assert (tmp_path / "training" / "loss.png").exists()


@pytest.mark.slow
def test_a_paper_model_none_of_whose_clusters_is_the_particle_is_refused(
    micrographs: list[TrainingMicrograph], tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"least_separation": 0.99})
    with pytest.raises(TrainingError, match=r"none of its clusters is the particle: .* No model is installed; check "):
        train_model(micrographs, tmp_path, "mine", mode="paper", settings=settings, start=Start(tiny()))
    assert not (tmp_path / "card.toml").exists()


def test_micrographs_without_contrast_are_left_out(
    micrographs: list[TrainingMicrograph], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flat = tmp_path / "flat.mrc"
    with mrcfile.new(flat) as file:
        file.set_data(np.full((320, 400), 7, np.float32))
        file.voxel_size = 3.0
    with caplog.at_level(logging.WARNING):
        images, _ = prepare([TrainingMicrograph(flat, 120.0), micrographs[0]], "default")
    assert len(images) == 1
    assert "flat.mrc: every pixel is 7" in caplog.text
    with pytest.raises(ImageError, match=r"no micrograph to train on: .*every pixel is 7"):
        prepare([TrainingMicrograph(flat, 120.0)], "default")


def test_too_few_tiles_are_refused_and_few_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ImageError, match=r"only 4 training tiles of 64 x 64 pixels; at least 8 are needed"):
        tile_source([torch.randn(128, 128)], "default")
    with caplog.at_level(logging.WARNING):
        tile_source([torch.randn(256, 256)], "paper", "grid")
    assert "only 16 training tiles" in caplog.text


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no micrograph to train on"):
        prepare([TrainingMicrograph(tmp_path / "absent.mrc", 120.0)], "default")


def test_the_particle_cluster_is_the_dark_one_at_the_particles_scale() -> None:
    """Dark discs on noise, a dark half plane in one tile: the discs' cluster is the particle's, without a label."""
    rng = np.random.default_rng(0)
    tiles = rng.normal(0, 0.3, (6, 1, 64, 64)).astype(np.float32)
    rows, columns = np.mgrid[:64, :64]
    kind = np.zeros((6, 64, 64))
    for at in range(6):
        kind[at][np.hypot(columns - 20 - 4 * at, rows - 30) < 10] = 1
    tiles[:, 0][kind == 1] -= 2
    cells = kind.reshape(6, 16, 4, 16, 4).mean((2, 4)).reshape(6, 256) > 0.5
    tokens = torch.from_numpy(rng.normal(0, 0.1, (6, 256, 8)).astype(np.float32))
    tokens[torch.from_numpy(cells)] += 3
    tokens[:, 128:, 1] += 2
    centroids = fit_clusters(tokens)
    particle, separation = find_particle_cluster(tokens, torch.from_numpy(tiles), centroids, [20.0] * 6)
    label = torch.cdist(tokens, torch.from_numpy(centroids)).argmin(2).numpy()
    assert cells[label == particle].mean() > 0.9
    assert 0.5 < separation < 1
    something_else = tokens.flip(1)  # the other half of each tile
    _, without = find_particle_cluster(
        something_else, torch.from_numpy(tiles), fit_clusters(something_else), [20.0] * 6
    )
    assert without < 0.2 < separation
