"""The particle's diameter from micrographs alone, on simulated ones."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cryoemmae_plugin import load_model
from cryoemmae_plugin.core.diameter import (
    LEAST_PARTICLES,
    SIZES_A,
    DiameterEstimate,
    SizeScan,
    estimate_diameter,
    likely_particles,
    measure_extent,
    refine_diameter,
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


def images(particle: ParticleShape, diameter_A: float, count: int = 1, **settings: object) -> list[NDArray[np.float32]]:
    scene = SimulationSettings(**{**EASY, "particle": particle, "diameter_A": diameter_A, **settings})
    return [simulate(scene, 77 + seed).image for seed in range(count)]


def estimate(head: Head, particle: ParticleShape, diameter_A: float, **settings: object) -> DiameterEstimate:
    seen = images(particle, diameter_A, **settings)
    found = estimate_diameter([scan_sizes(image, 4.0, head) for image in seen])
    return measure_extent(found, lambda diameter_A: [likely_particles(image, 4.0, diameter_A, head) for image in seen])


@pytest.fixture(scope="module")
def barrels(head: Head) -> tuple[NDArray[np.float32], SizeScan, NDArray[np.float32]]:
    """A micrograph of barrels of 180 Å, its scan, and its patches."""
    (image,) = images("barrel", 180.0, shape=(500, 560), n_particles=50)
    return image, scan_sizes(image, 4.0, head), likely_particles(image, 4.0, 180.0, head).patches


def made_up(heights: dict[int, float], particles: int = 100) -> SizeScan:
    """A scan that saw so much at some of the sizes, given by number, and little at all others."""
    confidence = np.full(len(SIZES_A), 1.0)
    confidence[list(heights)] = list(heights.values())
    return SizeScan(confidence, np.full(len(SIZES_A), particles), np.full(len(SIZES_A), 1e6))


def bars(long: float, wide: float, count: int = 120) -> NDArray[np.float32]:
    """Patches of dark bars, so long and wide in grid pixels, turned at random, under noise."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[-24:25, -24:25]
    angle = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    bar = (abs(along) <= long / 2) & (abs(across) <= wide / 2)
    return (rng.normal(0, 0.3, bar.shape) - bar).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("particle", "diameter_A", "scene"),
    [
        ("globular", 140.0, {"shape": (420, 455), "n_particles": 55}),
        ("barrel", 180.0, {"shape": (540, 585), "n_particles": 55}),
        ("shell", 170.0, {"shape": (510, 552), "n_particles": 55}),
        ("tetramer", 200.0, {}),
        ("two_subunits", 260.0, {}),
        ("trilobe", 220.0, {}),
        ("rod", 240.0, {}),
    ],
)
def test_the_longest_extent_of_simulated_particles_is_found(
    head: Head, particle: ParticleShape, diameter_A: float, scene: dict[str, object]
) -> None:
    found = estimate(head, particle, diameter_A, **scene)
    assert found.diameter_A == pytest.approx(diameter_A, rel=0.12)
    assert found.particles > LEAST_PARTICLES
    assert max(height for _, height in found.curve) == 1.0


def test_particles_longer_than_they_seem_are_measured_on_their_averages() -> None:
    seen = DiameterEstimate(100.0, 0.1, 300, ((100.0, 1.0),))
    patches = bars(long=32, wide=12)
    found = refine_diameter(seen, [patches[:70], patches[:0], patches[70:]])
    assert found.extent_A is not None
    assert 1.0 < found.extent_A / (32 / 24 * 100) < 1.2  # their edges are sharp, those of particles are not
    assert found.diameter_A == found.extent_A
    assert (found.error, found.particles, found.curve) == (seen.error, seen.particles, seen.curve)


def test_a_few_picks_do_not_correct_an_estimate() -> None:
    seen = DiameterEstimate(100.0, 0.1, 30, ((100.0, 1.0),))
    assert refine_diameter(seen, [bars(long=32, wide=12)[:39]]) == seen
    assert refine_diameter(seen, []) == seen


@pytest.mark.parametrize("diameter_A", [7.0, 30.0])
def test_a_micrograph_that_the_particle_does_not_fit_says_nothing(head: Head, diameter_A: float) -> None:
    noise = np.random.default_rng(0).normal(size=(100, 120)).astype(np.float32)
    assert likely_particles(noise, 1.0, diameter_A, head).patches.shape == (0, 49, 49)


@pytest.mark.slow
def test_the_same_micrographs_give_the_same_number(
    head: Head, barrels: tuple[NDArray[np.float32], SizeScan, NDArray[np.float32]]
) -> None:
    image, *before = barrels
    now = scan_sizes(image, 4.0, head), likely_particles(image, 4.0, 180.0, head).patches
    first, second = (refine_diameter(estimate_diameter([scan]), [patches]) for scan, patches in (before, now))
    assert first == second


@pytest.mark.slow
def test_bright_particles_are_measured_like_dark_ones(
    head: Head, barrels: tuple[NDArray[np.float32], SizeScan, NDArray[np.float32]]
) -> None:
    image, dark, dark_patches = barrels
    np.testing.assert_allclose(scan_sizes(-image, 4.0, head, bright=True).confidence, dark.confidence)
    patches = likely_particles(-image, 4.0, 180.0, head, bright=True).patches
    np.testing.assert_allclose(patches, dark_patches)
    assert len(patches) > 20
    assert patches[:, 24, 24].mean() < patches[:, 0, 0].mean()


@pytest.mark.slow
def test_the_particle_is_measured_not_the_contamination_beside_it(head: Head) -> None:
    found = estimate(head, "barrel", 180.0, frost=3, crystals=1, shape=(640, 700), n_particles=50)
    assert found.diameter_A == pytest.approx(180.0, rel=0.15)


@pytest.mark.slow
def test_empty_ice_is_told_from_particles(head: Head) -> None:
    with pytest.raises(CannotTellError, match=r"no particles stand out in 1 micrograph.*diameter_A"):
        estimate(head, "barrel", 180.0, shape=(500, 560), n_particles=0)


def test_frames_too_small_for_any_size_are_no_reason_to_guess(head: Head) -> None:
    noise = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)
    scan = scan_sizes(noise, 1.0, head)
    assert np.isnan(scan.confidence).all()
    with pytest.raises(CannotTellError, match="diameter_A"):
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
    part.confidence[first:] = part.area[first:] = np.nan
    part.particles[first:] = 0
    assert estimate_diameter([whole, part]).diameter_A == estimate_diameter([whole]).diameter_A


def test_many_faint_ones_are_noise() -> None:
    with pytest.raises(CannotTellError, match="no particles stand out"):
        estimate_diameter([made_up({9: 190.0})])
