"""Averages of picks, and how far they extend."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cryoemmae_plugin.core.class_averages import REACH, average_classes, cut_patches, longest_extent, soft_mask

Y, X = np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1]
RADIUS = np.hypot(X, Y)
DISC = -(RADIUS <= 12).astype(float)
RING = -((RADIUS <= 12) & (RADIUS >= 8)).astype(float)
ROD = -((abs(X) <= 12) & (abs(Y) <= 3)).astype(float)
HALO = 0.3 * np.exp(-(((RADIUS - 15) / 1.5) ** 2))


def extent(*views: NDArray[np.float64], shares: tuple[float, ...] = (1.0,)) -> float:
    return longest_extent(np.stack(views) * soft_mask(0.8).numpy(), np.array(shares))


@pytest.mark.parametrize("view", [DISC, RING, ROD, DISC + HALO, gaussian_filter(RING, 1.0)])
def test_the_extent_is_the_longest_there_is(view: NDArray[np.float64]) -> None:
    assert 1.0 < extent(view) < 1.2  # edges of these are sharp, those of particles are not


def test_neighbours_do_not_count() -> None:
    neighbour = -(np.hypot(X - 24, Y) <= 8).astype(float)
    assert extent(DISC + HALO + neighbour) == pytest.approx(extent(DISC + HALO), rel=0.12)


def test_most_views_show_less_than_the_longest_extent_and_junk_shows_more() -> None:
    end_on, carbon = -(RADIUS <= 3).astype(float), -(X < 6).astype(float)
    alone = extent(ROD)
    assert extent(end_on, ROD, carbon, shares=(0.3, 0.5, 0.2)) == alone
    assert extent(end_on, ROD, carbon, shares=(0.1, 0.2, 0.7)) > 1.2 * alone


def test_patches_are_centred_and_zero_beyond_the_frame() -> None:
    pixels = np.ones((60, 90), np.float32)
    pixels[30, 70] = 5
    middle, corner = cut_patches(pixels, np.array([[70.0, 30.0], [0.0, 0.0]]))
    assert np.unravel_index(middle.argmax(), middle.shape) == (REACH, REACH)
    assert (corner[:REACH] == 0).all()
    assert (corner[:, :REACH] == 0).all()
    assert (corner[REACH:, REACH:] == 1).all()


def test_patches_are_turned_onto_each_other() -> None:
    rng = np.random.default_rng(3)
    angle = rng.uniform(0, 2 * np.pi, (120, 1, 1))
    along, across = X * np.cos(angle) + Y * np.sin(angle), Y * np.cos(angle) - X * np.sin(angle)
    rods = -((abs(along) <= 12) & (abs(across) <= 3)).astype(np.float32)
    averages, shares = average_classes(rods + rng.normal(0, 0.5, rods.shape).astype(np.float32), soft_mask(0.8), rng)
    assert shares.sum() == pytest.approx(1)
    darkest = averages[shares.argmax()]
    assert darkest.min() < -0.7
    assert 1.0 < longest_extent(averages, shares) < 1.2
