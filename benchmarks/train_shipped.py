"""Train the models that ship: from unlabelled micrographs, real and simulated, to a model folder.

    python benchmarks/train_shipped.py emmae-base|emmae-paper --data DATA --work DIR [--device cuda]

It resumes where it stopped. A training from elsewhere is completed, or continued:

    python benchmarks/train_shipped.py emmae-paper --data DATA --work DIR --complete CHECKPOINT
    python benchmarks/train_shipped.py emmae-paper --data DATA --work DIR --continue-from CHECKPOINT

Such a checkpoint is a torch file with the tensors of encoder and decoder under "model", and optionally "mean", "std",
"held_trivial" and "log": rows of step, rate, loss, trivial error, kept-back loss or None, seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from training_data import TrainingData, training_data

from cryoemmae_plugin.settings import Mode
from cryoemmae_plugin.training.checkpoint import read_checkpoint
from cryoemmae_plugin.training.complete import (
    Description,
    Learned,
    check_skill,
    complete_model,
    describe_hardware,
    show_reconstructions,
)
from cryoemmae_plugin.training.curve import LearningCurve, Point
from cryoemmae_plugin.training.fit import CURVE_FILE, Fitted
from cryoemmae_plugin.training.mae import MaskedAutoencoder, new_autoencoder
from cryoemmae_plugin.training.make_head import NEW_HEAD, HeadPlan
from cryoemmae_plugin.training.pictures import draw_loss_curve
from cryoemmae_plugin.training.prepare import prepare, tile_source
from cryoemmae_plugin.training.recipe import FitSettings
from cryoemmae_plugin.training.start import Start
from cryoemmae_plugin.training.train import describe_recipe, summarise, train_model

RECIPES: dict[str, tuple[Mode, FitSettings]] = {
    "emmae-base": ("default", FitSettings(epochs=12, batch=16, rate=1e-3, weight_decay=0.02, beta2=0.95)),
    "emmae-paper": ("paper", FitSettings(epochs=5, batch=16, rate=1e-3)),
}
"""Mode and recipe of each model, cut to what two CPU cores finish in an hour or two."""


def load_training(path: Path, mode: Mode) -> tuple[MaskedAutoencoder, dict[str, Any]]:
    """Load the autoencoder of a training from elsewhere, and its checkpoint."""
    state = read_checkpoint(path)
    model = new_autoencoder(mode, FitSettings())
    model.load_state_dict(state["model"])
    return model, state


def complete(
    name: str, data: TrainingData, checkpoint: Path, folder: Path, plan: HeadPlan, recipe: str, scenes: Path | None
) -> Path:
    """Make a model folder of a training from elsewhere."""
    mode, settings = RECIPES[name]
    model, state = load_training(checkpoint, mode)
    images, diameters = prepare(data.micrographs, mode, say_stage)
    source = tile_source(images, mode, settings.tiles)
    source.mean, source.std = state.get("mean", source.mean), state.get("std", source.std)
    held = tile_source(prepare(data.kept_back, mode, say_stage)[0], mode)
    held.mean, held.std = source.mean, source.std
    log = state.get("log", [])
    curve = LearningCurve(folder / "training" / CURVE_FILE)
    curve.points.extend(Point(int(row[0]), row[1], row[2], row[3]) for row in log)
    curve.write()
    draw_loss_curve(folder / "training" / CURVE_FILE, folder / "training" / "loss.png")
    summary = summarise(Fitted(model, curve, log[-1][5] / 3600 if log else 0.0), source, held)
    show_reconstructions(model, held, folder / "training" / "reconstructions.png")
    check_skill(summary.skill or 0.0, settings.least_skill, folder / "training")
    described = Description(
        name,
        data.description,
        recipe or describe_recipe(settings, len(source)),
        describe_hardware(torch.device("cpu")),
    )
    learned = Learned(model, source, diameters, summary)
    return complete_model(folder, mode, learned, described, plan=plan, on_stage=say_stage, scenes=scenes)


def say_stage(stage: str, done: int, total: int) -> None:
    """Print how far a stage is, now and then."""
    if done in (0, total) or done % 20 == 0:
        print(f"{stage}: {done}/{total}", flush=True)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real images")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=int, help="passes over the tiles, instead of the recipe's")
    parser.add_argument("--complete", type=Path, metavar="CHECKPOINT", help="make the model of a finished training")
    parser.add_argument("--recipe", default="", help="what the card says of a training that is completed")
    parser.add_argument("--continue-from", type=Path, metavar="CHECKPOINT", help="begin with its weights")
    parser.add_argument("--scenes", type=Path, help="folder that keeps the head's simulated micrographs")
    parser.add_argument("--head-scenes", type=int, default=NEW_HEAD.scenes)
    parser.add_argument("--head-held-out", type=int, default=NEW_HEAD.held_out)
    parser.add_argument("--head-steps", type=int, default=NEW_HEAD.settings.steps)
    parser.add_argument("--head-first-seed", type=int, default=NEW_HEAD.first_seed)
    return parser.parse_args()


def main() -> int:
    """Train one model."""
    options = arguments()
    mode, settings = RECIPES[options.name]
    if options.epochs:
        settings = settings.model_copy(update={"epochs": options.epochs})
    head_settings = replace(NEW_HEAD.settings, steps=options.head_steps)
    plan = HeadPlan(options.head_scenes, options.head_held_out, head_settings, options.head_first_seed)
    data, folder = training_data(options.data, options.work), options.work / options.name
    if options.complete:
        complete(options.name, data, options.complete, folder, plan, options.recipe, options.scenes)
    else:
        began = time.monotonic()

        def report(done: int, total: int, skill: float) -> None:
            if done % 10 == 0 or done == total:
                print(f"step {done}/{total}  skill {skill:.3f}  {time.monotonic() - began:.0f} s", flush=True)

        start = Start(load_training(options.continue_from, mode)[0]) if options.continue_from else None
        train_model(
            data.micrographs,
            folder,
            options.name,
            mode=mode,
            settings=settings,
            start=start,
            head=plan,
            data=data.description,
            kept_back=data.kept_back,
            device=torch.device(options.device),
            progress=report,
            on_stage=say_stage,
            scenes=options.scenes,
        )
    print(f"{folder}: copy the card and the tensors (not training/) to models/{options.name}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
