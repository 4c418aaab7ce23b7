"""The loss curve of a training."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from cryoemmae_plugin.files import atomic_write_bytes

SMOOTHING_SHARE = 0.02
"""Width of the running mean, as a share of all steps."""


def draw_loss_curve(table: Path, figure: Path) -> None:
    """Draw ``step,rate,loss`` lines as a PNG.

    Parameters
    ----------
    table : Path
        As :func:`cryoemmae_plugin.training.fit.fit` writes it; without a row nothing is drawn.
    figure : Path
    """
    from matplotlib.figure import Figure

    with table.open(newline="") as file:
        rows = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    if not rows:
        return
    step, loss = np.array(rows).T
    width = max(1, round(SMOOTHING_SHARE * len(loss)))
    smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
    canvas = Figure(figsize=(6, 3.5), layout="constrained")
    axes = canvas.add_subplot()
    axes.plot(step, loss, color="0.8", linewidth=0.7)
    axes.plot(step[width - 1 :], smooth, color="C0")
    axes.set(xlabel="step", ylabel="mean squared error of hidden patches", ylim=(0, None))
    picture = io.BytesIO()
    canvas.savefig(picture, dpi=120, format="png")
    atomic_write_bytes(figure, picture.getvalue())
