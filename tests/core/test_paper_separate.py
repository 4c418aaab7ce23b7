"""Particles of a mask, whatever share of the area they cover: crowded ones, and rings."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryoemmae_plugin.core.paper.components import find_particles
from cryoemmae_plugin.core.paper.separate import separate_particles, share_of_disc

DIAMETER_CELLS = 16
CENTRES = np.array([(x, y) for y in range(20, 110, 17) for x in range(20, 110, 17)], float)
"""Of particles that touch, in cells."""
APART = np.array([(x, y) for y in range(20, 110, 24) for x in range(20, 110, 24)], float)


def draw(centres: NDArray[np.float64] = CENTRES, inner: float = 0.0, opening: float = 0.0) -> torch.Tensor:
    """A mask of discs, or of rings, each broken in two by gaps over this angle."""
    y, x = np.mgrid[:128, :128].astype(float)
    mask = np.zeros((128, 128), bool)
    for at, (cx, cy) in enumerate(centres):
        radius, angle = np.hypot(x - cx, y - cy), (np.arctan2(y - cy, x - cx) + at) % (2 * np.pi)
        mask |= (radius <= DIAMETER_CELLS / 2) & (radius >= inner) & (angle % np.pi >= opening)
    return torch.from_numpy(mask)


def errors(xy: NDArray[np.float64], centres: NDArray[np.float64] = CENTRES) -> NDArray[np.float64]:
    """Distance of each true centre from the nearest that was found, in diameters."""
    return np.asarray(cKDTree((xy - 0.5) / 2).query(centres)[0] / DIAMETER_CELLS)


def test_particles_that_touch_are_found_one_by_one() -> None:
    xy, score = separate_particles(draw(), 2 * DIAMETER_CELLS)
    assert len(xy) == len(CENTRES)
    assert errors(xy).max() < 0.1
    assert score.min() > 0.9


def test_the_parts_of_a_broken_ring_are_one_particle() -> None:
    mask = draw(APART, inner=4.0, opening=0.7)
    xy, _ = separate_particles(mask, 2 * DIAMETER_CELLS)
    assert len(xy) == len(APART)
    assert errors(xy, APART).max() < 0.2
    published = find_particles(mask, 2 * DIAMETER_CELLS)
    assert errors(published.xy, APART).mean() > 2 * errors(xy, APART).mean()


def test_there_is_nothing_in_an_empty_mask_nor_in_a_full_one() -> None:
    for mask in (torch.zeros(64, 64, dtype=torch.bool), torch.ones(64, 64, dtype=torch.bool)):
        xy, score = separate_particles(mask, 20)
        assert xy.shape == (0, 2)
        assert score.shape == (0,)


def test_large_components_go_when_asked() -> None:
    mask = draw()
    mask[:] = False
    mask[20:80, 20:80] = True
    mask[96:112, 96:112] = True
    assert len(separate_particles(mask, 2 * DIAMETER_CELLS)[0]) == 2
    assert len(separate_particles(mask, 2 * DIAMETER_CELLS, max_radius_ratio=1.5)[0]) == 1


def test_the_share_of_a_disc_is_one_inside_and_nothing_counts_beyond_the_border() -> None:
    share = share_of_disc(torch.ones(40, 60, dtype=torch.bool), 16)
    assert share.shape == (80, 120)
    np.testing.assert_allclose(share[20:60, 20:100], 1.0, rtol=1e-6)
    assert 0.2 < share[0, 0] < 0.35
