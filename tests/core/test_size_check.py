"""A micrograph says when diameter, pixel size or contrast cannot be right."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cryoemmae_plugin.core.head import Head
from cryoemmae_plugin.core.picker import load_head
from cryoemmae_plugin.core.size_check import INVERTED, BetterFit, find_better_fit
from cryoemmae_plugin.run.plausibility import describe
from cryoemmae_plugin.settings import DEFAULT_MODEL, PickerSettings
from cryoemmae_plugin.simulate import SimulationSettings, simulate
from cryoemmae_plugin.weights import load_model

DIAMETER_PX = 40.0


@pytest.fixture(scope="module")
def head() -> Head:
    return load_head(load_model(DEFAULT_MODEL["default"]))


@pytest.fixture(scope="module")
def image() -> NDArray[np.float32]:
    scene = SimulationSettings(shape=(600, 640), particle="globular", pixel_size_A=4.0, diameter_A=160, n_particles=50)
    return simulate(scene, 5).image


def test_right_settings_raise_no_doubt(image: NDArray[np.float32], head: Head) -> None:
    assert find_better_fit(lambda: [(image, DIAMETER_PX)], head) is None


SPECIMENS = {
    "blobs": {"particle": "globular", "diameter_A": 160, "n_particles": 60},
    "rods": {"particle": "rod", "diameter_A": 220, "n_particles": 30},
    "L": {"particle": "l_shape", "diameter_A": 200, "n_particles": 35},
    "rings": {"particle": "ring", "diameter_A": 200, "n_particles": 35},
    "micelles": {"particle": "micelle", "diameter_A": 150, "n_particles": 50},
    "full viruses": {"particle": "full_capsid", "diameter_A": 280, "n_particles": 16},
    "empty viruses": {"particle": "empty_capsid", "diameter_A": 280, "n_particles": 16},
    "few particles": {"particle": "two_subunits", "diameter_A": 180, "n_particles": 3},
    "crowded": {"particle": "globular", "diameter_A": 150, "n_particles": 150, "min_distance": 0.95},
    "faint": {"particle": "trilobe", "diameter_A": 200, "n_particles": 30, "contrast": 0.5},
    "nothing but ice": {"n_particles": 0, "diameter_A": 160},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECIMENS)
def test_right_settings_raise_no_doubt_whatever_the_specimen(name: str, head: Head) -> None:
    scene = SimulationSettings(shape=(600, 640), pixel_size_A=4.0, **SPECIMENS[name])
    image = simulate(scene, 11).image
    assert find_better_fit(lambda: [(image, scene.diameter_px)], head) is None


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [0.5, 2.0])
def test_a_diameter_off_by_two_is_noticed(wrong: float, image: NDArray[np.float32], head: Head) -> None:
    fit = find_better_fit(lambda: [(image, wrong * DIAMETER_PX)], head)
    assert fit is not None
    assert not fit.inverted
    assert fit.factor * wrong == pytest.approx(1, rel=0.3)


def test_inverted_contrast_is_noticed(image: NDArray[np.float32], head: Head) -> None:
    assert find_better_fit(lambda: [(-image, DIAMETER_PX)], head) == INVERTED


@pytest.mark.slow
def test_what_single_micrographs_do_not_tell_several_tell(head: Head) -> None:
    """Six particles each: too few for a comparison on one of them."""
    scene = SimulationSettings(shape=(500, 500), pixel_size_A=4.0, particle="ring", diameter_A=200, n_particles=6)
    images = [simulate(scene, seed).image for seed in range(3)]
    fit = find_better_fit(lambda: [(image, 0.5 * scene.diameter_px) for image in images], head)
    assert fit is not None
    assert fit.factor == pytest.approx(2, rel=0.3)


@pytest.mark.slow
def test_averages_tell_a_diameter_that_is_too_large_where_the_head_does_not_mind(head: Head) -> None:
    scene = SimulationSettings(
        shape=(600, 700), pixel_size_A=4.0, particle="two_subunits", diameter_A=200, n_particles=40, contrast=0.45
    )
    fit = find_better_fit(lambda: [(simulate(scene, 3).image, 2 * scene.diameter_px)], head)
    assert fit is not None
    assert fit.factor == pytest.approx(0.55, rel=0.3)


def test_the_warning_names_the_values_that_would_fit() -> None:
    settings = PickerSettings(diameter_A=160.0)
    said = describe(BetterFit(0.5, inverted=False), 2.0, settings)
    assert "smaller than 160 Å at 2 Å/px" in said
    assert "$pixel_size_A, $diameter_A, $contrast" in said
    assert "a pixel size of 4 Å" in said
    assert "a diameter of 80 Å" in said
    assert "$contrast=bright" in describe(BetterFit(1.0, inverted=True), 2.0, settings)
