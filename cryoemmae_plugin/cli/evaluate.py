"""``cryoemmae evaluate``: picks against known positions."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Column, Table

from cryoemmae_plugin.terminal.console import Reporter
from cryoemmae_plugin.terminal.options import Flag

if TYPE_CHECKING:
    from cryoemmae_plugin.evaluation.metrics import Evaluation

WIDTH_OF_A_FILE = 400
"""Columns of a table that goes into a file: names are not cut there."""


def evaluate(
    reference: Annotated[Path, Parameter(name="REFERENCE.csv")],
    picks: Annotated[list[Path], Parameter(name="PICKS.star", negative="")],
    /,
    *,
    min_score: float | None = None,
    as_json: Annotated[Flag, Parameter(name="--json")] = False,
) -> None:
    """Score picks against known positions.

    Two rules say when a pick is right, both one to one, the closest pair first: iou06 (boxes of side = diameter overlap
    with an IoU of at least 0.6) and half_d (centres at most half a diameter apart). Micrographs are matched by
    their file names without image suffix; folders tell equal names apart.

    Parameters
    ----------
    reference
        Table with the columns micrograph, x, y, diameter, in pixels of the stored image; a micrograph known to hold no
        particle has one row with x and y left empty.
    picks
        STAR files of picks, or folders that pick has written.
    min_score
        Leave out picks with a lower figure of merit.
    as_json
        Print JSON instead of a table.
    """
    reporter = Reporter(aside=True)
    reporter.say(f"Scoring picks against {reference}")  # before the imports, which take seconds
    from cryoemmae_plugin.evaluation import metrics
    from cryoemmae_plugin.evaluation.tables import read_picks, read_reference

    with reporter.alive():
        truth = read_reference(reference)
        files = [path / "picks.star" if path.is_dir() else path for path in picks]
        files = list({os.path.realpath(path): path for path in files}.values())  # one named twice counts once
        found = read_picks(files, truth, min_score)
        evaluation = metrics.evaluate(truth, found)
    strangers = {name: len(scored.xy) for name, scored in found.items() if name not in truth}
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    if as_json:
        plain = _without_nan(asdict(evaluation) | {"picks_on_unlisted_micrographs": strangers})
        console.out(json.dumps(plain, indent=1), highlight=False)
        return
    _print_tables(console, evaluation)
    if strangers:
        mean = sum(strangers.values()) / len(strangers)
        console.print(
            f"{len(strangers)} micrographs with picks are not in {reference.name} and not scored: {mean:.1f} picks each"
        )


def _print_tables(console: Console, evaluation: Evaluation) -> None:
    """Write the scores as a table, with the means in the last row."""
    from cryoemmae_plugin.evaluation.metrics import RULES

    if evaluation.micrographs:
        table = Table(Column("micrograph", overflow="fold"), box=None, pad_edge=False)
        for name in ("ref.", "picks", "IoU", *(f"{rule} {what}" for rule in RULES for what in ("rec.", "prec.", "F1"))):
            table.add_column(name, justify="right")
        for score in evaluation.micrographs:
            rates = [f"{value:.3f}" for rule in RULES for value in asdict(score.rules[rule]).values()]
            table.add_row(score.micrograph, str(score.reference), str(score.picks), f"{score.mean_iou:.3f}", *rates)
        rates = [f"{value:.3f}" for rule in RULES for value in asdict(evaluation.mean[rule]).values()]
        table.add_row("mean", "", "", f"{evaluation.mean_iou:.3f}", *rates, style="bold")
        console.print(table)
        console.print(f"average precision (half_d): {evaluation.average_precision:.3f}")
    if evaluation.negatives:
        console.print(
            f"{evaluation.negatives} micrographs without a particle: {evaluation.false_picks:.1f} picks each, all false"
        )


def _without_nan(value: Any) -> Any:
    """The same with None for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
