"""Particles of several sizes: what decides a claim, and one mixture picked whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryoemmae_plugin.core.default import pick_default
from cryoemmae_plugin.core.picker import CandidatePicker, load_head
from cryoemmae_plugin.core.species import DiscResponses, merge_sizes, pick_sizes, settle
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.evaluation.metrics import match
from cryoemmae_plugin.settings import PickerSettings, RequestedSettings
from cryoemmae_plugin.simulate.settings import SimulationSettings
from cryoemmae_plugin.weights import load_model

SCENE = SimulationSettings(shape=(560, 620), pixel_size_A=3.0, defocus_um=2.0, ice_thickness_A=300, border=0.5)


def test_the_better_claim_wins_and_keeps_the_highest_merit() -> None:
    xy = np.array([[100.0, 100.0], [104.0, 100.0], [300.0, 100.0], [340.0, 100.0]])
    diameter = np.array([40.0, 80.0, 40.0, 40.0])
    kept, merit = settle(xy, np.array([0.9, 0.7, 0.6, 0.5], np.float32), diameter, np.array([1.0, 2.0, 0.5, 0.4]))
    assert kept.tolist() == [1, 2, 3]  # neighbours that touch are two particles
    assert merit[1] == pytest.approx(0.9)


def test_what_lies_inside_of_a_larger_particle_is_a_part_of_it() -> None:
    xy = np.array([[100.0, 100.0], [125.0, 100.0], [160.0, 100.0]])
    score = np.array([0.9, 0.99, 0.99], np.float32)
    kept, merit = settle(xy, score, np.array([80.0, 40.0, 40.0]), np.array([3.0, 2.0, 1.0]))
    assert kept.tolist() == [0, 2]
    assert merit[0] == pytest.approx(0.9)  # that part has another centre


def test_nothing_is_settled_to_nothing() -> None:
    assert not len(settle(np.zeros((0, 2)), np.zeros(0, np.float32), np.zeros(0), np.zeros(0))[0])


def test_mixtures_repeat_and_keep_their_distance(script) -> None:
    mixture = script("mixture")
    species = [mixture.Species("globular", 90, 25), mixture.Species("two_subunits", 220, 8)]
    one, again = (mixture.simulate_mixture(SCENE, species, 1) for _ in range(2))
    assert np.array_equal(one.image, again.image)
    assert [kind.diameter_A for kind in one.species] == [220, 90]
    large, small = one.xy
    apart = np.hypot(*(large[:, None] - small[None]).transpose(2, 0, 1)).min()
    assert apart >= SCENE.min_distance * (220 + 90) / 2 / 3.0 - 1e-6


@pytest.mark.slow
def test_a_faint_species_is_judged_without_the_larger_ones_around_it(script) -> None:
    """More micelles are found beside rings than with the rings in their context."""
    scene = SCENE.model_copy(update={"shape": (700, 760), "pixel_size_A": 2.2, "ice_thickness_A": 300})
    module = script("mixture")
    mixture = module.simulate_mixture(scene, [module.Species("micelle", 90, 36), module.Species("ring", 220, 12)], 3)
    model = load_model("emmae-base")
    image, diameters_px = torch.from_numpy(mixture.image), [90 / 2.2, 220 / 2.2]
    with torch.inference_mode():
        first = [pick_default(image, model, load_head(model), one, StepTimer()) for one in diameters_px]
        before = merge_sizes(DiscResponses.of(image, diameters_px), first, diameters_px, [90.0, 220.0])
        after = pick_sizes(image, model, load_head(model), diameters_px, [90.0, 220.0], StepTimer())
    found = [len(match(mixture.xy[1], picks.above(0.5).xy, 90 / 2.2, "half_d")) for picks in (before, after)]
    assert found[1] >= found[0] + 5, found


@pytest.mark.slow
def test_both_sizes_of_a_mixture_are_found_and_told_apart(script) -> None:
    module = script("mixture")
    species = [module.Species("globular", 90, 30), module.Species("two_subunits", 220, 9)]
    mixture = module.simulate_mixture(SCENE, species, 4)
    settings = RequestedSettings(diameter_A="90,220").with_diameter("90,220")
    assert isinstance(settings, PickerSettings)
    picks = CandidatePicker(load_model("emmae-base"), settings).pick(mixture.image, 3.0).above(0.5)
    assert picks.diameter_A is not None
    for kind, xy in zip(mixture.species, mixture.xy, strict=True):
        pairs = match(xy, picks.xy, kind.diameter_A / 3.0, "half_d")
        assert len(pairs) >= 0.9 * len(xy)
        assert (picks.diameter_A[pairs[:, 1]] == kind.diameter_A).mean() >= 0.8
