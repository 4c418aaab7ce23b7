"""Pictures of a training: its learning curve, and what the autoencoder restores."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.files import atomic_write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTHING_SHARE = 0.02
"""Width of the running mean, as a share of all steps."""
CONTRAST_QUANTILES = (0.005, 0.995)
"""Quantiles of the tiles that black and white stand for."""


def draw_loss_curve(table: Path, figure: Path) -> None:
    """Draw loss, error of the trivial predictor and skill against the step, as a PNG.

    Parameters
    ----------
    table : Path
        CSV as :class:`cryoemmae_plugin.training.curve.LearningCurve` writes it; without a row nothing is drawn.
    """
    from matplotlib.figure import Figure

    with table.open(newline="") as file:
        rows = [(int(r["step"]), float(r["loss"]), float(r["trivial"])) for r in csv.DictReader(file)]
    if not rows:
        return
    step, loss, trivial = np.array(rows).T
    width = max(1, round(SMOOTHING_SHARE * len(loss)))
    kernel = np.ones(width) / width
    smooth_loss, smooth_trivial = (np.convolve(values, kernel, mode="valid") for values in (loss, trivial))
    canvas = Figure(figsize=(6, 5), layout="constrained")
    error, skill = canvas.subplots(2, 1, sharex=True)
    error.plot(step, loss, color="0.8", linewidth=0.7)
    error.plot(step[width - 1 :], smooth_loss, color="C0", label="autoencoder")
    error.plot(step[width - 1 :], smooth_trivial, color="C3", linestyle="--", label="mean of each tile")
    error.set(ylabel="squared error, hidden patches", ylim=(0, None))
    error.legend(frameon=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        skill.plot(step[width - 1 :], 1 - smooth_loss / smooth_trivial, color="C0")
    skill.axhline(0, color="C3", linestyle="--", linewidth=1)
    skill.set(xlabel="step", ylabel="skill", ylim=(-0.2, 1))
    _save(canvas, figure)


def draw_reconstructions(
    tiles: NDArray[np.float32], hidden: NDArray[np.bool_], restored: NDArray[np.float32], figure: Path
) -> None:
    """Draw tiles, what the autoencoder saw of them, and what it made of that, as a PNG.

    Parameters
    ----------
    tiles, restored : ndarray, shape (N, rows, columns)
    hidden : ndarray, shape (N, rows, columns)
        Pixels that were hidden.
    """
    from matplotlib.figure import Figure

    low, high = (float(np.quantile(tiles, q)) for q in CONTRAST_QUANTILES)
    canvas = Figure(figsize=(1.4 * len(tiles), 4.6), layout="constrained")
    axes = canvas.subplots(3, len(tiles), squeeze=False)
    shown = {"tile": tiles, "half hidden": np.where(hidden, np.nan, tiles), "restored": restored}
    for row, (title, images) in zip(axes, shown.items(), strict=True):
        for axis, image in zip(row, images, strict=True):
            axis.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axis.set(xticks=[], yticks=[], facecolor="0.85")
        row[0].set_ylabel(title)
    _save(canvas, figure)


def _save(canvas: Figure, figure: Path) -> None:
    picture = io.BytesIO()
    canvas.savefig(picture, dpi=120, format="png")
    atomic_write_bytes(figure, picture.getvalue())
