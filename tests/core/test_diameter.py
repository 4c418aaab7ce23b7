"""The particle's diameter from micrographs alone, on simulated ones."""

from __future__ import annotations

import numpy as np
import pytest

from cryoemmae_plugin.core.diameter import DiameterEstimate, estimate_diameter
from cryoemmae_plugin.core.sizes import SizeScan, scan_sizes
from cryoemmae_plugin.errors import CannotTellError
from cryoemmae_plugin.simulate import SimulationSettings, simulate
from cryoemmae_plugin.simulate.shapes import ParticleShape

EASY = {"shape": (800, 900), "pixel_size_A": 4.0, "n_particles": 80, "defocus_um": 1.8, "min_distance": 1.1}


def scans(particle: ParticleShape, diameter_A: float, count: int = 2, **settings: object) -> list[SizeScan]:
    scene = SimulationSettings(**{**EASY, "particle": particle, "diameter_A": diameter_A, **settings})
    return [scan_sizes(simulate(scene, 77 + seed).image, 4.0) for seed in range(count)]


def estimate(particle: ParticleShape, diameter_A: float, **settings: object) -> DiameterEstimate:
    return estimate_diameter(scans(particle, diameter_A, **settings))


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
def test_the_longest_extent_of_simulated_particles_is_found(particle: ParticleShape, diameter_A: float) -> None:
    found = estimate(particle, diameter_A)
    assert found.diameter_A == pytest.approx(diameter_A, rel=0.15)
    assert found.error >= 0.08
    assert found.particles > 30


def test_the_same_micrographs_give_the_same_number() -> None:
    looked_at = scans("barrel", 180.0)
    assert estimate_diameter(looked_at) == estimate_diameter(looked_at)


def test_the_particle_is_measured_not_the_contamination_beside_it() -> None:
    found = estimate("barrel", 180.0, frost=3, crystals=1, shape=(1000, 1100))
    assert found.diameter_A == pytest.approx(180.0, rel=0.2)


def test_empty_ice_is_told_from_particles() -> None:
    with pytest.raises(CannotTellError, match=r"no particles stand out in 2 micrographs.*--diameter"):
        estimate("barrel", 180.0, n_particles=0)


def test_frames_too_small_for_any_size_are_no_reason_to_guess() -> None:
    noise = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)
    with pytest.raises(CannotTellError, match="--diameter"):
        estimate_diameter([scan_sizes(noise, 1.0)])
