"""Measure accuracy: `cryoemmae pick` with its default settings over every set, scored, as one table.

    python benchmarks/accuracy.py --data DATA --work DIR [--mode default|paper] [--model NAME|DIR] [--no-simulated]

DATA holds the real sets (empiar-10017/, empiar-10146/, negatives/), each with images and reference.csv. Run again, it
goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from sets import BenchmarkSet, real_sets, simulated_sets

from cryoemmae_plugin.evaluation.metrics import Scored, evaluate
from cryoemmae_plugin.evaluation.tables import read_picks, read_reference
from cryoemmae_plugin.run.store import ResultStore

THRESHOLDS = [step / 40 for step in range(40)]
COLUMNS = (
    "set",
    "micrographs",
    "picks each",
    "F1 iou06",
    "F1 half_d",
    "AP",
    "mean IoU",
    "best F1 half_d (at)",
    "s each",
)


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--mode", default="default")
    parser.add_argument("--model")
    parser.add_argument("--no-simulated", action="store_true")
    options = parser.parse_args()
    sets = real_sets(options.data, options.work / "sets")
    if not options.no_simulated:
        sets += simulated_sets(options.work / "sets")
    rows = [measure(chosen, options.work / f"picks-{options.mode}", options.mode, options.model) for chosen in sets]
    print_table(rows)
    return 0


def measure(chosen: BenchmarkSet, out: Path, mode: str, model: str | None) -> dict[str, object]:
    """Pick one set from the command line, and score it."""
    folder = out / chosen.name
    command = [sys.executable, "-m", "cryoemmae_plugin", "pick", str(chosen.folder), "--out", str(folder)]
    command += ["--diameter", f"{chosen.diameter_A:.6g}", "--mode", mode, "--overlays", "2"]
    command += ["--model", model] if model else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    timings = json.loads((folder / "summary.json").read_text())["timings"]
    return {"set": chosen.name, "seconds": timings["per_micrograph_s"] or 0.0, **score(chosen, folder)}


def score(chosen: BenchmarkSet, folder: Path) -> dict[str, object]:
    """Score the picks at the default threshold, and find the best threshold over the stored candidates."""
    truth = read_reference(chosen.folder / "reference.csv")
    picks = read_picks([folder / "picks.star"], list(truth))
    micrographs = sum(1 for _ in chosen.folder.glob("*.mrc"))
    row: dict[str, object] = {"micrographs": micrographs, "picks": sum(len(p.xy) for p in picks.values()) / micrographs}
    if not truth:
        return row
    at_default = evaluate(truth, picks)
    candidates = all_candidates(folder)
    best, at = max((evaluate(truth, above(candidates, t)).mean["half_d"].f1, t) for t in THRESHOLDS)
    return row | {
        "iou06": at_default.mean["iou06"].f1,
        "half_d": at_default.mean["half_d"].f1,
        "ap": evaluate(truth, candidates).average_precision,
        "mean_iou": at_default.mean_iou,
        "best": best,
        "at": at,
    }


def all_candidates(folder: Path) -> dict[str, Scored]:
    """Return every stored candidate, by the stem of the micrograph."""
    with ResultStore.open(folder) as store:
        return {Path(r.micrograph).stem: Scored(r.picks.xy, r.picks.score.astype(float)) for r in store}


def above(candidates: dict[str, Scored], threshold: float) -> dict[str, Scored]:
    """Return the candidates with at least this score."""
    return {
        name: Scored(found.xy[found.score >= threshold], found.score[found.score >= threshold])
        for name, found in candidates.items()
    }


def print_table(rows: list[dict[str, object]]) -> None:
    """Print a Markdown table, a row a set."""
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + " --- |" * len(COLUMNS))
    for row in rows:
        cells = [row["set"], row["micrographs"], f"{row['picks']:.0f}"]
        if "half_d" in row:
            cells += [f"{row[key]:.3f}" for key in ("iou06", "half_d", "ap", "mean_iou")]
            cells.append(f"{row['best']:.3f} ({row['at']:.2f})")
        else:
            cells += ["no particles", "", "", "", ""]
        print("| " + " | ".join(map(str, [*cells, f"{row['seconds']:.1f}"])) + " |")


if __name__ == "__main__":
    sys.exit(main())
