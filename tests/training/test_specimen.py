"""What a data set looks like, told from picks: views turned onto each other, noise, density, and micrographs of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from cryoemmae_plugin.core.class_averages import average_classes, soft_mask
from cryoemmae_plugin.core.crop_detection import CropDetections
from cryoemmae_plugin.core.default import GRID_DIAMETER_PX
from cryoemmae_plugin.training.specimen import (
    LEAST_SURE,
    REACH,
    RINGS,
    Specimen,
    contrast_lost,
    count_sure,
    describe_specimen,
    window_spectra,
)

MakeComma = Callable[..., NDArray[np.float32]]
MakeSighting = Callable[..., CropDetections]


@pytest.fixture(scope="module")
def specimen(detections: MakeSighting) -> Specimen:
    found = describe_specimen([detections(seed) for seed in range(4)])
    assert found is not None
    return found


def best_match(features: NDArray[np.float64], comma: MakeComma) -> float:
    """Highest correlation of a view with the comma in any orientation."""
    angles = np.arange(0, 2 * np.pi, np.pi / 36)
    commas = np.stack([comma(a, (REACH, REACH)).ravel() for a in angles])
    return float(np.max([np.corrcoef(features.ravel(), c)[0, 1] for c in commas]))


def test_views_are_turned_onto_each_other(specimen: Specimen, comma: MakeComma) -> None:
    assert specimen.shares.sum() == pytest.approx(1)
    largest = specimen.averages[specimen.shares.argmax()]
    assert best_match(largest, comma) > 0.9  # unaligned, an average of them is round: .6
    assert -largest[REACH - 10 : REACH + 11, REACH - 10 : REACH + 11].min() > 2


def test_too_few_sure_picks_say_nothing(detections: MakeSighting) -> None:
    few = detections(0, particles=30)
    assert count_sure([few]) < LEAST_SURE
    assert describe_specimen([few]) is None
    assert describe_specimen([]) is None
    faint = CropDetections(few.pixels, few.area, np.repeat(few.xy, 4, 0), np.full(120, 0.52, np.float32))
    assert describe_specimen([faint]) is None


def test_density_and_least_distance_are_those_of_the_picks(specimen: Specimen) -> None:
    true = 40 / (300 * 420 / GRID_DIAMETER_PX**2)
    assert specimen.density == pytest.approx(0.85 * 0.9 * true, rel=1e-6)
    assert 1.3 < specimen.closest < 40 / GRID_DIAMETER_PX


@pytest.mark.slow
def test_noise_is_what_the_particles_leave_and_junk_does_not_enter_it(detections: MakeSighting) -> None:
    clean = [detections(seed) for seed in range(4)]
    dirty = [CropDetections(seen.pixels.copy(), seen.area, seen.xy, seen.chance) for seen in clean]
    for seen in dirty:
        seen.pixels[:60, :60] -= 8 * gaussian_filter(np.random.default_rng(0).normal(0, 12, (60, 60)), 6)
    for detections in (clean, dirty):
        found = describe_specimen(detections)
        assert found is not None
        np.testing.assert_allclose(found.noise[6:-1], 1.0, atol=0.15)  # white, of variance 1
    rings = window_spectra(np.random.default_rng(1).normal(0, 2, (200, 130)).astype(np.float32))
    assert rings.shape[1] == RINGS
    np.testing.assert_allclose(np.median(rings, 0)[2:-1], 4.0, rtol=0.25)


def test_windows_that_are_no_image_are_left_out() -> None:
    pixels = np.random.default_rng(1).normal(0, 2, (96, 200)).astype(np.float32)
    pixels[:, 100:] = 0
    assert len(window_spectra(pixels)) == len(window_spectra(pixels[:, :100]))
    assert window_spectra(np.zeros((96, 96), np.float32)).shape == (0, RINGS)


def test_contrast_that_averaging_loses_is_given_back(comma: MakeComma) -> None:
    rng = np.random.default_rng(3)
    views = np.stack([comma(a, (REACH, REACH)) for a in rng.uniform(0, 2 * np.pi, 200)])
    empty = rng.normal(0, 1, views.shape).astype(np.float32)
    sure = views + rng.normal(0, 1, views.shape).astype(np.float32)
    aligned = np.stack([comma(0, (REACH, REACH))]).astype(float)
    one = np.ones(1)
    assert contrast_lost(aligned, one, sure, empty) == pytest.approx(1.0, abs=0.1)
    assert contrast_lost(aligned / 1.4, one, sure, empty) == pytest.approx(1.4, abs=0.1)
    assert contrast_lost(aligned / 9, one, sure, empty) == 2.0
    assert contrast_lost(aligned / 1.4, one, sure, empty[:5]) == 1.0


def test_a_drawn_micrograph_has_its_particles_where_it_says(specimen: Specimen) -> None:
    quiet = Specimen(specimen.averages, specimen.shares, specimen.noise * 1e-4, 0.1, 1.6)
    pixels, centres = quiet.draw(300, np.random.default_rng(5))
    assert pixels.shape == (300, 300)
    assert 8 < len(centres) < 30
    assert cKDTree(centres).query(centres, k=2)[0][:, 1].min() >= 1.6 * GRID_DIAMETER_PX - 1e-9
    y, x = np.mgrid[:300, :300]
    for cx, cy in centres[((centres > 26) & (centres < 274)).all(1)]:
        disc = np.hypot(x - cx, y - cy) < 0.6 * GRID_DIAMETER_PX
        weight = np.where(disc, np.clip(-pixels, 0, None), 0)
        middle = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
        assert np.hypot(*(middle - (cx, cy))) < 5  # the head of the comma draws it to one side
        assert weight.sum() / np.clip(-pixels, 0, None)[disc].size > 0.1
    again, same = quiet.draw(300, np.random.default_rng(5))
    np.testing.assert_array_equal(pixels, again)
    np.testing.assert_array_equal(centres, same)


def test_equal_seeds_make_equal_averages(comma: MakeComma) -> None:
    patches = np.stack([comma(a, (REACH, REACH)) for a in np.linspace(0, 6, 90)])
    one, other = (average_classes(patches, soft_mask(0.55), np.random.default_rng(2))[0] for _ in range(2))
    np.testing.assert_array_equal(one, other)
