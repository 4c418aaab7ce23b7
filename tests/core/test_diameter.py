"""The particle's diameter from micrographs alone, on simulated ones."""

from __future__ import annotations

import numpy as np
import pytest

from cryoemmae_plugin import load_model
from cryoemmae_plugin.core.diameter import (
    LEAST_PARTICLES,
    SIZES_A,
    DiameterEstimate,
    SizeScan,
    estimate_diameter,
    scan_sizes,
)
from cryoemmae_plugin.core.head import Head
from cryoemmae_plugin.core.picker import load_head
from cryoemmae_plugin.errors import CannotTellError
from cryoemmae_plugin.simulate import SimulationSettings, simulate
from cryoemmae_plugin.simulate.shapes import ParticleShape

EASY = {"shape": (800, 900), "pixel_size_A": 4.0, "n_particles": 80, "defocus_um": 1.8, "min_distance": 1.1}


@pytest.fixture(scope="module")
def head() -> Head:
    return load_head(load_model("emmae-base"))


def scans(head: Head, particle: ParticleShape, diameter_A: float, count: int = 1, **settings: object) -> list[SizeScan]:
    scene = SimulationSettings(**{**EASY, "particle": particle, "diameter_A": diameter_A, **settings})
    return [scan_sizes(simulate(scene, 77 + seed).image, 4.0, head) for seed in range(count)]


def estimate(head: Head, particle: ParticleShape, diameter_A: float, **settings: object) -> DiameterEstimate:
    return estimate_diameter(scans(head, particle, diameter_A, **settings))


def made_up(heights: dict[int, float], particles: int = 100) -> SizeScan:
    """A scan that saw so much at some of the sizes, given by number, and little at all others."""
    sureness = np.full(len(SIZES_A), 1.0)
    sureness[list(heights)] = list(heights.values())
    return SizeScan(sureness, np.full(len(SIZES_A), particles), np.full(len(SIZES_A), 1e6))


@pytest.mark.parametrize(
    ("particle", "diameter_A"),
    [
        ("globular", 140.0),
        ("barrel", 180.0),
        ("shell", 170.0),
        ("tetramer", 200.0),
        ("two_subunits", 260.0),
        ("trilobe", 220.0),
    ],
)
def test_the_longest_extent_of_simulated_particles_is_found(
    head: Head, particle: ParticleShape, diameter_A: float
) -> None:
    found = estimate(head, particle, diameter_A)
    assert found.diameter_A == pytest.approx(diameter_A, rel=0.12)
    assert found.particles > LEAST_PARTICLES
    assert max(height for _, height in found.curve) == 1.0


def test_the_same_micrographs_give_the_same_number(head: Head) -> None:
    first, second = (estimate(head, "barrel", 180.0, shape=(700, 700)) for _ in range(2))
    assert first == second


def test_bright_particles_are_measured_like_dark_ones(head: Head) -> None:
    scene = SimulationSettings(**EASY, particle="barrel", diameter_A=180.0)
    image = simulate(scene, 77).image
    dark, bright = scan_sizes(image, 4.0, head), scan_sizes(-image, 4.0, head, bright=True)
    np.testing.assert_allclose(bright.sureness, dark.sureness)


def test_the_particle_is_measured_not_the_contamination_beside_it(head: Head) -> None:
    found = estimate(head, "barrel", 180.0, frost=3, crystals=1, shape=(1000, 1100))
    assert found.diameter_A == pytest.approx(180.0, rel=0.15)


def test_empty_ice_is_told_from_particles(head: Head) -> None:
    with pytest.raises(CannotTellError, match=r"no particles stand out in 1 micrograph.*--diameter"):
        estimate(head, "barrel", 180.0, n_particles=0)


def test_frames_too_small_for_any_size_are_no_reason_to_guess(head: Head) -> None:
    noise = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)
    scan = scan_sizes(noise, 1.0, head)
    assert np.isnan(scan.sureness).all()
    with pytest.raises(CannotTellError, match="--diameter"):
        estimate_diameter([scan])


def test_of_rival_peaks_the_larger_diameter_is_the_particles() -> None:
    rivals = estimate_diameter([made_up({4: 500.0, 9: 470.0})])
    alone = estimate_diameter([made_up({4: 500.0, 9: 200.0})])
    assert rivals.diameter_A / alone.diameter_A == pytest.approx(SIZES_A[9] / SIZES_A[4])


def test_between_two_sizes_the_peak_is_interpolated() -> None:
    middle, leaning = (estimate_diameter([made_up({8: 300.0, 9: 400.0, 10: high})]) for high in (300.0, 400.0))
    assert leaning.diameter_A / middle.diameter_A == pytest.approx((SIZES_A[10] / SIZES_A[9]) ** 0.5)


def test_particles_at_the_end_of_what_can_be_seen_are_not_guessed() -> None:
    with pytest.raises(CannotTellError, match="larger than"):
        estimate_diameter([made_up({len(SIZES_A) - 1: 400.0})])
    with pytest.raises(CannotTellError, match="smaller than"):
        estimate_diameter([made_up({0: 400.0})])


def test_a_handful_is_too_few() -> None:
    with pytest.raises(CannotTellError, match="no particles stand out"):
        estimate_diameter([made_up({9: 400.0}, particles=LEAST_PARTICLES - 1)])


@pytest.mark.parametrize("first", [12, 9])
def test_a_size_that_one_micrograph_is_too_small_for_is_judged_by_the_others(first: int) -> None:
    whole, part = made_up({9: 400.0}), made_up({9: 400.0})
    part.sureness[first:] = part.area[first:] = np.nan
    part.particles[first:] = 0
    assert estimate_diameter([whole, part]).diameter_A == estimate_diameter([whole]).diameter_A


def test_many_faint_ones_are_noise() -> None:
    with pytest.raises(CannotTellError, match="no particles stand out"):
        estimate_diameter([made_up({9: 190.0})])
