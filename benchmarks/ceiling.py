"""How much of a set's error labels would take away: the shipped head beside heads trained on the set's own reference.

    python benchmarks/ceiling.py --data DATA --work DIR [--set empiar-10017]
        [--folds 4] [--steps 240] [--model NAME|DIR]

The micrographs are dealt into folds. For each, a head is trained further on all others WITH their reference
coordinates, and picks those of the fold. This only says how well the reference can be predicted from an image, by who
knows how its curators choose: nothing that is trained here ships, and no picker may use it. Such a head is not balanced
anew: look at AP and at the best F1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from report import markdown
from scoring import score_set
from sets import BenchmarkSet, chosen_sets

from cryoemmae_plugin.core.default import GRID_DIAMETER_PX, pick_default
from cryoemmae_plugin.core.flattening import FlattenedMicrograph, flatten_background
from cryoemmae_plugin.core.head import Head
from cryoemmae_plugin.evaluation.metrics import Scored
from cryoemmae_plugin.images import read_image
from cryoemmae_plugin.settings import DEFAULT_THRESHOLD
from cryoemmae_plugin.training.examples import Example, example_of
from cryoemmae_plugin.training.head import HeadSettings, train_head
from cryoemmae_plugin.weights import Model, load_model

RATE = 1e-3


def main() -> int:
    """Print the figures of both heads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--set", dest="name", default="empiar-10017")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--model", default="emmae-base", help="or the folder of one that a run has adapted")
    options = parser.parse_args()
    model = load_model(options.model)
    chosen = next(chosen_sets(options.data, options.work, [options.name], simulated=False), None)
    if chosen is None or not 2 <= options.folds <= len(chosen.micrographs()):
        raise SystemExit(
            f"{options.name} in {options.data}: {options.folds} folds need as many micrographs, two at least"
        )
    shipped = Head.from_arrays(model.arrays)
    examples = {
        stem: example_of(model, flattened(chosen.folder / f"{stem}.mrc", chosen.diameter_px), reference.xy)
        for stem, reference in chosen.reference().items()
    }
    stems = list(examples)
    pickers = {"as shipped": pick_with(shipped, stems, chosen, model), "with labels": {}}
    for fold in range(options.folds):
        tested = stems[fold :: options.folds]
        taught = teach(shipped, [examples[stem] for stem in stems if stem not in tested], options.steps)
        pickers["with labels"] |= pick_with(taught, tested, chosen, model)
        print(f"fold {fold + 1} of {options.folds} done", file=sys.stderr, flush=True)
    default = DEFAULT_THRESHOLD["default"]
    scores = [
        score_set(chosen.name, name, chosen.reference(), found, default, float("nan"))
        for name, found in pickers.items()
    ]
    print(markdown(scores, [chosen]))
    return 0


def flattened(path: Path, diameter_px: float) -> FlattenedMicrograph:
    """The micrograph in a file, as the head sees it."""
    return flatten_background(torch.from_numpy(read_image(path)), diameter_px, GRID_DIAMETER_PX)


def teach(start: Head, examples: list[Example], steps: int) -> Head:
    """Train a head further on micrographs with their reference."""
    taught = train_head(examples, HeadSettings(steps=steps, rate=RATE), start=start)
    taught.calibration.copy_(start.calibration)
    return taught


def pick_with(head: Head, stems: list[str], chosen: BenchmarkSet, model: Model) -> dict[str, Scored]:
    """All candidates of some micrographs of a set."""
    found = {}
    for stem in stems:
        image = torch.from_numpy(read_image(chosen.folder / f"{stem}.mrc"))
        with torch.inference_mode():
            picks = pick_default(image, model, head, chosen.diameter_px)
        found[stem] = Scored(picks.xy, picks.score)
    return found


if __name__ == "__main__":
    sys.exit(main())
