"""The figures in a job's log."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

SCORE_BINS = 50
_SIZE = (6.0, 3.2)
_COLOUR = "#14746f"


class ScoreHistogram:
    """Counts figures of merit as they come, in `SCORE_BINS` bins from 0 to 1: memory does not grow with the run."""

    def __init__(self) -> None:
        self.edges = np.linspace(0.0, 1.0, SCORE_BINS + 1)
        self.counts: NDArray[np.int64] = np.zeros(SCORE_BINS, np.int64)

    def add(self, scores: NDArray[np.float32]) -> None:
        """Count the candidates of one micrograph."""
        self.counts += np.histogram(np.clip(scores, 0, 1), self.edges)[0]


def score_figure(histogram: ScoreHistogram, threshold: float) -> Figure:
    """Histogram of the figures of merit, with the threshold."""
    figure, axes = _figure()
    axes.stairs(histogram.counts, histogram.edges, fill=True, color=_COLOUR, alpha=0.6)
    axes.axvline(threshold, color="black", linestyle="--", linewidth=1, label=f"picked from {threshold:g} on")
    axes.set(xlabel="figure of merit (NCC score in Inspect Particle Picks)", ylabel="candidates", xlim=(0, 1))
    axes.legend(frameon=False)
    return figure


def picks_figure(picks: Sequence[int]) -> Figure:
    """Histogram of the picks per micrograph."""
    figure, axes = _figure()
    most = max(picks, default=0)
    axes.hist(picks, bins=min(40, most + 1), range=(-0.5, most + 0.5), color=_COLOUR, alpha=0.6)
    axes.set(xlabel="picks in a micrograph", ylabel="micrographs")
    return figure


def defocus_figure(defocus_A: Sequence[float], per_area: Sequence[float]) -> Figure:
    """Picks per area against defocus: a slope means missed particles, or noise among the picks."""
    figure, axes = _figure()
    axes.scatter(np.asarray(defocus_A) / 1e4, per_area, s=6, alpha=0.5, color=_COLOUR)
    axes.set(xlabel="defocus (µm)", ylabel="picks per (0.1 µm)²", ylim=(0, None))
    return figure


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
