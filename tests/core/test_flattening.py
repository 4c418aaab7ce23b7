"""Default mode's preprocessing against plain implementations and known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from cryoemmae_plugin.core.flattening import (
    BACKGROUND_SIGMA,
    CLIP,
    cut_hot_pixels,
    find_image,
    flatten_background,
    gaussian_blur,
    masked_blur,
    resize,
    subsample,
)


def noise(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32))


def dark_disc(shape: tuple[int, int], x: float, y: float, diameter: float) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.where(np.hypot(columns - x, rows - y) < diameter / 2, -30.0, 0.0).astype(np.float32)


def test_blur_equals_scipys_away_from_the_border() -> None:
    image = noise((60, 90))
    expected = ndimage.gaussian_filter(image.numpy().astype(float), 3.0, truncate=8.0)
    assert np.abs(gaussian_blur(image, 3.0).numpy() - expected)[25:-25, 25:-25].max() < 1e-3


def test_blur_keeps_a_constant_up_to_the_border() -> None:
    assert torch.allclose(gaussian_blur(torch.full((20, 33), 7.0), 5.0), torch.tensor(7.0))


def test_masked_blur_ignores_what_is_masked() -> None:
    image, mask = torch.ones(40, 50), torch.ones(40, 50)
    image[10:20, 10:20], mask[10:20, 10:20] = 1000.0, 0.0
    assert torch.allclose(masked_blur(image, mask, 3.0), torch.tensor(1.0), atol=1e-4)


def test_a_hot_pixel_is_cut_and_others_are_not_touched() -> None:
    image = noise((100, 100))
    hot = image.clone()
    hot[3, 4] = 1e6
    cut = cut_hot_pixels(hot)
    assert cut[3, 4] < 300
    assert torch.equal(cut[10:], image[10:])


@pytest.mark.parametrize("shape", [(400, 400), (300, 520)])
@pytest.mark.parametrize("diameter", [20.0, 60.0, 120.0])
def test_a_disc_stays_where_it_is_on_any_scale(shape: tuple[int, int], diameter: float) -> None:
    x, y = 0.31 * shape[1], 0.62 * shape[0]
    image = torch.from_numpy(dark_disc(shape, x, y, diameter)) + noise(shape) * 0.01
    result = flatten_background(image, diameter, 24.0)
    weight = (-result.pixels).clamp(min=0) ** 2
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in weight.shape), indexing="ij")
    near = torch.hypot(columns - 24 / diameter * x, rows - 24 / diameter * y) < 14
    weight = torch.where(near, weight, torch.zeros_like(weight)).double()
    centre = torch.stack([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
    found = result.frame.to_micrograph(centre[None].numpy())[0]
    assert np.abs(found - [x, y]).max() < 0.02 * diameter


def test_noise_has_unit_deviation_and_no_gradient() -> None:
    shape = (500, 700)
    ramp = torch.linspace(0, 100, shape[1]).expand(shape)
    result = flatten_background(noise(shape) + ramp, 50.0, 24.0)
    assert float(result.pixels.std()) == pytest.approx(1.0, abs=0.1)
    thirds = [float(part.mean()) for part in result.pixels[:, 80:-80].tensor_split(3, dim=1)]
    assert max(map(abs, thirds)) < 0.05


def test_pixels_are_cut_at_the_limit() -> None:
    image = noise((300, 300))
    image[100:140, 100:140] -= 500
    assert float(flatten_background(image, 40.0, 24.0).pixels.min()) >= -CLIP


def test_the_particle_keeps_its_contrast() -> None:
    """Local normalisation over a particle's disc would flatten it; the background is taken well above its scale."""
    assert BACKGROUND_SIGMA >= 1.0
    image = torch.from_numpy(dark_disc((400, 400), 200, 200, 40)) + noise((400, 400))
    pixels = flatten_background(image, 40.0, 24.0).pixels
    assert float(pixels[115:125, 115:125].mean()) < -3


def test_a_smeared_border_is_no_image() -> None:
    image = noise((400, 500))
    image[:60] = image[60]
    image[:, -50:] = image[:, -51:-50]
    valid = find_image(resize(image, (200, 250)), 24.0)
    assert not valid[:26].any()
    assert not valid[:, -21:].any()
    assert valid[45:, :-40].float().mean() > 0.99


def test_an_image_without_smear_is_valid_all_over() -> None:
    assert bool(find_image(noise((200, 250)), 24.0).all())


def test_sample_is_bounded_and_spread() -> None:
    values = torch.arange(4_000_000).reshape(2000, 2000)
    taken = subsample(values)
    assert 100_000 < len(taken) <= 210_000
    assert len(torch.unique(taken % 2000)) > 1000
