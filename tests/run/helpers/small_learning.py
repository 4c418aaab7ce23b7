"""Adapting and refining on a small plan, with commas for particles; also run as a script, by a test that kills it.

python small_learning.py MODEL adapt|refine FOLDER [adapt|refine FOLDER ...]
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np

from cryoemmae_plugin.core.crop_detection import CropDetections
from cryoemmae_plugin.run import adapting, refining
from cryoemmae_plugin.run.class_selection import ClassSelection
from cryoemmae_plugin.run.hooks import Hooks
from cryoemmae_plugin.run.observer import Observer
from cryoemmae_plugin.run.prefetch import Loaded
from cryoemmae_plugin.run.preparation import Preparation
from cryoemmae_plugin.run.store import Existing
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.training import adapt, refine
from cryoemmae_plugin.training.head import HeadSettings
from cryoemmae_plugin.types import Micrograph

KINDS = ("adapt", "refine")
MICROGRAPHS = [Micrograph(Path(f"/nowhere/m{i}.mrc"), 2.0, f"m{i}") for i in range(5)]
TRAINING = HeadSettings(steps=6, batch=2, rate=1e-3, checkpoint_steps=2, crop_cells=32)


@cache
def _sightings() -> Callable[[int], CropDetections]:
    """Micrographs full of commas; each is drawn once."""
    path = Path(__file__).parents[2] / "training" / "conftest.py"
    spec = importlib.util.spec_from_file_location("training_conftest", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cache(module.draw_sighting)


class Slow(Observer):
    """Takes its time over each step, so that there is time to kill it."""

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        time.sleep(0.2 if task in (adapting.TASK, refining.TASK) and done > 3 else 0)


def settle(
    kind: str,
    model: Path,
    folder: Path,
    observer: Observer | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Adapt the model to five micrographs, or refine it by their picks; those that were looked at."""
    draw, looked = _sightings(), []

    def load(micrograph: Micrograph) -> Loaded:
        number = MICROGRAPHS.index(micrograph)
        image = np.full((200, 260), number, np.float32) if kind == "adapt" else draw(number).pixels
        return Loaded(image, 2.0, 1, 0.0)

    def detect(image: object, *others: object) -> CropDetections:
        number = int(image[0, 0])  # type: ignore[index]
        looked.append(MICROGRAPHS[number].uid)
        return draw(number)

    folder.mkdir(parents=True, exist_ok=True)
    preparation = Preparation(folder, Existing.CONTINUE, Hooks(observer or Observer(), load, should_stop))
    settings = PickerSettings(diameter_A=40.0 if kind == "adapt" else 48.0, model=str(model))
    with _small(looked), patch.object(adapting, "detect_on_crop", detect):
        if kind == "adapt":
            preparation.settle_model(settings, MICROGRAPHS)
        else:
            kept = {one.uid: draw(number).xy[:30] for number, one in enumerate(MICROGRAPHS)}
            dropped = {one.uid: draw(number).xy[30:] for number, one in enumerate(MICROGRAPHS)}
            preparation.settle_refined_model(settings, MICROGRAPHS, ClassSelection(kept, dropped))
    return looked


@contextmanager
def _small(looked: list[str]) -> Iterator[None]:
    """Learn from little; `looked` receives the micrographs that become examples of refining."""
    real = refine.JudgedMicrograph.example

    def example(self: refine.JudgedMicrograph, *others: object) -> object:
        looked.append("judged")
        return real(self, *others)  # type: ignore[arg-type]

    with ExitStack() as stack:
        stack.enter_context(patch.object(refine.JudgedMicrograph, "example", example))
        for module in (adapt, refine):
            stack.enter_context(patch.object(module, "SCENES", 2))
            stack.enter_context(patch.object(module, "OTHER_SCENES", range(99_000, 99_001)))
            stack.enter_context(patch.object(module, "SETTINGS", TRAINING))
        yield


if __name__ == "__main__":
    for kind, folder in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
        sys.stdout.write(" ".join(settle(kind, Path(sys.argv[1]), Path(folder), Slow())) + "\n")
