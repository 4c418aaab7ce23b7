"""The picker as a whole: where its picks lie, what it refuses, and that nothing but the particles moves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cryoemmae_plugin.core.picker import CandidatePicker
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.device import multiplies_bfloat16
from cryoemmae_plugin.errors import ImageError, ModelError, SettingsError
from cryoemmae_plugin.evaluation.metrics import Reference, Scored, evaluate, match
from cryoemmae_plugin.images import read_image
from cryoemmae_plugin.settings import ComputeOptions, PickerSettings
from cryoemmae_plugin.simulate import SimulationSettings, demo_scenes, simulate
from cryoemmae_plugin.weights import ModelCard, load_model, save_model


def shipped(diameter_A: float, **settings: object) -> CandidatePicker:
    chosen = PickerSettings(diameter_A=diameter_A, **settings)
    return CandidatePicker(load_model(chosen.model_name), chosen)


def scene(**changed: object) -> SimulationSettings:
    values: dict[str, object] = {
        "shape": (700, 700),
        "particle": "globular",
        "diameter_A": 150.0,
        "pixel_size_A": 3.0,
        "n_particles": 50,
        "min_distance": 1.3,
        "border": 0.7,
        "defocus_um": 2.0,
        "contrast": 1.5,
        "dose_e_A2": 50.0,
        "ice_thickness_A": 300.0,
    }
    return SimulationSettings(**{**values, **changed})


@pytest.mark.parametrize(
    ("shape", "pixel_size_A"),
    [
        ((500, 900), 3.0),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (((700, 700), 3.0), ((1300, 1100), 1.5), ((1500, 2000), 1.0), ((420, 300), 6.0))
        ),
    ],
)
def test_picks_lie_on_the_particles_whatever_the_frame_and_the_pixel_size(
    shape: tuple[int, int], pixel_size_A: float
) -> None:
    offsets = []
    diameter_px = 150.0 / pixel_size_A
    for seed in range(2):
        n_particles = round(0.12 * shape[0] * shape[1] / diameter_px**2)
        made = simulate(scene(shape=shape, pixel_size_A=pixel_size_A, n_particles=n_particles), seed)
        picks = shipped(150.0).pick(made.image, pixel_size_A).above(0.5)
        pairs = match(made.xy, picks.xy, made.diameter_px, "half_d")
        assert len(pairs) > 0.8 * len(made.xy)
        offsets.append((picks.xy[pairs[:, 1]] - made.xy[pairs[:, 0]]) / made.diameter_px)
    offset = np.concatenate(offsets)
    standard_error = offset.std(0) / np.sqrt(len(offset))
    assert (np.abs(offset.mean(0)) < 0.02 + 2 * standard_error).all(), offset.mean(0)


@pytest.mark.slow
def test_the_mean_offset_over_many_particles_is_below_a_fiftieth_of_the_diameter() -> None:
    offsets = []
    for seed in range(4):
        made = simulate(scene(shape=(600, 1000), n_particles=90), 50 + seed)
        picks = shipped(150.0).pick(made.image, 3.0).above(0.5)
        pairs = match(made.xy, picks.xy, made.diameter_px, "half_d")
        offsets.append((picks.xy[pairs[:, 1]] - made.xy[pairs[:, 0]]) / made.diameter_px)
    offset = np.concatenate(offsets)
    assert len(offset) > 200
    assert np.abs(offset.mean(0)).max() < 0.02


@pytest.mark.slow
def test_demo_scenes_are_picked_well() -> None:
    reference, picked = {}, {}
    for seed, demo in enumerate(demo_scenes(), start=1):
        made = simulate(demo.settings, seed)
        picks = shipped(made.diameter_A).pick(made.image, made.pixel_size_A).above(0.5)
        reference[demo.name] = Reference(made.xy, made.diameter_px)
        picked[demo.name] = Scored(picks.xy, picks.score.astype(float))
    assert evaluate(reference, picked).mean["half_d"].f1 >= 0.95


@pytest.mark.slow
def test_an_inverted_micrograph_gives_the_same_picks() -> None:
    made = simulate(scene(), 3)
    dark = shipped(150.0).pick(made.image, 3.0)
    bright = shipped(150.0, contrast="bright").pick(-made.image, 3.0)
    assert np.array_equal(dark.xy, bright.xy)
    assert np.array_equal(dark.score, bright.score)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "paper"])
def test_picking_again_gives_the_same_picks(mode: str, tiny_model: Path) -> None:
    made = simulate(scene(), 4)
    picker = shipped(150.0) if mode == "default" else shipped(150.0, mode=mode, model=str(tiny_model))
    first, second = picker.pick(made.image, 3.0), picker.pick(made.image, 3.0)
    assert len(first) > 0
    assert np.array_equal(first.xy, second.xy)
    assert np.array_equal(first.score, second.score)


@pytest.mark.slow
def test_grey_values_may_have_any_scale_and_offset() -> None:
    made = simulate(scene(), 5)
    picker = shipped(150.0)
    first, second = picker.pick(made.image, 3.0).above(0.5), picker.pick(made.image * 250 - 4000, 3.0)
    distance = [np.hypot(*(second.xy - xy).T).min() for xy in first.xy]
    assert len(first) > 30
    assert max(distance) < 0.5


def test_candidates_below_the_threshold_are_kept_and_scores_are_in_range_best_first() -> None:
    made = simulate(scene(n_particles=20, contrast=0.5, ice_thickness_A=900.0), 6)
    picks = shipped(150.0, threshold=0.9).pick(made.image, 3.0)
    assert picks.score.min() < 0.5 < picks.score.max()
    assert ((picks.score >= 0) & (picks.score <= 1)).all()
    assert (np.diff(picks.score) <= 0).all()
    assert picks.shape == (700, 700)


def test_pure_ice_gives_hardly_a_pick() -> None:
    made = simulate(scene(n_particles=0), 7)
    assert len(shipped(150.0).pick(made.image, 3.0).above(0.5)) <= 2


def test_every_step_is_timed() -> None:
    timer = StepTimer()
    shipped(150.0).pick(simulate(scene(), 8).image, 3.0, timer)
    assert set(timer.seconds) == {"preprocess", "encode", "cluster", "locate"}


def test_a_stack_is_refused() -> None:
    with pytest.raises(ImageError, match="3 dimensions"):
        shipped(150.0).pick(np.zeros((2, 300, 300), np.float32), 3.0)


def test_a_constant_image_is_refused() -> None:
    with pytest.raises(ImageError, match="every pixel is 7"):
        shipped(150.0).pick(np.full((300, 300), 7, np.float32), 3.0)


def test_an_image_with_numbers_that_are_not_finite_is_refused() -> None:
    image = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
    image[7, 9] = np.nan
    with pytest.raises(ImageError, match="not finite"):
        shipped(150.0).pick(image, 3.0)


def test_a_particle_larger_than_the_micrograph_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"diameter_A 1000 is 333\.3 px .* larger than the micrograph of 200 x 100"):
        shipped(1000.0).pick(np.random.default_rng(0).normal(size=(100, 200)).astype(np.float32), 3.0)


@pytest.mark.parametrize("mode", ["default", "paper"])
def test_a_particle_too_small_to_be_seen_is_refused(mode: str) -> None:
    with pytest.raises(SettingsError, match="too small for a micrograph of 500 x 500"):
        shipped(9.0, mode=mode).pick(np.random.default_rng(0).normal(size=(500, 500)).astype(np.float32), 3.0)


def test_a_diameter_in_nanometres_does_not_fill_the_memory() -> None:
    image = np.random.default_rng(0).normal(size=(4096, 5000)).astype(np.float32)
    with pytest.raises(SettingsError, match=r"diameter_A 10 is 10 px .* 5000 x 4096 px .*: at least 10.9 px; .* nm"):
        shipped(10.0).pick(image, 1.0)


def test_what_the_frame_cuts_is_among_the_candidates() -> None:
    made = simulate(scene(border=-0.2, n_particles=70, min_distance=1.1), 8)
    picks = shipped(150.0).pick(made.image, 3.0).above(0.5)
    margins = np.minimum(picks.xy, np.array([699, 699]) - picks.xy).min(axis=1)
    assert margins.min() >= 0
    assert (margins < 25).sum() >= 3


def test_default_mode_needs_a_head(tiny_model: Path, tmp_path: Path) -> None:
    model = load_model(tiny_model)
    card = ModelCard(name="bare", modes=("paper",), encoder=model.card.encoder, mean=0.5, std=0.1, particle_cluster=1)
    save_model(tmp_path, card, model.encoder.state_dict(), {"centroids": model.centroids})
    with pytest.raises(ModelError, match="has no head"):
        CandidatePicker(load_model(tmp_path), PickerSettings(diameter_A=100))
    CandidatePicker(load_model(tmp_path), PickerSettings(diameter_A=100, mode="paper"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pixel_size_A", "floors"), [("empiar-10017", 1.77, (0.72, 0.75)), ("empiar-10146", 1.5, (0.6, 0.8))]
)
def test_a_real_micrograph_that_was_kept_back_from_training_is_picked(
    real_data: Path, name: str, pixel_size_A: float, floors: tuple[float, float]
) -> None:
    table = pd.read_csv(real_data / name / "reference.csv")
    image = sorted(p for p in (real_data / name).iterdir() if p.suffix in (".jpg", ".png"))[-1]
    rows = table[table.micrograph == f"{image.stem}.mrc"]
    diameter_px = float(rows.diameter.iloc[0])
    picks = shipped(diameter_px * pixel_size_A).pick(read_image(image), pixel_size_A).above(0.5)
    scored = evaluate(
        {image.stem: Reference(rows[["x", "y"]].to_numpy(float), diameter_px)},
        {image.stem: Scored(picks.xy, picks.score.astype(float))},
    )
    assert scored.mean["iou06"].f1 >= floors[0]
    assert scored.mean["half_d"].f1 >= floors[1]


@pytest.mark.slow
def test_the_encoders_arithmetic_does_not_move_picks() -> None:
    made, chosen = simulate(scene(), 9), PickerSettings(diameter_A=150.0)
    found = {}
    for precision in ("auto", "float32", "bfloat16"):
        compute = ComputeOptions(precision=precision)
        picker = CandidatePicker(load_model(chosen.model_name), chosen, compute=compute)
        found[precision] = picker.pick(made.image, 3.0).above(0.5)
    suits = "bfloat16" if multiplies_bfloat16(torch.device("cpu")) else "float32"
    assert np.array_equal(found["auto"].xy, found[suits].xy)
    assert len(found["float32"]) == len(found["bfloat16"]) > 40
    assert np.hypot(*(found["float32"].xy - found["bfloat16"].xy).T).max() < 0.5
    assert np.abs(found["float32"].score - found["bfloat16"].score).max() < 0.02


def test_cuda_and_cpu_agree() -> None:
    """At least 99.5 % of picks within 1 px, scores within 0.01."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    made = simulate(scene(), 9)
    chosen = PickerSettings(diameter_A=150.0)
    cpu = shipped(150.0).pick(made.image, 3.0).above(0.5)
    gpu = CandidatePicker(load_model(chosen.model_name), chosen, torch.device("cuda")).pick(made.image, 3.0)
    near = [np.hypot(*(gpu.xy - xy).T).argmin() for xy in cpu.xy]
    distance = np.hypot(*(gpu.xy[near] - cpu.xy).T)
    assert (distance < 1).mean() >= 0.995
    assert np.abs(gpu.score[near] - cpu.score)[distance < 1].max() < 0.01
