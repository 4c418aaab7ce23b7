"""A model of other dimensions, with patches larger than the head's cells: it is trained, picks, is trained further."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cryoemmae_plugin.core.crop_detection import CropDetections
from cryoemmae_plugin.core.encoder import DecoderConfig, EncoderConfig
from cryoemmae_plugin.core.picker import CandidatePicker, load_head
from cryoemmae_plugin.images import read_image
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.simulate import Scene, SimulationSettings, write_micrographs
from cryoemmae_plugin.training import adapt, examples
from cryoemmae_plugin.training.adapt import adapt_head
from cryoemmae_plugin.training.head import HeadSettings
from cryoemmae_plugin.training.mae import MaskedAutoencoder
from cryoemmae_plugin.training.make_head import HeadPlan
from cryoemmae_plugin.training.prepare import TrainingMicrograph
from cryoemmae_plugin.training.recipe import FitSettings
from cryoemmae_plugin.training.start import Start, load_start
from cryoemmae_plugin.training.train import train_model
from cryoemmae_plugin.weights import load_model, read_card

ENCODER = EncoderConfig(patch_px=8, embed_dim=24, depth=1, num_heads=2, position_weight=1.0)
DECODER = DecoderConfig(embed_dim=16, depth=2, num_heads=4, mlp_ratio=3.0)
SCENE = SimulationSettings(
    shape=(320, 404), particle="globular", diameter_A=120.0, pixel_size_A=3.0, n_particles=14, contrast=1.5
)
SETTINGS = FitSettings(epochs=1, batch=8, least_skill=-99, least_separation=-99)
HEAD = HeadPlan(1, 1, HeadSettings(steps=2, batch=2, crop_cells=32))


@pytest.fixture(scope="module")
def micrograph(tmp_path_factory: pytest.TempPathFactory) -> TrainingMicrograph:
    (path,) = write_micrographs(tmp_path_factory.mktemp("micrographs"), [Scene("m", SCENE)], [1])
    return TrainingMicrograph(path, 120.0)


@pytest.fixture(scope="module")
def trained(micrograph: TrainingMicrograph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "training_scene", lambda seed, sides: SCENE)
        torch.manual_seed(0)
        start = Start(MaskedAutoencoder(ENCODER, DECODER))
        folder = tmp_path_factory.mktemp("models") / "small"
        return train_model([micrograph], folder, "small", settings=SETTINGS, start=start, head=HEAD)


@pytest.mark.slow
def test_its_card_says_both_dimensions(trained: Path) -> None:
    card = read_card(trained)
    assert (card.encoder, card.decoder) == (ENCODER, DECODER)


@pytest.mark.slow
def test_it_picks(trained: Path, micrograph: TrainingMicrograph) -> None:
    model = load_model(trained)
    assert load_head(model).embed_dim == ENCODER.embed_dim
    picks = CandidatePicker(model, PickerSettings(diameter_A=120.0)).pick(read_image(micrograph.path), 3.0)
    assert picks.shape == SCENE.shape
    assert len(picks) > 0


@pytest.mark.slow
def test_it_is_trained_further(
    trained: Path, micrograph: TrainingMicrograph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "training_scene", lambda seed, sides: SCENE)
    start = load_start(str(trained))
    assert start.whole.decoder.config == DECODER
    assert start.head is not None
    folder = train_model([micrograph], tmp_path, "further", settings=SETTINGS, start=start, head=HEAD)
    assert read_card(folder).decoder == DECODER
    assert load_model(folder).sha256 != load_model(trained).sha256


@pytest.mark.slow
def test_it_adapts(trained: Path, monkeypatch: pytest.MonkeyPatch, detections: Callable[..., CropDetections]) -> None:
    monkeypatch.setattr(adapt, "SCENES", 1)
    monkeypatch.setattr(adapt, "OTHER_SCENES", range(99_000, 99_001))
    monkeypatch.setattr(adapt, "SETTINGS", HeadSettings(steps=2, batch=2, crop_cells=32))
    model = load_model(trained)
    adapted = adapt_head(model, load_head(model), [detections(seed) for seed in range(2)])
    assert adapted is not None
    assert adapted.embed_dim == ENCODER.embed_dim
