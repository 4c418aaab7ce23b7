"""Adapting on a small plan, with commas for particles; also run as a script, by a test that kills it.

python small_adapting.py MODEL FOLDER
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np

from cryoemmae_plugin.core.crop_detection import CropDetections
from cryoemmae_plugin.run import adapting
from cryoemmae_plugin.run.observer import Observer
from cryoemmae_plugin.run.prefetch import Loaded
from cryoemmae_plugin.run.preparation import Preparation
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.training import adapt
from cryoemmae_plugin.training.head import HeadSettings
from cryoemmae_plugin.types import Micrograph

MICROGRAPHS = [Micrograph(Path(f"/nowhere/m{i}.mrc"), 2.0, f"m{i}") for i in range(5)]
SETTINGS = HeadSettings(steps=6, batch=2, rate=1e-3, checkpoint_steps=2, crop_cells=32)


def _sightings() -> Callable[[int], CropDetections]:
    path = Path(__file__).parents[2] / "training" / "conftest.py"
    spec = importlib.util.spec_from_file_location("training_conftest", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.draw_sighting  # type: ignore[no-any-return]


class Slow(Observer):
    """Takes its time over each step, so that there is time to kill it."""

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        time.sleep(0.2 if task == adapting.TASK and done > 3 else 0)


def settle(
    model: Path,
    folder: Path,
    observer: Observer | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Adapt the model to five micrographs; those that were looked at."""
    draw, looked = _sightings(), []

    def load(micrograph: Micrograph) -> Loaded:
        return Loaded(np.full((200, 260), MICROGRAPHS.index(micrograph), np.float32), 2.0, 1, 0.0)

    def detect(image: object, *others: object) -> CropDetections:
        number = int(image[0, 0])  # type: ignore[index]
        looked.append(MICROGRAPHS[number].uid)
        return draw(number)

    with (
        patch.object(adapting, "detect_on_crop", detect),
        patch.object(adapt, "SCENES", 2),
        patch.object(adapt, "OTHER_SCENES", range(99_000, 99_001)),
        patch.object(adapt, "SETTINGS", SETTINGS),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        settings = PickerSettings(diameter_A=40.0, model=str(model))
        Preparation(folder, loader=load, observer=observer, should_stop=should_stop).settle_model(settings, MICROGRAPHS)
    return looked


if __name__ == "__main__":
    settle(Path(sys.argv[1]), Path(sys.argv[2]), Slow())
