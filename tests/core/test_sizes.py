"""A micrograph at every size."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cryoemmae_plugin.core.sizes import SIZES_A, find_blobs, level_for, make_levels, respond, scan_sizes

PIXEL_A = 4.0


def disc_centres(count: int = 40) -> NDArray[np.float64]:
    """Random places (x, y), at least 60 px apart."""
    rng = np.random.default_rng(5)
    kept: list[NDArray[np.float64]] = []
    while len(kept) < count:
        place = rng.uniform(30, [670, 570])
        if all(np.hypot(*(place - other)) > 60 for other in kept):
            kept.append(place)
    return np.array(kept).reshape(-1, 2)


def discs(diameter_A: float, count: int = 40, noise: float = 1.0) -> NDArray[np.float32]:
    """Dark discs on noise, at 4 Å per pixel."""
    image = np.random.default_rng(0).normal(scale=noise, size=(600, 700)).astype(np.float32)
    y, x = np.ogrid[:600, :700]
    for cx, cy in disc_centres(count):
        image[np.hypot(x - cx, y - cy) < diameter_A / PIXEL_A / 2] -= 0.8
    return image


def test_the_strongest_response_grows_with_the_discs() -> None:
    strongest = [
        SIZES_A[np.nanargmax(scan_sizes(discs(diameter_A, noise=4.0), PIXEL_A).strength)]
        for diameter_A in (60.0, 120.0)
    ]
    assert strongest[1] / strongest[0] == pytest.approx(2, rel=0.25)
    assert 0.7 < strongest[1] / 120 < 2


def test_a_size_is_found_in_angstrom_whatever_the_pixel_size() -> None:
    image = discs(120.0)
    fine = np.kron(image, np.ones((2, 2), np.float32))
    coarse, twice = scan_sizes(image, PIXEL_A).strength, scan_sizes(fine, PIXEL_A / 2).strength
    assert np.nanargmax(coarse) == np.nanargmax(twice)


def test_noise_alone_does_not_respond_at_any_size_and_has_as_many_bright_blobs_as_dark_ones() -> None:
    scan = scan_sizes(discs(100.0, count=0), PIXEL_A)
    clear = scan_sizes(discs(100.0), PIXEL_A)
    assert np.nanmax(np.abs(scan.strength)) < 0.25 * np.nanmax(clear.strength)
    assert abs(int((scan.dark - scan.bright).sum())) < 0.2 * (scan.dark + scan.bright).sum() + 5


def test_bright_particles_are_found_when_they_are_said_to_be_bright() -> None:
    image = -discs(120.0)
    assert np.nanmax(scan_sizes(image, PIXEL_A, bright=True).strength) > 1
    assert np.nanargmax(scan_sizes(image, PIXEL_A, bright=True).strength) == np.nanargmax(
        scan_sizes(-image, PIXEL_A).strength
    )


def test_grey_values_and_a_slope_do_not_matter() -> None:
    image = discs(120.0)
    slope = np.linspace(0, 5, 700, dtype=np.float32)
    plain, other = scan_sizes(image, PIXEL_A).strength, scan_sizes(40 * (image + slope) + 1000, PIXEL_A).strength
    assert abs(int(np.nanargmax(plain)) - int(np.nanargmax(other))) <= 1
    assert np.nanmax(other) == pytest.approx(np.nanmax(plain), rel=0.2)


def test_smeared_borders_are_no_image() -> None:
    image = discs(120.0)
    image[:, :60] = image[:, 60:61]
    valid = make_levels(image, PIXEL_A)[0].valid
    columns = valid.shape[1]
    assert not valid[:, : int(columns * 50 / 700)].any()
    assert valid[:, int(columns * 90 / 700) :].mean() > 0.95


def test_sizes_that_the_frame_or_the_pixels_cannot_show_are_not_looked_at() -> None:
    small = discs(120.0)[:150, :150]
    strength = scan_sizes(small, PIXEL_A).strength
    assert np.isnan(strength[SIZES_A > 150 * PIXEL_A / 3]).all()
    coarse = scan_sizes(discs(120.0), 20.0).strength
    assert np.isnan(coarse[SIZES_A < 6 * 20]).all()


def test_blobs_are_where_the_discs_are() -> None:
    levels = make_levels(discs(120.0, noise=0.2), PIXEL_A)
    response = respond(levels, 120.0)
    assert response is not None
    xy, height = find_blobs(response, 5.0)
    scale = level_for(levels, 120.0).pixel_size_A / PIXEL_A
    distance = np.linalg.norm(xy[:, None] * scale - disc_centres(), axis=2).min(axis=1)
    assert len(xy) == pytest.approx(40, abs=4)
    assert np.quantile(distance, 0.9) < 4
    assert (np.diff(height) <= 0).all()
