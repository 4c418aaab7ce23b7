"""Two opinions on a centre: how far the head's is drawn to the matched filter's."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cryoemmae_plugin.core.default import CENTRE_SHARE, GRID_DIAMETER_PX, refine_centres

SHAPE = (200, 260)
MAXIMA = np.array([[40.0, 30.0], [110.0, 60.0], [200.0, 90.0], [60.0, 150.0]])
EAST = np.array([1.0, 0.0])


def response(height: float = 5.0) -> torch.Tensor:
    """Bumps about the maxima (x, y), some of them above the limits of what the head is shown."""
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]]
    bumps = [np.exp(-((column - x) ** 2 + (row - y) ** 2) / 50) for x, y in MAXIMA]
    return torch.from_numpy(height * np.sum(bumps, axis=0) - 0.1).float()


def drawn(
    xy: NDArray[np.float64], chance: NDArray[np.float64] | None = None, height: float = 5.0
) -> NDArray[np.float64]:
    chances = np.full(len(xy), 0.9) if chance is None else chance
    return refine_centres(xy, chances.astype(np.float32), response(height), GRID_DIAMETER_PX)


def test_where_the_two_agree_a_centre_is_drawn_by_its_share() -> None:
    for height in (5.0, 40.0):  # of strong responses the maximum is known, too
        xy = drawn(MAXIMA + 0.8 * EAST, height=height)
        np.testing.assert_allclose(xy, MAXIMA + 0.8 * (1 - CENTRE_SHARE) * EAST, atol=0.02)


def test_where_they_differ_the_template_has_no_say() -> None:
    signs = np.array([1, -1, 1, -1])[:, None]
    np.testing.assert_array_equal(drawn(MAXIMA + 3 * signs * EAST), MAXIMA + 3 * signs * EAST)
    between = drawn(MAXIMA + 1.7 * signs * EAST)
    moved = np.abs(between - MAXIMA - 1.7 * signs * EAST).max()
    assert 0.1 < moved < 1.7 * CENTRE_SHARE


def test_what_is_hardly_a_particle_hardly_counts_in_that() -> None:
    xy = MAXIMA + np.array([0.5, 0.5, 0.5, 4.0])[:, None] * EAST
    assert np.array_equal(drawn(xy), xy)
    assert not np.array_equal(drawn(xy, np.array([0.9, 0.9, 0.9, 0.02])), xy)


def test_centres_far_from_every_maximum_stay() -> None:
    xy = np.vstack([MAXIMA[:2] + 0.5 * EAST, [[150.0, 150.0]]])
    assert np.array_equal(drawn(xy)[2], xy[2])
    assert not np.array_equal(drawn(xy)[:2], xy[:2])
    assert np.array_equal(drawn(xy[2:]), xy[2:])
    assert drawn(np.zeros((0, 2))).shape == (0, 2)
