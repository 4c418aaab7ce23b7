"""How much of a set's error labels would take away: the shipped head beside one trained on the set's own reference.

    python benchmarks/ceiling.py --data DATA --work DIR [--set empiar-10017] [--train 5] [--steps 240]

The first micrographs by name are trained on WITH their reference coordinates, the others are tested, each head at the
threshold that is best for it on each. This only says how well the reference can be predicted: nothing that is trained
here ships, and no picker may use it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from sets import chosen_sets

from cryoemmae_plugin.core.head import Head
from cryoemmae_plugin.images import read_image
from cryoemmae_plugin.training.examples import Example, view_example
from cryoemmae_plugin.training.head import HeadSettings, answer, train_head
from cryoemmae_plugin.weights import load_model

RATE = 1e-3


def main() -> int:
    """Print F1 of both heads for every tested micrograph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--set", dest="name", default="empiar-10017")
    parser.add_argument("--train", type=int, default=5, help="micrographs whose reference is trained on")
    parser.add_argument("--steps", type=int, default=240)
    options = parser.parse_args()
    model = load_model("emmae-base")
    chosen = next(chosen_sets(options.data, options.work, [options.name], simulated=False), None)
    if chosen is None or len(chosen.micrographs()) <= options.train:
        raise SystemExit(f"{options.name} in {options.data}: more than {options.train} micrographs are needed")
    known = chosen.reference()
    examples = [
        view_example(model, read_image(chosen.folder / f"{stem}.mrc"), chosen.diameter_px, reference.xy)
        for stem, reference in known.items()
    ]
    shipped = Head.from_arrays(model.arrays)
    settings = HeadSettings(steps=options.steps, rate=RATE)
    taught = train_head(examples[: options.train], settings, start=shipped)
    print("F1 at the best threshold of each, centres within 0.3 diameters")
    for stem, example in list(zip(known, examples, strict=True))[options.train :]:
        print(f"{stem}  shipped {best_f1(shipped, example):.3f}  with labels {best_f1(taught, example):.3f}")
    return 0


def best_f1(head: Head, example: Example) -> float:
    """F1 at the threshold that is best for this micrograph."""
    found = answer(head, example)
    hits = np.cumsum(found.particle)  # candidates come best first
    return float((2 * hits / (np.arange(1, len(hits) + 1) + found.known)).max(initial=0.0))


if __name__ == "__main__":
    sys.exit(main())
