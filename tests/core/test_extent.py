"""From the average blob to the particle's extent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryoemmae_plugin.core.blobs import ORDERS, RADII, SHIFTS, Profile
from cryoemmae_plugin.core.extent import ExtentNetwork, measure_profile


def profile(reach: float = 0.5, height: float = 1.0) -> Profile:
    """A round blob that reaches so far."""
    return Profile(
        blobs=50,
        mean=height * np.exp(-((RADII / reach) ** 2)),
        spread=np.full(len(RADII), 0.01 * height**2),
        orders=np.zeros((len(RADII), ORDERS)),
        overlap=height**2 * np.exp(-0.5 * (SHIFTS / reach) ** 2),
        density=0.2,
        noise=0.3,
    )


def test_measurements_fit_the_shipped_network_which_sees_what_reaches_farther() -> None:
    network = ExtentNetwork.shipped()
    narrow, wide = (measure_profile(profile(reach)) for reach in (0.25, 0.5))
    assert narrow is not None
    assert wide is not None
    assert network.log_ratio(wide) > network.log_ratio(narrow) + 0.2


def test_all_but_four_measurements_are_relative_to_the_blobs_height() -> None:
    one, other = measure_profile(profile()), measure_profile(profile(height=3.0))
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(one[:-4], other[:-4])


@pytest.mark.parametrize("values", [{"blobs": 2}, {"mean": -np.ones(len(RADII))}, {"overlap": np.zeros(len(SHIFTS))}])
def test_what_is_hardly_a_blob_is_not_measured(values: dict[str, object]) -> None:
    assert measure_profile(replace(profile(), **values)) is None  # type: ignore[arg-type]


def test_the_network_averages_its_perceptrons_and_survives_a_round_trip_through_its_file() -> None:
    from safetensors.numpy import load

    arrays = {
        "centre": np.array([1.0, 2.0]),
        "scale": np.array([2.0, 1.0]),
        "hidden": np.array([[[1.0, 0.0]], [[0.0, 1.0]]]),
        "hidden_bias": np.array([[0.0], [0.5]]),
        "out": np.array([[2.0], [4.0]]),
        "out_bias": np.array([0.25, -0.25]),
    }
    measured = np.array([2.0, 2.5])
    expected = 0.5 * (2 * np.tanh(0.5) + 0.25 + 4 * np.tanh(1.0) - 0.25)
    network = ExtentNetwork(arrays)
    assert network.log_ratio(measured) == pytest.approx(expected)
    assert ExtentNetwork(load(network.to_bytes())).log_ratio(measured) == pytest.approx(expected, abs=1e-6)
