"""Measure accuracy: pickers over every set, scored, as one table.

    python benchmarks/accuracy.py --data DATA --work DIR [--mode default|paper|none] [--model NAME|DIR]
        [--unadapted] [--per-scene N]
        [--peers log,topaz] [--ablate NAME ...] [--only SET ...] [--no-simulated] [--faint]

DATA holds the real sets (empiar-10017/, empiar-10146/, negatives/), each with images and reference.csv; the simulated
sets are made under DIR. Picks are kept there: run again, it goes on where it stopped, and picks anew whatever other
code, another model or other options have picked before. The table goes to the terminal, DIR/accuracy.md and
DIR/accuracy.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from peers import RelionLoG, Topaz
from pickers import CommandLine, InProcess, Picker, pick_set
from report import write_report
from scoring import SetScore, score_set
from sets import BenchmarkSet, chosen_sets
from variants import VARIANTS


def main() -> int:
    """Run the benchmark."""
    options = _options()
    pickers = _pickers(options)
    sets, scores = [], []
    chosen_ones = chosen_sets(
        options.data, options.work, options.only, options.simulated, options.per_scene, options.faint
    )
    for chosen in chosen_ones:
        sets.append(chosen)
        for picker in pickers:
            scores.append(measure(picker, chosen, options.work / "picks"))
            figures = ", ".join(f"{name} {figure.value:.3f}" for name, figure in scores[-1].figures.items())
            print(f"{chosen.name}  {picker.name}  {figures}", file=sys.stderr, flush=True)
    if not sets:
        raise SystemExit(f"no set of that name, and none in {options.data}")
    print(write_report(options.work, options.name, scores, sets))
    return 0


def measure(picker: Picker, chosen: BenchmarkSet, work: Path) -> SetScore:
    """Pick a set, or take what is there, and score it."""
    found = pick_set(picker, chosen, work)
    seconds = statistics.fmean(one.seconds for one in found.values())
    candidates = {stem: one.candidates for stem, one in found.items()}
    return score_set(chosen.name, picker.name, chosen.reference(), candidates, picker.default_threshold, seconds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--mode", choices=("default", "paper", "none"), default="default", help="none: only the others")
    parser.add_argument("--model", help="instead of the mode's own")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--unadapted", action="store_true", help="beside it, the same with --no-adapt")
    parser.add_argument("--per-scene", type=int, help="simulated micrographs of each scene; adapting takes 5")
    parser.add_argument("--peers", default="", help="log, topaz, or both with a comma")
    parser.add_argument("--ablate", nargs="+", default=[], choices=VARIANTS, metavar="NAME", help=", ".join(VARIANTS))
    parser.add_argument("--only", nargs="+", default=[], metavar="SET")
    parser.add_argument("--no-simulated", dest="simulated", action="store_false")
    parser.add_argument(
        "--faint", action="store_true", help="the simulated sets of faint particles instead of all others"
    )
    parser.add_argument("--name", default="accuracy", help="of the files that hold the table")
    return parser.parse_args()


def _pickers(options: argparse.Namespace) -> list[Picker]:
    environment = options.work / "topaz-environment"
    known: dict[str, list[Picker]] = {
        "log": [RelionLoG(), RelionLoG(0.7, 0.9)],
        "topaz": [Topaz(environment), Topaz(environment, default_threshold=0.0)],
    }
    peers = [name for name in options.peers.split(",") if name]
    if unknown := set(peers) - set(known):
        raise SystemExit(f"--peers {', '.join(unknown)}: there are {', '.join(known)}")
    adapt = (True, False) if options.unadapted else (True,)
    ours = [CommandLine(options.mode, options.model, options.device, a) for a in adapt if options.mode != "none"]
    variants = [InProcess(name, VARIANTS[name], options.model) for name in options.ablate]
    return [*ours, *variants, *(picker for name in peers for picker in known[name])]


if __name__ == "__main__":
    sys.exit(main())
