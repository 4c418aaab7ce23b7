"""Micrographs of a few pixels, and a picker that finds their bright pixels: under test is the job around it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import torch
from numpy.typing import NDArray

from cryoemmae_plugin.errors import ImageError
from cryoemmae_plugin.run.engine import Engine
from cryoemmae_plugin.run.request import RunRequest
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.types import Picks

BRIGHT = 10.0
SHAPE = (48, 64)


class StubPicker:
    """Each pixel above `BRIGHT` is a candidate; its excess over it, in hundredths, is the score."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s, self.picked = delay_s, 0

    def pick(self, image: NDArray[np.float32], pixel_size_A: float, timer: Any = None) -> Picks:
        time.sleep(self.delay_s)
        self.picked += 1
        if image.min() < -100:
            raise ImageError("too dark to pick")
        y, x = np.nonzero(image > BRIGHT)
        score = np.clip((image[y, x] - BRIGHT) / 100, 0, 1).astype(np.float32)
        order = np.argsort(-score, kind="stable")
        xy = np.stack([x, y], axis=1).astype(np.float64)[order]
        return Picks(xy, score[order], score[order] * 3 + 1, image.shape)  # type: ignore[arg-type]


class StubEngines:
    """Stands in for the function that loads a model; keeps the pickers it has made."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.made: list[StubPicker] = []

    def __call__(self, settings: PickerSettings, request: RunRequest) -> Engine:
        self.made.append(StubPicker(self.delay_s))
        return Engine(self.made[-1], "stub", "ab" * 32, torch.device("cpu"))

    @property
    def picked(self) -> int:
        return sum(picker.picked for picker in self.made)


def stub_image(number: int, shape: tuple[int, int] = SHAPE, particles: int = 5) -> NDArray[np.float32]:
    """Noise with bright pixels, as many as `particles`, with scores from 0.3 to 0.9."""
    rng = np.random.default_rng(number)
    image = rng.standard_normal(shape).astype(np.float32)
    places = rng.choice(shape[0] * shape[1], particles, replace=False)
    image.flat[places] = BRIGHT + 100 * np.linspace(0.3, 0.9, particles)
    return image


def write_mrc(path: Path, image: NDArray[Any], pixel_size_A: float = 1.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(image)
        file.voxel_size = pixel_size_A
    return path
