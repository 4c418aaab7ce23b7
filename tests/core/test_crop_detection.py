"""What is seen in the middle of a micrograph, and what several of one data set tell together."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from cryoemmae_plugin import load_model
from cryoemmae_plugin.core.crop_detection import CropDetections, detect_on_crop
from cryoemmae_plugin.core.default import GRID_DIAMETER_PX, extract_features_without_embedding, score_candidates
from cryoemmae_plugin.core.flattening import flatten_background
from cryoemmae_plugin.core.head import Head
from cryoemmae_plugin.core.picker import load_head
from cryoemmae_plugin.simulate import SimulationSettings, simulate
from cryoemmae_plugin.training.adapt import EXPECTED_SHARE, SHOWN_DENSITY, judge_together

FAINT = SimulationSettings(
    shape=(500, 640), pixel_size_A=4.0, particle="barrel", diameter_A=180.0, n_particles=40, contrast=0.5
)


@pytest.fixture(scope="module")
def head() -> Head:
    return load_head(load_model("emmae-base"))


def detections(density: float, chance: float = 0.75, area: float = 200.0) -> CropDetections:
    """So many particles to expect per square diameter; the evidence of each candidate is log 3."""
    count = round(density * area / chance)
    return CropDetections(np.zeros((8, 8), np.float32), area, np.zeros((count, 2)), np.full(count, chance, np.float32))


def test_the_middle_of_a_frame_that_is_not_square_is_seen_where_it_is(head: Head) -> None:
    made = simulate(FAINT.model_copy(update={"contrast": 1.5}), 5)
    seen = detect_on_crop(torch.from_numpy(made.image), made.diameter_px, head)
    scale = GRID_DIAMETER_PX / made.diameter_px
    assert seen.area == pytest.approx(500 * 640 / made.diameter_px**2, rel=0.02)
    near = np.hypot(*(seen.likely[:, None] / scale - made.xy).T).min(0)
    assert (near < 0.2 * made.diameter_px).mean() > 0.8
    assert seen.density == pytest.approx(len(made.xy) / seen.area, rel=0.25)
    patches = seen.patches()
    assert len(patches) > 20
    assert patches[:, 24, 24].mean() < patches[:, 0, 0].mean()


def least_density(head: Head, detections: list[CropDetections]) -> float | None:
    """That of a head that is told what they show; None where it is told nothing of particles."""
    told = judge_together(head, detections)
    return None if told is None or float(told.least_density) > 100 else float(told.least_density)


def test_a_data_set_shows_what_half_of_its_micrographs_show(head: Head) -> None:
    few, many = detections(0.3 * SHOWN_DENSITY), detections(4 * SHOWN_DENSITY)
    expected = pytest.approx(EXPECTED_SHARE * 4 * SHOWN_DENSITY, rel=0.05)
    assert least_density(head, [many, few, many]) == expected
    assert least_density(head, [few, few, many]) is None
    assert judge_together(head, [many, many]) is None
    assert float(head.least_density) > 100, "the head itself is left as it is"


@pytest.mark.parametrize(("share", "density", "needed"), [(2.1, 0.1, 1.0), (1.5, None, 1.0), (0.9, None, 3.0)])
def test_without_evidence_a_data_set_shows_nothing_and_with_next_to_none_each_micrograph_needs_more(
    head: Head, share: float, density: float | None, needed: float
) -> None:
    doubtful = detections(0.2, chance=0.52)
    head = copy.deepcopy(head)
    head.calibration[2] = doubtful.total_log_odds / share
    told = judge_together(head, [doubtful] * 5)
    assert least_density(head, [doubtful] * 5) == (None if density is None else pytest.approx(density, rel=0.02))
    assert (told or head).least_log_odds == pytest.approx(needed * doubtful.total_log_odds / share)


def test_faint_micrographs_are_picked_where_the_data_set_shows_particles_and_empty_ones_are_not(head: Head) -> None:
    expecting = judge_together(head, [detections(0.2)] * 3)
    assert expecting is not None
    alone = copy.deepcopy(head)
    for one in (alone, expecting):
        one.calibration[2] = 1e6  # no evidence is enough
    picks = {}
    for name, settings in (("faint", FAINT), ("empty", FAINT.model_copy(update={"n_particles": 0}))):
        made = simulate(settings, 3)
        seen = flatten_background(torch.from_numpy(made.image), made.diameter_px, GRID_DIAMETER_PX)
        features = extract_features_without_embedding(seen, head)
        picks[name] = [len(score_candidates(features, seen, one).above(0.5)) for one in (alone, expecting)]
    assert picks["faint"][0] == 0
    assert picks["faint"][1] > 15
    assert picks["empty"] == [0, 0]
