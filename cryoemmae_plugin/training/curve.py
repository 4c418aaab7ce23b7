"""The learning curve: the loss beside the error of a predictor that has learned nothing, and what follows from both."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryoemmae_plugin.files import atomic_write

COLUMNS = ("step", "rate", "loss", "trivial", "skill")
SMOOTHED_STEPS = 50
"""Steps that the skill of a message is averaged over."""
END_SHARE, END_STEPS = 0.05, 20
"""The skill of a training is that of its last steps: this share of them, and at least so many."""
SUMMARY_POINTS = 12
"""Points of the curve that a model's card keeps."""


def skill_of(loss: float, trivial: float) -> float:
    """Skill: 0 is no better than the mean of each tile, 1 is perfect.

    Parameters
    ----------
    loss : float
        Mean squared error of hidden patches.
    trivial : float
        That of the tile's mean as the prediction. 0, from tiles without contrast, leaves nothing to learn: skill 0.
    """
    return 1 - loss / trivial if trivial > 0 else 0.0


@dataclass(frozen=True)
class Point:
    """One step of a training."""

    step: int
    rate: float
    loss: float
    trivial: float

    @property
    def skill(self) -> float:
        """Skill of this step alone."""
        return skill_of(self.loss, self.trivial)


class LearningCurve:
    """Collects the figures of every step, and keeps them in a CSV file.

    Parameters
    ----------
    keep : int
        Of a file that is there already, the rows up to this step are kept.

    Attributes
    ----------
    diverged_at : int or None
        First step whose loss or gradient was not a finite number.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        self._path = path
        self._points = [point for point in read_curve(path) if point.step <= keep] if keep else []
        self._waiting: list[tuple[int, float, Tensor]] = []
        self.diverged_at: int | None = None

    def add(self, step: int, rate: float, loss: Tensor, trivial: Tensor, norm: Tensor) -> None:
        """Note a step. The numbers stay on the device until :meth:`look`, so that a GPU goes on meanwhile."""
        self._waiting.append((step, rate, torch.stack([loss, trivial, norm])))

    def look(self) -> None:
        """Take in the steps that wait."""
        if not self._waiting:
            return
        figures = torch.stack([figures for _, _, figures in self._waiting]).tolist()
        for (step, rate, _), (loss, trivial, norm) in zip(self._waiting, figures, strict=True):
            if not math.isfinite(loss + norm):
                self.diverged_at = self.diverged_at or step
            if self.diverged_at is None:
                self._points.append(Point(step, rate, loss, trivial))
        self._waiting.clear()

    def write(self) -> None:
        """Write the file, as a whole."""
        self.look()
        with atomic_write(self._path) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for p in self._points:
                writer.writerow((p.step, f"{p.rate:.3e}", f"{p.loss:.5f}", f"{p.trivial:.5f}", f"{p.skill:.4f}"))

    @property
    def points(self) -> list[Point]:
        """All steps so far."""
        return self._points

    def recent(self) -> Point:
        """Mean of the latest steps, for messages."""
        return _mean(self._points[-SMOOTHED_STEPS:])

    def end(self) -> Point:
        """Mean of the last steps of the training: what it has come to."""
        return _mean(self._points[-max(END_STEPS, round(END_SHARE * len(self._points))) :])

    def summary(self) -> tuple[tuple[int, float], ...]:
        """A dozen points (step, mean skill up to it since the one before), for a model's card."""
        parts = np.array_split(np.arange(len(self._points)), min(SUMMARY_POINTS, len(self._points)))
        means = [_mean([self._points[at] for at in part]) for part in parts]
        return tuple((mean.step, round(mean.skill, 3)) for mean in means)


def read_curve(path: Path) -> list[Point]:
    """Read a curve; empty where there is no file.

    Raises
    ------
    KeyError, ValueError
        When the file is something else.
    """
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Point(int(row["step"]), float(row["rate"]), float(row["loss"]), float(row["trivial"]))
            for row in csv.DictReader(file)
        ]


def _mean(points: list[Point]) -> Point:
    """Mean of some points, at the step of the last."""
    if not points:
        return Point(0, 0.0, math.nan, math.nan)
    rate, loss, trivial = np.mean([(p.rate, p.loss, p.trivial) for p in points], axis=0).tolist()
    return Point(points[-1].step, rate, loss, trivial)
