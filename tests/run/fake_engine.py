"""The command line with a stand-in for the network; also run as a script, by tests that kill it.

The stand-in finds as many "particles" as the image's first pixel says, at places that depend on the image alone.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

from cryoemmae_plugin.cli import main
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.run import engine
from cryoemmae_plugin.run.engine import Engine
from cryoemmae_plugin.run.request import RunRequest
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.types import Picks


class FakePicker:
    """Picks by the image's content; slow where a test asks for it."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.seen: list[tuple[int, int]] = []

    def pick(self, image: NDArray[np.float32], pixel_size_A: float, timer: StepTimer | None = None) -> Picks:
        self.seen.append(image.shape)
        with timer.step("fake") if timer else nullcontext():
            time.sleep(self.seconds)
        n = int(image[0, 0])
        if n == 666:
            raise ZeroDivisionError("no such luck")
        if n == 999:
            raise MemoryError
        rng = np.random.default_rng(int(abs(image).sum()))
        xy = rng.random((n, 2)) * (image.shape[1], image.shape[0])
        score = np.sort(rng.random(n).astype(np.float32))[::-1].copy()
        return Picks(xy, score, rng.random(n).astype(np.float32), image.shape)


def fake_build_engine(settings: PickerSettings, request: RunRequest) -> Engine:
    picker = FakePicker(float(os.environ.get("FAKE_SECONDS", "0")))
    return Engine(picker, "fake", os.environ.get("FAKE_SHA256", "f" * 64), torch.device("cpu"))


if __name__ == "__main__":
    engine.build_engine = fake_build_engine
    sys.exit(main())
