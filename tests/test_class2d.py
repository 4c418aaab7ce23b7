"""The downstream benchmark's rule: averages of the particle are told from anything else, and halves are compared."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, rotate, shift

SIDE, DIAMETER_PX = 40, 24.0
Image = NDArray[np.float64]


@pytest.fixture
def quality(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(repository / "benchmarks")
    return importlib.import_module("class_quality")


def particle() -> Image:
    """Three blobs that no turn or mirror maps onto themselves."""
    image = np.zeros((SIDE, SIDE))
    for (y, x), weight in {(20, 12): 1.0, (20, 27): 0.6, (13, 24): 0.8}.items():
        image[y, x] = weight
    return np.asarray(gaussian_filter(image, 2.5) * 40)


def edge() -> Image:
    image = np.zeros((SIDE, SIDE))
    image[:, SIDE // 2 :] = 1
    return np.asarray(gaussian_filter(image, 3))


def test_an_average_of_the_particle_is_known_turned_mirrored_and_shifted(quality: ModuleType) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, (SIDE, SIDE))
    moved = shift(rotate(particle()[:, ::-1], 137, reshape=False, order=1), (2, -2), order=1) + noise
    assert quality.likeness(moved, particle()[None], DIAMETER_PX) > quality.LEAST_LIKENESS


def test_edges_noise_and_another_particle_are_not(quality: ModuleType) -> None:
    noise = gaussian_filter(np.random.default_rng(1).normal(0, 1, (SIDE, SIDE)), 1.5)
    pair = particle() * (np.arange(SIDE) < 18)
    for other in (edge(), noise, pair):
        assert quality.likeness(other, particle()[None], DIAMETER_PX) < quality.LEAST_LIKENESS


def test_known_averages_are_those_of_enough_particles(quality: ModuleType) -> None:
    averages = np.arange(3)[:, None, None] * np.ones((3, 4, 4))
    kind = np.array([0] * 90 + [1] * 1 + [2] * 9)
    assert quality.known_averages(averages, kind)[:, 0, 0].tolist() == [0, 2]


def test_halves_of_aligned_particles_agree_and_those_of_noise_do_not(quality: ModuleType) -> None:
    rng = np.random.default_rng(2)
    psi, origin = rng.uniform(0, 360, 60), rng.integers(-2, 3, (60, 2)).astype(float)
    images = np.array(
        [
            shift(_turned(particle(), angle), -at[::-1], order=1) + rng.normal(0, 0.3, (SIDE, SIDE))
            for angle, at in zip(psi, origin, strict=True)
        ]
    )
    one, other = quality.half_averages(images, psi, origin, seed=0)
    assert quality.likeness(one, particle()[None], DIAMETER_PX) > 0.95
    frc = quality.ring_correlation(one, other)
    assert frc[1:5].min() > 0.9
    assert quality.resolution_at(frc, SIDE, 2.0) < 16
    nothing = rng.normal(0, 1, (2, SIDE, SIDE))
    assert quality.resolution_at(quality.ring_correlation(*nothing), SIDE, 2.0) > 16


def _turned(image: Image, psi_deg: float) -> Image:
    """A particle that RELION's angle turns onto the image, about the pixel SIDE // 2."""
    angle = np.deg2rad(psi_deg)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    across, down = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    return np.asarray(map_coordinates(image, [down + SIDE // 2, across + SIDE // 2], order=1))


def test_identical_images_correlate_everywhere(quality: ModuleType) -> None:
    image = np.random.default_rng(3).normal(0, 1, (SIDE, SIDE))
    frc = quality.ring_correlation(image, image)
    assert np.allclose(frc, 1)
    assert quality.resolution_at(frc, SIDE, 2.0) == pytest.approx(4.0)  # Nyquist
    assert quality.resolution_at([1, 1, 0.5, 0.1, 0.9], SIDE, 2.0) == pytest.approx(
        80 / 2
    )  # of the last ring before it falls
