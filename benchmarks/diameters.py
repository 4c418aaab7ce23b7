"""Measure ``--diameter auto``: the diameter found from the micrographs of every set, beside the true one.

    python benchmarks/diameters.py --data DATA --work DIR [--only SET ...] [--no-simulated]

Uses the sets of ``accuracy.py`` under DIR. The true diameter of a real set is that of its reference; that of a
simulated one, the diameter of the particle's bounding sphere. The table goes to the terminal and to DIR/diameters.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from sets import BenchmarkSet, chosen_sets

from cryoemmae_plugin.errors import CannotTellError
from cryoemmae_plugin.run.diameter import estimate_from
from cryoemmae_plugin.settings import RequestedSettings
from cryoemmae_plugin.types import Micrograph

WITHIN = 0.12
"""Relative error that is good enough: picking loses little up to it."""
HEADER = "| set | true Å | found Å | error | error it expects | CPU s |\n| --- | --- | --- | --- | --- | --- |\n"


def main() -> int:
    """Estimate every set's diameter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=[], metavar="SET")
    parser.add_argument("--no-simulated", dest="simulated", action="store_false")
    options = parser.parse_args()
    rows, errors = [], []
    for chosen in chosen_sets(options.data, options.work, options.only, options.simulated):
        row, error = measure(chosen)
        rows.append(row)
        errors += [] if error is None else [error]
        print(row, file=sys.stderr, flush=True)
    good = sum(error <= WITHIN for error in errors)
    text = HEADER + "\n".join(rows) + f"\n\nWithin {WITHIN:.0%}: {good} of {len(errors)} sets with particles.\n"
    (options.work / "diameters.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


def measure(chosen: BenchmarkSet) -> tuple[str, float | None]:
    """A row of the table, and the relative error; infinite where nothing was found, None on a set without particles."""
    micrographs = [Micrograph(path, chosen.pixel_size_A, path.stem) for path in chosen.micrographs()]
    empty = not any(len(reference.xy) for reference in chosen.reference().values())
    true_A = "none" if empty else f"{chosen.diameter_A:.0f}"
    start = time.process_time()
    try:
        note = estimate_from(micrographs, RequestedSettings(diameter_A="auto"))
    except CannotTellError:
        seconds = time.process_time() - start
        return f"| {chosen.name} | {true_A} | cannot tell | | | {seconds:.1f} |", None if empty else float("inf")
    seconds = time.process_time() - start
    if empty:
        return f"| {chosen.name} | {true_A} | {note.diameter_A:g} | | {note.error:.0%} | {seconds:.1f} |", None
    error = note.diameter_A / chosen.diameter_A - 1
    cells = [chosen.name, true_A, f"{note.diameter_A:g}", f"{error:+.0%}", f"{note.error:.0%}", f"{seconds:.1f}"]
    return "| " + " | ".join(cells) + " |", abs(error)


if __name__ == "__main__":
    sys.exit(main())
