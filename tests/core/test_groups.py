"""Groups of picks: what looks alike is one group, each pick finds its own, and what a group shows has a name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, rotate

from cryoemmae_plugin.core.class_averages import REACH
from cryoemmae_plugin.core.groups import EDGE, ICE, LEAST_PICKS, PARTICLE, Groups, make_groups

SIDE = 2 * REACH + 1
Image = NDArray[np.float32]


def bar(contrast: float = 1.0) -> Image:
    """A dark elongated particle."""
    image = np.zeros((SIDE, SIDE), np.float32)
    image[REACH - 4 : REACH + 5, REACH - 11 : REACH + 12] = -contrast
    return np.asarray(gaussian_filter(image, 1.5), np.float32)


def disc(contrast: float = 6.0) -> Image:
    line = np.arange(-REACH, REACH + 1)
    return np.asarray(gaussian_filter(-contrast * (np.hypot(line[:, None], line) < 10.0), 1.0), np.float32)


def edge() -> Image:
    image = np.zeros((SIDE, SIDE), np.float32)
    image[:REACH] = -1.0
    return np.asarray(gaussian_filter(image, 6.0), np.float32)


def seen(image: Image, count: int, rng: np.random.Generator) -> Image:
    """The image at random orientations, in noise."""
    turned = [rotate(image, rng.uniform(0, 360), reshape=False, order=1, mode="nearest") for _ in range(count)]
    return np.asarray(np.stack(turned) + rng.normal(0, 0.5, (count, SIDE, SIDE)), np.float32)


@pytest.fixture(scope="module")
def mixture() -> tuple[Image, NDArray[np.str_]]:
    """Patches of three kinds, and what each is."""
    rng = np.random.default_rng(0)
    kinds = {PARTICLE: (bar(), 240), EDGE: (edge(), 60), ICE: (disc(), 60)}
    patches = np.concatenate([seen(image, count, rng) for image, count in kinds.values()])
    return patches, np.repeat(list(kinds), [count for _, count in kinds.values()])


@pytest.fixture(scope="module")
def groups(mixture: tuple[Image, NDArray[np.str_]]) -> Groups:
    made = make_groups(mixture[0])
    assert made is not None
    return made


def assigned(groups: Groups, patches: Image) -> NDArray[np.int32]:
    """The groups of patches, each as the middle of a micrograph."""
    middle = np.array([[REACH, REACH]], float)
    return np.concatenate([groups.assign(torch.from_numpy(patch), middle) for patch in patches])


@pytest.mark.slow
def test_each_pick_is_in_a_group_that_shows_what_it_is(groups: Groups, mixture: tuple[Image, NDArray[np.str_]]) -> None:
    patches, kinds = mixture
    found = np.array([groups.kinds[number - 1] for number in assigned(groups, patches)])
    assert {PARTICLE, EDGE, ICE} <= set(groups.kinds)
    assert groups.kinds[0] == PARTICLE
    for kind in (PARTICLE, EDGE, ICE):
        assert (found[kinds == kind] == kind).mean() > 0.9


def test_shares_add_up_and_the_largest_group_is_the_first(groups: Groups) -> None:
    assert sum(groups.shares) == pytest.approx(1, abs=1e-3)
    assert list(groups.shares) == sorted(groups.shares, reverse=True)
    assert groups.describe().startswith("Picks are grouped by what they look like: 1 particle (")


def test_a_model_keeps_them(groups: Groups, mixture: tuple[Image, NDArray[np.str_]]) -> None:
    again = Groups.from_arrays(groups.arrays())
    assert again is not None
    assert again.kinds == groups.kinds
    assert np.array_equal(assigned(again, mixture[0][::20]), assigned(groups, mixture[0][::20]))
    assert Groups.from_arrays({}) is None


def test_picks_at_the_edge_and_no_picks_are_no_problem(groups: Groups) -> None:
    pixels = torch.zeros(60, 80)
    assert len(groups.assign(pixels, np.array([(-3.0, 0.0), (79.4, 61.0)]))) == 2
    assert len(groups.assign(pixels, np.zeros((0, 2)))) == 0


def test_few_picks_are_not_grouped(mixture: tuple[Image, NDArray[np.str_]]) -> None:
    assert make_groups(mixture[0][: LEAST_PICKS - 1]) is None
