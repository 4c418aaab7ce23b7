"""Paper preprocessing: each step against a plain implementation, and where it moves things."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cryoemmae_plugin.core.paper import preprocess as pre
from cryoemmae_plugin.errors import ImageError, SettingsError

SHAPE = (150, 214)


@pytest.fixture
def noise() -> NDArray[np.float64]:
    rng = np.random.default_rng(3)
    return ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.0) + np.linspace(0, 0.5, SHAPE[1])


def unit(image: NDArray[np.floating]) -> NDArray[np.floating]:
    return (image - image.min()) / (image.max() - image.min())


def plain_local_normalisation(image: NDArray[np.float64], d: int) -> NDArray[np.float64]:
    """Gather the corner pixels around every pixel, one by one."""
    line = [*range(1, d // 2 + 1), *range(d // 2, d)]
    corners = [
        (i - d // 2, j - d // 2)
        for i in range(d)
        for j in range(d)
        if (line[i] - d // 2) ** 2 + (line[j] - d // 2) ** 2 >= (d / 2) ** 2
    ]
    total, squares = np.zeros_like(image), np.zeros_like(image)
    for dy, dx in corners:
        moved = np.roll(image, (-dy, -dx), (0, 1))
        total += moved
        squares += moved**2
    mean = total / len(corners)
    return (image - mean) / np.sqrt(squares / len(corners) - mean**2)


def plain_wiener(image: NDArray[np.float64]) -> NDArray[np.float64]:
    line = np.exp(-0.5 * ((np.arange(9) - 4) / 3.0) ** 2)
    kernel = np.zeros(image.shape)
    kernel[:9, :9] = np.outer(line, line) / np.outer(line, line).sum()
    transfer = np.fft.fft2(kernel)
    return np.abs(np.fft.ifft2(np.fft.fft2(image) * np.conj(transfer) / (np.abs(transfer) ** 2 + 30)))


def plain_guided_filter(equalised: NDArray[np.uint8], guide: NDArray[np.float64]) -> NDArray[np.float32]:
    """Run the whole filter, as if its guide mattered."""
    image, guide = equalised.astype(np.float32) / 255, guide.astype(np.float32) / 255

    def mean(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return cv2.boxFilter(x, -1, (20, 20))

    slope = (mean(guide * image) - mean(guide) * mean(image)) / (mean(guide * guide) - mean(guide) ** 2 + 0.1)
    return mean(slope) * guide + mean(mean(image) - slope * mean(guide))


def plain_preprocess(image: NDArray[np.float64], d: int, grid_px: int) -> NDArray[np.uint8]:
    wiener = plain_wiener(unit(plain_local_normalisation(unit(image), d)))
    clahe = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(16, 16))
    equalised = clahe.apply((unit(wiener) * 255).astype(np.uint8))
    smooth = (unit(plain_guided_filter(equalised, wiener)) * 255).astype(np.uint8)
    return np.asarray(Image.fromarray(smooth).resize((grid_px, grid_px)))


def centre_of_mass(image: NDArray[np.floating]) -> tuple[float, float]:
    y, x = ndimage.center_of_mass(image)
    return x, y


def test_whole_chain_equals_a_plain_implementation_to_one_grey_level() -> None:
    image = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(480, 601)), 1.0)
    grid, _ = pre.preprocess_paper(image, 23.4, grid_px=256)
    expected = plain_preprocess(image, 24, 256)
    difference = np.abs(np.rint(grid.numpy() * 255) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02


def test_result_holds_whole_8_bit_levels(noise: NDArray[np.float64]) -> None:
    grid, frame = pre.preprocess_paper(torch.from_numpy(noise), 24)
    levels = grid * 255
    assert grid.shape == frame.grid_shape == (1024, 1024)
    assert grid.dtype == torch.float32
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    assert 0 <= grid.min() < 0.2 < 0.8 < grid.max() <= 1


def test_statistics_are_taken_over_the_corners_of_the_bounding_square() -> None:
    mask = pre.statistics_mask(12)
    assert all(mask[y, x] for y in (0, -1) for x in (0, -1))
    assert not any(mask[y, x] for y, x in ((6, 6), (0, 6), (5, 0)))
    assert torch.equal(mask, mask.flip(0))
    assert torch.equal(mask, mask.T)


@pytest.mark.parametrize("d", [12, 20])
def test_local_normalisation_equals_gathering_pixels(noise: NDArray[np.float64], d: int) -> None:
    ours = pre.normalise_locally(torch.from_numpy(noise).float(), d).numpy()
    np.testing.assert_allclose(ours, plain_local_normalisation(noise, d), rtol=2e-3, atol=2e-3)


def test_dead_areas_do_not_take_the_grey_scale(noise: NDArray[np.float64]) -> None:
    noise[:60, :60] = 0.0
    noise[30, 30] = 1e-3
    normalised = pre.normalise_locally(pre.to_unit_range(torch.from_numpy(noise).float()), 20)
    assert torch.isfinite(normalised).all()
    assert normalised.abs().max() < 200


def test_wiener_equals_division_by_the_spectrum(noise: NDArray[np.float64]) -> None:
    ours = pre.smooth_wiener(torch.from_numpy(unit(noise)).float()).numpy()
    np.testing.assert_allclose(ours, plain_wiener(unit(noise)), atol=1e-6)


def test_box_sums_are_the_guided_filter(noise: NDArray[np.float64]) -> None:
    image = (unit(noise) * 255).astype(np.uint8)
    ours = pre.twice_box_sum(torch.from_numpy(image), 20).double() / 20**4 / 255
    np.testing.assert_allclose(ours.numpy(), plain_guided_filter(image, unit(noise) / 31), atol=1e-6)


def test_box_sums_stay_exact_where_running_sums_overflow() -> None:
    bright = torch.full((200, 6000), 255, dtype=torch.uint8)
    assert (pre.twice_box_sum(bright, 20) == 255 * 20**4).all()


@pytest.mark.parametrize("shape", [(64, 64), (300, 220), (50, 70)])
def test_resize_equals_pillow(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    ours = pre.resize_uint8(torch.from_numpy(image), (64, 64)).numpy().astype(int)
    expected = np.asarray(Image.fromarray(image).resize((64, 64))).astype(int)
    assert np.abs(ours - expected).max() <= 1
    assert (ours != expected).mean() < 0.002


def test_wiener_moves_a_point_by_its_constant() -> None:
    point = torch.zeros(80, 120)
    point[30, 70] = 1
    assert centre_of_mass(pre.smooth_wiener(point).numpy()) == pytest.approx(
        (70 + pre.WIENER_SHIFT_PX, 30 + pre.WIENER_SHIFT_PX), abs=1e-2
    )


def test_box_sums_move_a_point_by_their_constant() -> None:
    point = torch.zeros(80, 120, dtype=torch.uint8)
    point[30, 70] = 255
    moved = centre_of_mass(pre.twice_box_sum(point, pre.BOX_PX).numpy().astype(float))
    assert moved == pytest.approx((70 + pre.BOX_SHIFT_PX, 30 + pre.BOX_SHIFT_PX), abs=1e-6)


@pytest.mark.parametrize("shape", [(500, 700), (701, 498)])
def test_frame_takes_offsets_and_stretch_out(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    ny, nx = shape
    y, x = np.mgrid[:ny, :nx]
    truth = [(cx, cy) for cx in range(80, nx - 70, 110) for cy in range(75, ny - 70, 110)]
    blobs = sum(np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 8.0**2)) for cx, cy in truth)
    grid, frame = pre.preprocess_paper(rng.normal(size=shape) * 0.05 - blobs, 40, grid_px=512)
    dark = 1 - grid.numpy()
    errors = []
    for at, (gx, gy) in zip(truth, np.rint(frame.to_grid(np.array(truth))).astype(int), strict=True):
        window = dark[gy - 20 : gy + 21, gx - 20 : gx + 21]
        peak = np.clip(window - np.quantile(window, 0.7), 0, None)
        found = np.array(centre_of_mass(peak)) + np.array([gx - 20, gy - 20])
        errors.append(frame.to_micrograph(found)[0] - at)
    assert np.abs(np.mean(errors, axis=0)).max() < 0.6  # the offsets are -3 in x and in y


@pytest.mark.parametrize("value", [0.0, 3.5])
def test_constant_image_is_refused(value: float) -> None:
    with pytest.raises(ImageError, match="constant"):
        pre.preprocess_paper(np.full(SHAPE, value), 24)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(noise: NDArray[np.float64], value: float) -> None:
    noise[5, 5] = value
    with pytest.raises(ImageError, match="not finite"):
        pre.preprocess_paper(noise, 24)


def test_stacks_and_specks_are_refused() -> None:
    with pytest.raises(ImageError, match="3 axes"):
        pre.preprocess_paper(np.zeros((2, 64, 64)), 24)
    with pytest.raises(ImageError, match="12 x 90"):
        pre.preprocess_paper(np.zeros((90, 12)), 10)


@pytest.mark.parametrize("diameter_px", [5, 160])
def test_diameter_that_does_not_fit_is_refused(noise: NDArray[np.float64], diameter_px: float) -> None:
    with pytest.raises(SettingsError, match="diameter"):
        pre.preprocess_paper(noise, diameter_px)
