"""What the dark blobs of one size look like on average."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cryoemmae_plugin.core.blobs import RADII, SHIFTS, average_blobs, pool
from cryoemmae_plugin.core.sizes import make_levels

PIXEL_A = 4.0


def bars(length_A: float, width_A: float, noise: float = 0.5) -> NDArray[np.float32]:
    """Dark bars of random orientation; a bar as long as wide is a square."""
    rng = np.random.default_rng(1)
    image = rng.normal(scale=noise, size=(640, 640)).astype(np.float32)
    y, x = np.mgrid[:640, :640] * PIXEL_A
    for at in range(49):
        angle = rng.uniform(0, np.pi)
        dx, dy = x - (at % 7 + 0.7) * 340, y - (at // 7 + 0.7) * 340
        along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        image[(np.abs(along) < length_A / 2) & (np.abs(across) < width_A / 2)] -= 1
    return image


def test_the_mean_falls_off_where_the_particle_ends() -> None:
    profile = average_blobs(make_levels(bars(120, 120), PIXEL_A), 120.0)
    assert profile is not None
    assert profile.blobs == pytest.approx(49, abs=5)
    height = profile.mean[:3].mean()
    assert profile.mean[RADII < 0.35].min() > 0.6 * height
    assert np.abs(profile.mean[RADII > 0.8]).max() < 0.25 * height


def test_long_particles_have_the_second_order_round_ones_have_none() -> None:
    round_ones = average_blobs(make_levels(bars(100, 100), PIXEL_A), 120.0)
    long_ones = average_blobs(make_levels(bars(200, 60), PIXEL_A), 120.0)
    assert round_ones is not None
    assert long_ones is not None
    relative = [p.orders[:, 1].max() / p.mean[:3].mean() ** 2 for p in (round_ones, long_ones)]
    assert relative[1] > 3 * relative[0]


def test_a_particle_overlaps_with_itself_as_far_as_it_reaches() -> None:
    shorter, longer = (average_blobs(make_levels(bars(length, 60), PIXEL_A), 120.0) for length in (70, 220))
    assert shorter is not None
    assert longer is not None
    at_80_A = np.argmin(np.abs(SHIFTS - 80 / 120))
    assert shorter.overlap[at_80_A] / shorter.overlap[1] < 0.05
    assert longer.overlap[at_80_A] / longer.overlap[1] > 0.1


def test_nothing_is_averaged_at_a_size_that_cannot_be_looked_at() -> None:
    assert average_blobs(make_levels(bars(120, 120), PIXEL_A), 5000.0) is None


def test_micrographs_are_pooled_by_their_blobs() -> None:
    profile = average_blobs(make_levels(bars(120, 120), PIXEL_A), 120.0)
    assert profile is not None
    other = replace(profile, blobs=3 * profile.blobs, mean=profile.mean + 4)
    both = pool([profile, None, other])
    assert both is not None
    assert both.blobs == 4 * profile.blobs
    np.testing.assert_allclose(both.mean, profile.mean + 3)
    assert pool([None]) is None
