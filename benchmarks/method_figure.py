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
from torch.nn import functional

from cryoemmae_plugin.core.default import GRID_DIAMETER_PX, extract_features, score_candidates
from cryoemmae_plugin.core.embedding_features import embed_any_size
from cryoemmae_plugin.core.flattening import flatten_background
from cryoemmae_plugin.core.head import Head, score_cells
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.settings import DEFAULT_THRESHOLD
from cryoemmae_plugin.simulate import SimulationSettings, simulate
from cryoemmae_plugin.weights import Model, load_model

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
SHIFTS = 4
"""The embedding is drawn as the mean over so many shifts of the tiles along each axis, which hides their seams."""


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
        ("1  Scaled, background flattened", flattened.pixels, {"cmap": "gray", "vmin": -4, "vmax": 4}),
        ("2  Response of the matched filter", features.sigmas, {"cmap": "magma", "vmin": -3, "vmax": 9}),
        ("3  Embedding, relative to its surroundings", _colours(_seamless_embedding(flattened.pixels, model)), {}),
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


def _seamless_embedding(pixels: torch.Tensor, model: Model) -> torch.Tensor:
    """Tokens (dim, rows, columns) of the embedding, averaged over shifts of the tiles."""
    tile_px, patch_px = model.encoder.config.tile_px, model.encoder.config.patch_px
    rows, columns = (-(-side // patch_px) for side in pixels.shape)
    total = torch.zeros(rows, columns, model.encoder.config.embed_dim)
    for down in range(0, tile_px, tile_px // SHIFTS):
        for right in range(0, tile_px, tile_px // SHIFTS):
            shifted = functional.pad(pixels[None, None], (right, 0, down, 0), mode="reflect")[0, 0]
            tokens = embed_any_size(shifted, model.encoder, model.mean, model.std)
            tokens = _minus_tile_median(tokens, tile_px // patch_px)
            total += tokens[down // patch_px :, right // patch_px :][:rows, :columns]
    return total.permute(2, 0, 1)


def _minus_tile_median(tokens: torch.Tensor, side: int) -> torch.Tensor:
    """Tokens (rows, columns, dim) without the median of their tile, of `side` x `side` cells."""
    relative = tokens.clone()
    for tile in (block for rows in relative.split(side, 0) for block in rows.split(side, 1)):
        tile -= tile.flatten(0, 1).median(0).values
    return relative


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
