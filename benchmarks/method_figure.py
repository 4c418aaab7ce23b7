"""Draw the steps of the default mode on a simulated micrograph, for docs/method.md.

python benchmarks/method_figure.py docs/images/method.png [--model NAME]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryoemmae_plugin.core.default import GRID_DIAMETER_PX, extract_features, score_candidates
from cryoemmae_plugin.core.flattening import flatten_background
from cryoemmae_plugin.core.head import CLUSTER_LAYERS, Head, score_cells
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.settings import DEFAULT_THRESHOLD
from cryoemmae_plugin.simulate import SimulationSettings, simulate
from cryoemmae_plugin.weights import load_model

SCENE = SimulationSettings(
    shape=(620, 820),
    particle="tetramer",
    diameter_A=180.0,
    pixel_size_A=3.0,
    n_particles=45,
    defocus_um=2.2,
    carbon=0.15,
    grains=6,
    frost=1,
)
SEED = 11


def main() -> int:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", type=Path)
    parser.add_argument("--model", default="emmae-base")
    options = parser.parse_args()
    model = load_model(options.model)
    head = Head.from_arrays(model.arrays)
    micrograph = simulate(SCENE, SEED)
    with torch.inference_mode():
        flattened = flatten_background(torch.from_numpy(micrograph.image), micrograph.diameter_px, GRID_DIAMETER_PX)
        features = extract_features(flattened, model, StepTimer())
        score = head.score(score_cells(head, features.pixels, features.cells, features.inside_cells)[0])
        picks = score_candidates(features, flattened, head).above(DEFAULT_THRESHOLD["default"])
    canvas = Figure(figsize=(11, 6.2), layout="constrained")
    axes = canvas.subplots(2, 3).ravel()
    low, high = np.quantile(micrograph.image, [0.01, 0.99])
    panels = (
        ("Micrograph", micrograph.image, {"cmap": "gray", "vmin": low, "vmax": high}),
        ("1  Same size, flat ice", flattened.pixels, {"cmap": "gray", "vmin": -4, "vmax": 4}),
        ("2  Answer to the stencil", features.sigmas, {"cmap": "magma", "vmin": -3, "vmax": 9}),
        ("3  Embedding: its three strongest directions", _colours(features.cells[0, CLUSTER_LAYERS:]), {}),
        ("4  Figure of merit of each cell", score, {"cmap": "magma", "vmin": 0, "vmax": 1}),
        (f"5  {len(picks)} picks", micrograph.image, {"cmap": "gray", "vmin": low, "vmax": high}),
    )
    for axis, (title, image, look_up) in zip(axes, panels, strict=True):
        axis.imshow(np.asarray(image), **look_up)
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    x, y = picks.xy.T
    axes[-1].scatter(x, y, s=130, facecolors="none", edgecolors="#35d07f", linewidths=1.2)
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(options.figure, dpi=75)
    return 0


def _colours(tokens: torch.Tensor) -> NDArray[np.float64]:
    """Project tokens (dim, rows, columns) to their three strongest directions, as colours in 0..1."""
    flat = tokens.reshape(len(tokens), -1).T.double()
    centred = flat - flat.mean(0)
    _, _, directions = torch.linalg.svd(centred[:: max(1, len(centred) // 4000)], full_matrices=False)
    projected = centred @ directions[:3].T
    low, high = (torch.quantile(projected, q, dim=0) for q in (0.02, 0.98))
    return ((projected - low) / (high - low)).clamp(0, 1).reshape(*tokens.shape[1:], 3).numpy()


if __name__ == "__main__":
    sys.exit(main())
