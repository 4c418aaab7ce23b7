"""The External job with a stand-in for the network; run as a script by RELION, and by tests that stop it.

The stand-in correlates the image with the templates in the file $STAND_IN_TEMPLATE; peaks are its candidates.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.fft
import scipy.ndimage
import torch
from numpy.typing import NDArray

from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.types import Picks

LEAST_SCORE = 0.3


class TemplatePicker:
    """Finds what looks like one of some templates.

    Parameters
    ----------
    templates : ndarray, shape (templates, side, side)
        Of odd side, with the particle's centre on the middle pixel.
    seconds : float
        Time to waste on each image.
    """

    def __init__(self, templates: NDArray[np.float32], seconds: float = 0.0) -> None:
        centred = templates - templates.mean((1, 2), keepdims=True)
        self._kernels = centred[:, ::-1, ::-1] / (centred**2).sum((1, 2), keepdims=True)
        self._seconds = seconds

    def pick(self, image: NDArray[np.float32], pixel_size_A: float, timer: StepTimer | None = None) -> Picks:
        time.sleep(self._seconds)
        likeness = self._likeness(image - image.mean())
        highest = scipy.ndimage.maximum_filter(likeness, size=self._kernels.shape[1] // 2)
        row, column = np.nonzero((likeness == highest) & (likeness > LEAST_SCORE))
        xy = np.array([refine(likeness, r, c) for r, c in zip(row, column, strict=True)]).reshape(-1, 2)
        score = np.clip(likeness[row, column], 0, 1).astype(np.float32)
        order = np.argsort(-score, kind="stable")
        return Picks(xy[order], score[order], score[order], image.shape)

    def _likeness(self, image: NDArray[np.float32]) -> NDArray[np.float64]:
        """Correlation with the template that is most alike; the image is transformed once for all of them."""
        reach = self._kernels.shape[1] // 2
        (ny, nx), shape = image.shape, [scipy.fft.next_fast_len(n + 2 * reach, real=True) for n in image.shape]
        seen = scipy.fft.rfft2(image, shape)
        alike = [scipy.fft.irfft2(seen * scipy.fft.rfft2(kernel, shape), shape) for kernel in self._kernels]
        return np.asarray(np.max(alike, axis=0)[reach : reach + ny, reach : reach + nx], np.float64)


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


def build_engine(settings: PickerSettings, request: object) -> object:
    from cryoemmae_plugin.run.engine import Engine

    templates = np.load(os.environ["STAND_IN_TEMPLATE"])
    picker = TemplatePicker(templates, float(os.environ.get("STAND_IN_SECONDS", "0")))
    sha256 = os.environ.get("STAND_IN_SHA256", "f" * 64)
    return Engine(picker, Path(settings.model_name).name, sha256, torch.device("cpu"))


if __name__ == "__main__":
    from cryoemmae_plugin.run import engine
    from cryoemmae_plugin.training import adapt
    from cryoemmae_plugin.training import refine as refining
    from relion_wrapper.__main__ import main

    for learning in (adapt, refining):  # enough to go the whole way
        learning.SETTINGS = replace(learning.SETTINGS, steps=2, batch=2, crop_cells=16)
        learning.SCENES, learning.OTHER_SCENES = 1, learning.OTHER_SCENES[:1]
    engine.build_engine = build_engine  # type: ignore[assignment]
    sys.exit(main())
