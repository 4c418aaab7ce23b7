"""Compare training recipes by the CPU time that each needs to leave the plateau.

    python benchmarks/recipes.py --data DATA --work DIR [--mode paper] [--dimensions default] [--seconds 60]

Each recipe trains a new autoencoder of the same seed on the same tiles, for so many seconds of one CPU core. The CPU
time of the process is counted, so that other programs on the machine do not matter. The table says when the mean skill
of 25 steps first passes 0.1, and what it has come to at the end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from training_data import training_data

from cryoemmae_plugin.errors import Interrupted, TrainingError
from cryoemmae_plugin.settings import Mode
from cryoemmae_plugin.training.curve import read_curve, skill_of
from cryoemmae_plugin.training.fit import CURVE_FILE, fit
from cryoemmae_plugin.training.mae import new_autoencoder
from cryoemmae_plugin.training.prepare import prepare, tile_source
from cryoemmae_plugin.training.recipe import PUBLISHED, FitSettings
from cryoemmae_plugin.training.tiles import TileSource

LEFT_AT, SMOOTHED_STEPS = 0.1, 25
"""The plateau is left where the mean skill of so many steps passes this."""

RECIPES: dict[str, FitSettings] = {
    "default": FitSettings(),
    "batch 8": FitSettings(batch=8),
    "batch 32": FitSettings(batch=32),
    "batch 64": FitSettings(batch=64),
    "rate 3e-4": FitSettings(rate=3e-4),
    "rate 3e-3": FitSettings(rate=3e-3),
    "random queries and keys": FitSettings(query_key_gain=0),
    "no warm-up": FitSettings(warmup_steps=0),
    "float32": FitSettings(precision="float32"),
    "published": PUBLISHED.model_copy(update={"tiles": "crops"}),
}
"""The published recipe is compared on the same crops as the others."""


@dataclass(frozen=True)
class Outcome:
    """What a recipe has come to in its CPU time."""

    name: str
    settings: FitSettings
    steps: int
    tiles_per_s: float
    left_step: int | None
    left_s: float | None
    skill: float


def try_recipe(name: str, settings: FitSettings, source: TileSource, dimensions: Mode, seconds: float) -> Outcome:
    """Train for so many seconds of CPU time."""
    times: list[float] = []
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        try:
            fit(
                source,
                settings.model_copy(update={"checkpoint_steps": 10**9}),
                Path(folder),
                start=new_autoencoder(dimensions, settings),
                progress=lambda done, total, skill: times.append(time.process_time() - began),
                should_stop=lambda: time.process_time() - began > seconds,
            )
        except (Interrupted, TrainingError) as err:
            print(f"  {name}: {err}", flush=True)
        points = read_curve(Path(folder) / CURVE_FILE)
    width = min(SMOOTHED_STEPS, len(points))
    loss, trivial = (
        np.convolve(values, np.ones(width) / width, mode="valid")
        for values in (np.array([p.loss for p in points]), np.array([p.trivial for p in points]))
    )
    skill = np.array([skill_of(*pair) for pair in zip(loss, trivial, strict=True)])
    left = np.flatnonzero(skill > LEFT_AT)
    at = int(left[0]) + width if len(left) else None
    return Outcome(
        name,
        settings,
        len(points),
        len(points) * settings.batch / times[-1],
        at,
        None if at is None else times[min(at, len(times)) - 1],
        float(skill[-1]),
    )


def table(outcomes: list[Outcome]) -> str:
    """Return the outcomes as a Markdown table."""
    lines = [
        "| recipe | batch | rate | precision | tiles/s | leaves the plateau at step | after s of CPU | steps | skill |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for o in outcomes:
        left = "never | never" if o.left_step is None else f"{o.left_step} | {o.left_s:.0f}"
        s = o.settings
        lines.append(
            f"| {o.name} | {s.batch} | {s.rate:g} | {s.precision} | {o.tiles_per_s:.0f} | {left} | {o.steps} | "
            f"{o.skill:.2f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Compare all recipes, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real images")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--mode", choices=get_args(Mode), default="paper", help="whose tiles")
    parser.add_argument("--dimensions", choices=get_args(Mode), default="default", help="whose autoencoder")
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU time of each recipe")
    parser.add_argument("--micrographs", type=int, default=10, help="how many of the real micrographs")
    parser.add_argument("--only", nargs="*", choices=RECIPES, default=list(RECIPES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = training_data(options.data, options.work, simulated=False)
    images, _ = prepare(data.micrographs[: options.micrographs], options.mode)
    source = tile_source(images, options.mode)
    print(f"{len(source)} tiles an epoch; {data.description}", flush=True)
    outcomes = []
    for name in options.only:
        outcomes.append(try_recipe(name, RECIPES[name], source, options.dimensions, options.seconds))
        print(table(outcomes[-1:]).splitlines()[-1], flush=True)
    options.work.mkdir(parents=True, exist_ok=True)
    (options.work / "recipes.md").write_text(table(outcomes) + "\n")
    print(table(outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
