"""Matched filters: form, choice, and where they see a particle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal

from cryoemmae_plugin.core.matched_filter import BANK, RoundTemplate, correlate, find_peaks, in_sigmas, match_templates

DIAMETER = 24.0


def scene(
    template: RoundTemplate, centres: list[tuple[float, float]], shape: tuple[int, int] = (300, 360)
) -> torch.Tensor:
    """Dark discs or rings with soft edges on white noise."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = rng.normal(0, 1, shape)
    for x, y in centres:
        radius = np.hypot(columns - x, rows - y) / (DIAMETER / 2)
        inside = (radius < template.outer) & (radius >= template.inner)
        image -= 1.5 * inside
    return torch.from_numpy(image.astype(np.float32))


GRID = [(40.3 + 45 * i, 36.7 + 42 * j) for i in range(7) for j in range(6)]


@pytest.mark.parametrize("template", BANK)
def test_a_kernel_has_no_mean_and_unit_norm(template: RoundTemplate) -> None:
    kernel = template.kernel(DIAMETER)
    assert abs(float(kernel.sum())) < 1e-4
    assert float(kernel.norm()) == pytest.approx(1.0, abs=1e-5)


def test_correlation_equals_scipys() -> None:
    image, kernel = torch.randn(50, 70), torch.randn(9, 9)
    expected = -signal.correlate2d(image.numpy(), kernel.numpy(), mode="same")
    assert np.abs(next(correlate(image, [kernel])).numpy() - expected).max() < 1e-4


def test_discs_choose_a_disc_and_rings_choose_a_ring() -> None:
    valid = torch.ones(300, 360, dtype=torch.bool)
    assert match_templates(scene(RoundTemplate(0.7), GRID), valid, DIAMETER).template.inner == 0
    assert match_templates(scene(RoundTemplate(0.9, 0.6), GRID), valid, DIAMETER).template.inner > 0


@pytest.mark.parametrize("template", [RoundTemplate(0.7), RoundTemplate(0.9, 0.6)])
def test_peaks_are_at_the_centres(template: RoundTemplate) -> None:
    pixels = scene(template, GRID)
    response = match_templates(pixels, torch.ones_like(pixels, dtype=torch.bool), DIAMETER)
    xy, height = find_peaks(response.sigmas, DIAMETER, 2.0)
    best = xy[: len(GRID)]
    offset = np.array([best[np.hypot(*(best - centre).T).argmin()] - centre for centre in GRID])
    assert np.hypot(*offset.T).max() < 0.15 * DIAMETER
    assert np.abs(offset.mean(0)).max() < 0.02 * DIAMETER
    assert (np.diff(height) <= 0).all()


def test_a_peak_is_found_to_a_fraction_of_a_pixel() -> None:
    rows, columns = torch.meshgrid(torch.arange(50.0), torch.arange(60.0), indexing="ij")
    image = 10 * torch.exp(-((columns - 31.3) ** 2 + (rows - 17.8) ** 2) / (2 * 6.0**2))
    xy, _ = find_peaks(image, DIAMETER, 2.0)
    assert len(xy) == 1
    assert np.abs(xy[0] - [31.3, 17.8]).max() < 0.02


def test_sigmas_are_robust_and_zero_outside_the_image() -> None:
    response = torch.randn(200, 200)
    response[:5] = 1e6
    valid = torch.ones(200, 200, dtype=torch.bool)
    valid[:5] = False
    sigmas = in_sigmas(3 * response + 7, valid)
    assert float(sigmas[5:].std()) == pytest.approx(1.0, abs=0.03)
    assert not sigmas[:5].any()


def test_nothing_valid_gives_no_peak() -> None:
    pixels = torch.randn(60, 60)
    response = match_templates(pixels, torch.zeros(60, 60, dtype=torch.bool), DIAMETER)
    assert len(find_peaks(response.sigmas, DIAMETER, 2.0)[0]) == 0
