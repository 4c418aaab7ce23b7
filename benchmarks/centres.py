"""Whose centres scatter: the head's, the template's, or the reference's own.

    python benchmarks/centres.py --data DATA --work DIR [--model NAME|DIR] [--only SET ...]

Three sets of centres for the same particles differ in pairs by the sum of two variances each, so that the three pairs
give all three variances (the "three-cornered hat"), as far as their errors are independent. From the reference's own
scatter follows the mean IoU that perfect centres would reach against it. Constant shifts are told apart.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sets import BenchmarkSet, chosen_sets

from cryoemmae_plugin.core.default import GRID_DIAMETER_PX, LEAST_DISTANCE, extract_features
from cryoemmae_plugin.core.flattening import flatten_background
from cryoemmae_plugin.core.head import Head, find_centres, score_cells
from cryoemmae_plugin.core.matched_filter import find_peaks
from cryoemmae_plugin.core.suppression import non_maximum_suppression
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.evaluation.metrics import box_iou
from cryoemmae_plugin.images import read_image
from cryoemmae_plugin.settings import DEFAULT_THRESHOLD
from cryoemmae_plugin.weights import Model, load_model

SAME_PARTICLE = 0.25
"""Centres within this distance, in diameters, are of the same particle."""
DRAWS = 100_000

Centres = NDArray[np.float64]


def main() -> int:
    """Print the scatter of each of the three, per set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--only", nargs="+", default=["empiar-10017", "empiar-10146"], metavar="SET", help="with particles"
    )
    parser.add_argument("--model", default="emmae-base", help="or the folder of one that a run has adapted")
    options = parser.parse_args()
    model = load_model(options.model)
    head = Head.from_arrays(model.arrays)
    for chosen in chosen_sets(options.data, options.work, options.only):
        describe(chosen, np.concatenate(triples(chosen, model, head)))
    return 0


def triples(chosen: BenchmarkSet, model: Model, head: Head) -> list[Centres]:
    """Centres (N, 3, 2) of the head, the template and the reference, in micrograph pixels, for each micrograph."""
    found = []
    for stem, reference in chosen.reference().items():
        image = torch.from_numpy(read_image(chosen.folder / f"{stem}.mrc"))
        with torch.inference_mode():
            seen = flatten_background(image, chosen.diameter_px, GRID_DIAMETER_PX)
            features = extract_features(seen, model, StepTimer())
            log_odds, offset = score_cells(head, features.pixels, features.cells, features.inside_cells)
            xy, score = find_centres(head.score(log_odds), offset, DEFAULT_THRESHOLD["default"])
            maxima, _ = find_peaks(features.sigmas, LEAST_DISTANCE * seen.diameter_px, 0.0)
        xy = xy[non_maximum_suppression(xy, score, LEAST_DISTANCE * seen.diameter_px)]
        at, template = (seen.frame.to_micrograph(centres) for centres in (xy, maxima))
        near = [cKDTree(centres).query(at) for centres in (template, reference.xy)]
        same = np.all([distance < SAME_PARTICLE * chosen.diameter_px for distance, _ in near], axis=0)
        found.append(np.stack([at, template[near[0][1]], reference.xy[near[1][1]]], axis=1)[same])
    return found


def describe(chosen: BenchmarkSet, centres: Centres) -> None:
    """Print one set's scatters, shifts, and the IoU that the reference's scatter allows."""
    head, template, reference = centres.transpose(1, 0, 2)
    pairs = {"ht": head - template, "hr": head - reference, "tr": template - reference}
    v = {name: difference.var(axis=0).mean() for name, difference in pairs.items()}
    own = {
        "head": (v["ht"] + v["hr"] - v["tr"]) / 2,
        "template": (v["ht"] + v["tr"] - v["hr"]) / 2,
        "reference": (v["hr"] + v["tr"] - v["ht"]) / 2,
    }
    scatter = {name: float(np.sqrt(max(variance, 0.0))) for name, variance in own.items()}
    drawn = np.random.default_rng(0).normal(scale=scatter["reference"], size=(DRAWS, 2))
    shift = pairs["hr"].mean(axis=0)
    print(f"{chosen.name}: {len(centres)} particles, diameter {chosen.diameter_px:.0f} px")
    print("  scatter a side, px: " + ", ".join(f"{name} {value:.1f}" for name, value in scatter.items()))
    print(f"  head - reference, px: x {shift[0]:+.1f}, y {shift[1]:+.1f}")
    print(f"  mean IoU that perfect, unshifted centres would reach: {box_iou(drawn, chosen.diameter_px).mean():.3f}")


if __name__ == "__main__":
    sys.exit(main())
