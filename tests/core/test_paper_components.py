"""From masks to centres: against SciPy and Pillow, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cryoemmae_plugin.core.paper import components
from cryoemmae_plugin.core.paper.components import Components


@pytest.fixture
def mask() -> NDArray[np.bool_]:
    rng = np.random.default_rng(4)
    return ndimage.gaussian_filter(rng.normal(size=(64, 96)), 2) > 0.2


def test_density_equals_convolution_and_pillow(mask: NDArray[np.bool_]) -> None:
    counts = ndimage.convolve(mask.astype(np.float32), np.ones((3, 3)), mode="constant")
    image = Image.fromarray((counts / counts.max() * 255).astype(np.float32))
    expected = np.asarray(image.resize((192, 128), Image.Resampling.BILINEAR)).astype(np.uint8)  # a cast cuts
    np.testing.assert_array_equal(components.cell_density(torch.from_numpy(mask)), expected)


def test_threshold_is_the_first_that_leaves_more_than_4_percent() -> None:
    density = np.zeros((100, 100), np.uint8)
    density.ravel()[:300] = 255  # exactly 1 is not above 1
    assert components.choose_threshold(density) is None
    density.ravel()[300:500] = 128  # 5 %, at .50
    assert components.choose_threshold(density) == 0.48


def test_exactly_4_percent_is_not_enough() -> None:
    density = np.zeros((100, 100), np.uint8)
    density.ravel()[:400] = 200
    assert components.choose_threshold(density) is None
    density.ravel()[400] = 200
    assert components.choose_threshold(density) == 0.76


def test_components_touch_by_edges_and_weigh_by_intensity() -> None:
    density = np.zeros((10, 12), np.uint8)
    density[2, 3], density[2, 4] = 255, 85
    density[3, 5] = 255  # touches by a corner only
    found = components.label_components(density, 0.1)
    np.testing.assert_allclose(found.xy, [[3.25, 2], [5, 3]])
    assert found.area.tolist() == [2, 1]


def test_no_threshold_gives_no_component() -> None:
    assert len(components.label_components(np.zeros((10, 10), np.uint8), None)) == 0


@pytest.mark.parametrize(
    ("areas", "dropped"),
    [
        ([5, 9, 7], [True, False, True]),
        ([5, 5, 9], [False, True, False]),  # a tie keeps one, the third is apart
        ([9, 7, 5], [False, True, True]),  # dropped ones count as neighbours
    ],
)
def test_smaller_of_two_neighbours_goes(areas: list[int], dropped: list[bool]) -> None:
    x = [0.0, 4.0, 40.0] if areas == [5, 5, 9] else [0.0, 4.0, 8.0]
    found = Components(np.array([[at, 0.0] for at in x]), np.array(areas))
    assert components.has_larger_neighbour(found, 5.0).tolist() == dropped


def test_neighbours_at_exactly_the_distance_stay() -> None:
    found = Components(np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([5, 9]))
    assert not components.has_larger_neighbour(found, 5.0).any()


def test_duplicates_equal_plain_loops_without_ties() -> None:
    rng = np.random.default_rng(0)
    found = Components(rng.random((80, 2)) * 50, rng.permutation(80))
    expected = [
        any(0 < np.hypot(*(a - b)) < 6 and area < other for b, other in zip(found.xy, found.area, strict=True))
        for a, area in zip(found.xy, found.area, strict=True)
    ]
    assert components.has_larger_neighbour(found, 6.0).tolist() == expected


def squares(shape: tuple[int, int], centres: list[tuple[int, int]], half: int) -> torch.Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    for x, y in centres:
        mask[y - half : y + half + 1, x - half : x + half + 1] = True
    return mask


def test_centres_of_squares_are_found_on_a_frame_that_is_not_square() -> None:
    centres = [(20, 15), (60, 40), (90, 20)]
    found = components.find_particles(squares((64, 110), centres, 5), diameter_px=20)
    expected = [(2 * x + 0.5, 2 * y + 0.5) for x, y in sorted(centres, key=lambda at: at[1])]
    np.testing.assert_allclose(found.xy, expected, atol=1e-6)


def test_centres_near_any_border_go() -> None:
    centres = [(6, 30), (103, 30), (50, 6), (50, 57), (30, 30)]
    found = components.find_particles(squares((64, 110), centres, 4), diameter_px=24)
    np.testing.assert_allclose(found.xy, [[60.5, 60.5]])


def test_large_components_go_only_when_asked() -> None:
    mask = squares((64, 110), [(30, 30)], 4) | squares((64, 110), [(80, 30)], 14)
    assert len(components.find_particles(mask, diameter_px=18)) == 2
    assert len(components.find_particles(mask, diameter_px=18, max_radius_ratio=2.0)) == 1


def test_empty_mask_gives_nothing() -> None:
    assert len(components.find_particles(torch.zeros(64, 110, dtype=torch.bool), diameter_px=20)) == 0


def test_full_mask_gives_one_component_in_the_middle() -> None:
    found = components.find_particles(torch.ones(64, 110, dtype=torch.bool), diameter_px=20)
    np.testing.assert_allclose(found.xy, [[109.5, 63.5]], atol=0.01)


def test_score_rises_with_area_and_is_half_for_a_particle() -> None:
    score = components.size_score(np.array([10, 314, 10_000]), 20)
    assert score[1] == pytest.approx(0.5, abs=1e-3)
    assert 0 < score[0] < score[1] < score[2] < 1


def test_contrast_is_positive_for_dark_discs_and_zero_on_flat_ground() -> None:
    y, x = np.mgrid[:80, :140]
    image = np.where(((x - 40) / 12) ** 2 + ((y - 30) / 8) ** 2 <= 1, 0.0, 1.0).astype(np.float32)
    power = components.disc_contrast(torch.from_numpy(image), np.array([[40.0, 30.0], [110.0, 50.0]]), (24.0, 16.0))
    assert power[0] == pytest.approx(1 / image.std(), rel=1e-3)
    assert power[1] == 0


def test_contrast_of_nothing_is_empty() -> None:
    assert components.disc_contrast(torch.ones(20, 20), np.zeros((0, 2)), (5, 5)).shape == (0,)
