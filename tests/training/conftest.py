"""A particle that no mirror, turn or average leaves alone, and micrographs full of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from cryoemmae_plugin.core.crop_detection import CropDetections
from cryoemmae_plugin.core.default import GRID_DIAMETER_PX
from cryoemmae_plugin.training.specimen import REACH

SIDE = 2 * REACH + 1


def draw_comma(angle: float, at: tuple[float, float], shape: tuple[int, int] = (SIDE, SIDE)) -> NDArray[np.float32]:
    """A dark bar with a darker head at one end, turned by `angle` about `at` (x, y)."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    along = np.cos(angle) * (x - at[0]) + np.sin(angle) * (y - at[1])
    across = -np.sin(angle) * (x - at[0]) + np.cos(angle) * (y - at[1])
    bar = np.exp(-0.5 * (across / 1.5) ** 2) / (1 + np.exp(np.minimum(2 * (np.abs(along) - 8), 50)))
    head = np.exp(-0.5 * (((along - 7) / 2.5) ** 2 + (across / 2.5) ** 2))
    return (-2 * bar - 3 * head).astype(np.float32)


def draw_sighting(
    seed: int, particles: int = 40, shape: tuple[int, int] = (300, 420), noise: float = 1.0
) -> CropDetections:
    """Commas on white noise, all of them picked."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(30, shape[1] - 30, 40), np.arange(30, shape[0] - 30, 40)), -1).reshape(-1, 2)
    xy = rng.permutation(grid)[:particles] + rng.uniform(-3, 3, (particles, 2))
    pixels = rng.normal(0, noise, shape)
    for x, y in xy:
        left, top = round(x) - REACH, round(y) - REACH  # of the comma alone: it is nothing beyond
        rows, columns = slice(max(top, 0), top + SIDE), slice(max(left, 0), left + SIDE)
        part, there = pixels[rows, columns], (x - columns.start, y - rows.start)
        part += draw_comma(rng.uniform(0, 2 * np.pi), there, (part.shape[0], part.shape[1]))
    area = pixels.size / GRID_DIAMETER_PX**2
    return CropDetections(pixels.astype(np.float32), area, xy, np.full(particles, 0.9, np.float32))


@pytest.fixture(scope="session")
def comma() -> Callable[..., NDArray[np.float32]]:
    return draw_comma


@pytest.fixture(scope="session")
def detections() -> Callable[..., CropDetections]:
    return draw_sighting
