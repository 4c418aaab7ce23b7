"""What the shipped model reaches on a small fixed set of simulated micrographs: no change may lose it unnoticed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cryoemmae_plugin.core.crop_detection import detect_on_crop
from cryoemmae_plugin.core.default import pick_default
from cryoemmae_plugin.core.picker import CandidatePicker, load_head
from cryoemmae_plugin.evaluation.metrics import Reference, Scored, evaluate
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.simulate import SimulationSettings, simulate
from cryoemmae_plugin.training.adapt import adapt_head
from cryoemmae_plugin.types import Picks
from cryoemmae_plugin.weights import load_model

COMMON: dict[str, Any] = {"shape": (760, 900), "pixel_size_A": 3.0}
SCENES: dict[str, dict[str, Any]] = {
    "crowded": {"particle": "shell", "diameter_A": 130.0, "n_particles": 150, "min_distance": 1.0},
    "touching": {"particle": "tetramer", "diameter_A": 190.0, "n_particles": 90, "min_distance": 0.82},
    "filtered": {"particle": "tetramer", "diameter_A": 190.0, "n_particles": 50, "contrast": 0.6, "lowpass_A": 50.0,
                 "highpass_A": 900.0, "smeared_border_px": 30, "eight_bit": True},
    "low-defocus": {"particle": "barrel", "diameter_A": 180.0, "n_particles": 40, "defocus_um": 0.7},
    "contaminated": {"particle": "ring", "diameter_A": 240.0, "n_particles": 25, "frost": 3, "grains": 12},
    "carbon": {"particle": "l_shape", "diameter_A": 220.0, "n_particles": 25, "carbon": 0.25},
    "rods": {"particle": "rod", "diameter_A": 250.0, "n_particles": 25, "defocus_um": 2.5},
    "faint": {"particle": "tetramer", "diameter_A": 180.0, "n_particles": 80, "min_distance": 0.85, "contrast": 0.3},
}  # fmt: skip
EMPTY: dict[str, dict[str, Any]] = {
    "ice": {},
    "carbon": {"carbon": 1.0},
    "crystalline": {"ice": "crystalline"},
    "contaminated": {"frost": 4, "grains": 20, "crystals": 2},
}
FLOORS = {
    "crowded": (0.93, 0.93),
    "touching": (0.95, 0.95),
    "filtered": (0.87, 0.87),
    "low-defocus": (0.88, 0.88),
    "contaminated": (0.87, 0.87),
    "carbon": (0.92, 0.92),
    "rods": (0.78, 0.82),
    "faint": (0.58, 0.68),
}
"""F1 by iou06 and half_d: some .02 to .04 under what was seen."""
MOST_PICKS = {"ice": 2, "carbon": 2, "crystalline": 12, "contaminated": 2}
"""On micrographs without a particle; mottled crystalline ice is where the model still errs."""


QUICK = ("touching", "ice")
"""Those that `make test-quick` picks too."""


def cases(names: Iterable[str]) -> list[Any]:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


def pick(settings: SimulationSettings, seed: int) -> tuple[NDArray[np.float64], Picks]:
    made = simulate(settings, seed)
    picker = CandidatePicker(load_model("emmae-base"), PickerSettings(diameter_A=settings.diameter_A))
    return made.xy, picker.pick(made.image, settings.pixel_size_A)


@pytest.mark.parametrize("name", cases(SCENES))
def test_particles_are_found(name: str) -> None:
    settings = SimulationSettings(**COMMON, **SCENES[name])
    truth, candidates = pick(settings, 77)
    picks = candidates.above(0.5)
    reference = {"m": Reference(truth, settings.diameter_px)}
    found = evaluate(reference, {"m": Scored(picks.xy, picks.score.astype(float))})
    whole = evaluate(reference, {"m": Scored(candidates.xy, candidates.score.astype(float))})
    iou06, half_d = FLOORS[name]
    assert found.mean["iou06"].f1 >= iou06
    assert found.mean["half_d"].f1 >= half_d
    assert whole.average_precision >= half_d - 0.05


@pytest.mark.parametrize("name", cases(EMPTY))
def test_a_micrograph_without_a_particle_is_left_alone(name: str) -> None:
    settings = SimulationSettings(**COMMON, diameter_A=170.0, n_particles=0, **EMPTY[name])
    _, candidates = pick(settings, 78)
    assert len(candidates.above(0.5)) <= MOST_PICKS[name]


RODS: dict[str, Any] = {"particle": "rod", "diameter_A": 250.0, "n_particles": 40, "defocus_um": 2.5, "contrast": 1.0}


@pytest.mark.slow
def test_adapting_to_five_micrographs_finds_more_rods() -> None:
    settings = SimulationSettings(**COMMON | {"pixel_size_A": 4.0, "shape": (900, 1000)}, **RODS)
    made = [simulate(settings, 300 + n) for n in range(5)]
    images = [torch.from_numpy(one.image) for one in made]
    model = load_model("emmae-base")
    head = load_head(model)
    adapted = adapt_head(model, head, [detect_on_crop(image, settings.diameter_px, head, model) for image in images])
    assert adapted is not None
    reference = {f"m{n}": Reference(one.xy, settings.diameter_px) for n, one in enumerate(made)}
    f1 = {}
    for name, a_head in (("shipped", head), ("adapted", adapted)):
        with torch.inference_mode():
            picks = [pick_default(image, model, a_head, settings.diameter_px).above(0.5) for image in images]
        found = {f"m{n}": Scored(one.xy, one.score.astype(float)) for n, one in enumerate(picks)}
        f1[name] = evaluate(reference, found).mean["half_d"].f1
    assert f1["adapted"] >= f1["shipped"] + 0.01, f1
