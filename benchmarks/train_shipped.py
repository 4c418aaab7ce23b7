"""Train the models that ship: from unlabelled micrographs, real and simulated, to `models/`.

    python benchmarks/train_shipped.py emmae-base|emmae-paper --data DATA --work DIR [--device cuda]

The recipe is cut to what two CPU cores finish in about four hours; it resumes where it stopped. Of the real sets the
first micrographs by name are used, the others are kept back.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sets import REAL_SETS

from cryoemmae_plugin.simulate import Scene, random_scene, write_micrographs
from cryoemmae_plugin.training.fit import FitSettings
from cryoemmae_plugin.training.train import TrainingMicrograph, train_model

KEPT_FOR_TRAINING = {"empiar-10017": 5, "empiar-10146": 4, "negatives": 3}
SIMULATED = 48
SCENE_SEED = 20260101
FIRST_SEED = 5000

RECIPES = {
    "emmae-base": ("default", FitSettings(epochs=4, batch=32, base_rate=4e-3, warmup_epochs=0.3, checkpoint_steps=25)),
    "emmae-paper": ("paper", FitSettings(epochs=3, batch=32, base_rate=4e-3, warmup_epochs=0.5, checkpoint_steps=25)),
}


def real_micrographs(source: Path, names: tuple[str, ...]) -> list[TrainingMicrograph]:
    """Return the real micrographs that are trained on."""
    found = []
    for real in REAL_SETS:
        if real.name in names:
            images = sorted(p for p in (source / real.name).iterdir() if p.suffix in (".jpg", ".png"))
            diameter_A = real.diameter_px * real.pixel_size_A
            chosen = images[: KEPT_FOR_TRAINING[real.name]]
            found += [TrainingMicrograph(path, diameter_A, real.pixel_size_A) for path in chosen]
    return found


def simulated_micrographs(folder: Path) -> list[TrainingMicrograph]:
    """Return the simulated micrographs that are trained on, made if they are not there."""
    rng = np.random.default_rng(SCENE_SEED)
    scenes = [Scene(f"train_{at:03d}", random_scene(rng)) for at in range(SIMULATED)]
    if not (folder / "reference.csv").exists():
        write_micrographs(folder, scenes, range(FIRST_SEED, FIRST_SEED + SIMULATED), dtype="float16")
    return [
        TrainingMicrograph(folder / f"{s.name}.mrc", s.settings.diameter_A, s.settings.pixel_size_A) for s in scenes
    ]


def main() -> int:
    """Train one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    mode, settings = RECIPES[options.name]
    if mode == "default":
        micrographs = real_micrographs(options.data, tuple(KEPT_FOR_TRAINING))
        micrographs += simulated_micrographs(options.work / "simulated")
        data = (
            "5 micrographs of EMPIAR-10017, 4 of EMPIAR-10146, 3 without particles (MicAssess examples), 48 simulated"
        )
    else:
        micrographs = real_micrographs(options.data, ("empiar-10017", "empiar-10146"))
        data = "5 micrographs of EMPIAR-10017 and 4 of EMPIAR-10146"
    start = time.monotonic()

    def report(done: int, total: int, loss: float) -> None:
        if done % 10 == 0 or done == total:
            print(f"step {done}/{total}  loss {loss:.4f}  {time.monotonic() - start:.0f} s", flush=True)

    folder = train_model(
        micrographs,
        options.work / options.name,
        options.name,
        mode=mode,
        settings=settings,
        data=data + ", all unlabelled",
        device=torch.device(options.device),
        progress=report,
    )
    print(f"{folder}: copy the card and the tensors (not training/) to models/{options.name}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
