"""The External job with a stand-in for the network; run as a script by RELION, and by tests that stop it.

The stand-in correlates the image with the template in the file that $STAND_IN_TEMPLATE names; peaks are its candidates.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.ndimage
import scipy.signal
import torch
from numpy.typing import NDArray

from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.types import Picks

LEAST_SCORE = 0.3


class TemplatePicker:
    """Finds what looks like a template of odd side, its centre being the particle's; dark on bright as it is given."""

    def __init__(self, template: NDArray[np.float32], seconds: float = 0.0) -> None:
        self._template = template - template.mean()
        self._seconds = seconds

    def pick(self, image: NDArray[np.float32], pixel_size_A: float, timer: StepTimer | None = None) -> Picks:
        time.sleep(self._seconds)
        likeness = scipy.signal.fftconvolve(image - image.mean(), self._template[::-1, ::-1], mode="same")
        likeness /= (self._template**2).sum()
        highest = scipy.ndimage.maximum_filter(likeness, size=self._template.shape[0] // 2)
        row, column = np.nonzero((likeness == highest) & (likeness > LEAST_SCORE))
        xy = np.array([refine(likeness, r, c) for r, c in zip(row, column, strict=True)]).reshape(-1, 2)
        score = np.clip(likeness[row, column], 0, 1).astype(np.float32)
        order = np.argsort(-score, kind="stable")
        return Picks(xy[order], score[order], score[order], image.shape)


def refine(likeness: NDArray[np.float64], row: int, column: int) -> tuple[float, float]:
    """(x, y) of a peak, by a parabola along each axis."""

    def offset(before: float, at: float, after: float) -> float:
        bend = before - 2 * at + after
        return 0.5 * (before - after) / bend if bend else 0.0

    ny, nx = likeness.shape
    if not (0 < row < ny - 1 and 0 < column < nx - 1):
        return float(column), float(row)
    dx = offset(*likeness[row, column - 1 : column + 2])
    dy = offset(*likeness[row - 1 : row + 2, column])
    return column + dx, row + dy


def build_engine(
    settings: PickerSettings, model_name: str, names: Sequence[str], threads: int, tell: Callable[[str], None]
) -> object:
    from relion_wrapper.engine import Engine

    template = np.load(os.environ["STAND_IN_TEMPLATE"])
    picker = TemplatePicker(template, float(os.environ.get("STAND_IN_SECONDS", "0")))
    sha256 = os.environ.get("STAND_IN_SHA256", "f" * 64)
    return Engine([picker] * len(names), [torch.device("cpu")] * len(names), Path(model_name).name, sha256)


if __name__ == "__main__":
    import relion_wrapper.job
    from relion_wrapper.__main__ import main

    relion_wrapper.job.build_engine = build_engine
    sys.exit(main())
