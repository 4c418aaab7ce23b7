"""What refining is worth: labels stand in for a 2D classification on half of the micrographs; the other half is scored.

    python benchmarks/refine.py --data DATA --work DIR [--model NAME] [--only SET ...] [--halves first|second|both]
        [--per-scene 6] [--no-adapt]

Each set is picked as a user would pick it. On one half of its micrographs, picks that match the reference (half_d) are
taken for particles that 2D classification has kept, all others for dropped ones, and `cryoemmae refine` picks again.
The table compares both runs on the other half, which nothing was learned from. Sets are the real ones of DATA with
particles, and simulated scenes named with --only. Run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pickers import QUIET, candidates_of, run_cryoemmae
from report import markdown
from scoring import SetScore, score_set
from sets import BenchmarkSet, chosen_sets

from cryoemmae_plugin.evaluation.metrics import Reference, Scored, match
from cryoemmae_plugin.run.formats import picks_star
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.run.summary import saved_selection
from cryoemmae_plugin.settings import DEFAULT_MODEL, DEFAULT_THRESHOLD

HALVES = {"first": (0,), "second": (1,), "both": (0, 1)}


def main() -> int:
    """Run the benchmark."""
    options = _options()
    scores: list[SetScore] = []
    sets = []
    for chosen in chosen_sets(options.data, options.work, options.only, per_scene=options.per_scene):
        if not any(len(reference.xy) for reference in chosen.reference().values()):
            continue
        if not chosen.real and chosen.name not in options.only:
            continue
        sets.append(chosen)
        found = score_both(chosen, options)
        scores += found
        print(markdown(found, [chosen]), file=sys.stderr, flush=True)
    table = markdown(scores, sets)
    (options.work / "refine.md").write_text(table)
    print(table)
    return 0


def score_both(chosen: BenchmarkSet, options: argparse.Namespace) -> list[SetScore]:
    """Pick a set, refine by half of it, and score both on the rest."""
    work = options.work / "refine" / chosen.name / options.model
    first = work / "picked"
    paths = chosen.micrographs()
    settings = ["--diameter", f"{chosen.diameter_A:.6g}", "--model", options.model]
    settings += [] if options.adapt else ["--no-adapt"]
    run_cryoemmae(["pick", *map(str, paths), "--out", str(first), *settings, *QUIET])
    before, after, reference = dict[str, Scored](), dict[str, Scored](), dict[str, Reference]()
    for half in HALVES[options.halves]:
        taught, tested = ([path.stem for path in paths[at::2]] for at in (half, 1 - half))
        particles, refined = work / f"kept{half}.star", work / f"refined{half}"
        write_kept(first, chosen.reference(), taught, particles)
        run_cryoemmae(["refine", str(first), "--particles", str(particles), "--out", str(refined), *QUIET])
        before |= _candidates(first, tested)
        after |= _candidates(refined, tested)
        reference |= {stem: chosen.reference()[stem] for stem in tested}
    threshold = DEFAULT_THRESHOLD["default"]
    pairs = (("picked", before), ("refined", after))
    return [score_set(chosen.name, name, reference, found, threshold, float("nan")) for name, found in pairs]


def write_kept(run: Path, reference: Mapping[str, Reference], stems: Sequence[str], particles: Path) -> None:
    """Write those picks of a run that match the reference, on some of its micrographs."""
    store = ResultStore.open(run)
    rule = saved_selection(run, store.record)
    with picks_star(particles) as write:
        for result in store:
            stem = Path(result.micrograph).stem
            if stem in stems:
                picks, known = rule.picks(result), reference[stem]
                write(result, picks.only(match(known.xy, picks.xy, known.diameter, "half_d")[:, 1]))


def _candidates(run: Path, stems: Sequence[str]) -> dict[str, Scored]:
    found = candidates_of(run)
    return {stem: found[stem] for stem in stems}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", default=DEFAULT_MODEL["default"])
    parser.add_argument("--only", nargs="+", default=[], metavar="SET")
    parser.add_argument("--halves", choices=HALVES, default="first", help="which half teaches")
    parser.add_argument("--per-scene", type=int, default=6, help="simulated micrographs of each scene")
    parser.add_argument("--no-adapt", dest="adapt", action="store_false", help="pick the first time unadapted")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
