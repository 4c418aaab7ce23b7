"""The benchmark's one table, as Markdown for people and as JSON for programs."""

from __future__ import annotations

import json
import math
from pathlib import Path

from scoring import FIGURES, Figure, SetScore, mean_over_sets
from sets import BenchmarkSet

COLUMNS = (
    "set",
    "picker",
    "images",
    "F1 iou06",
    "F1 half_d",
    "AP",
    "AP of picks",
    "mean IoU",
    "best F1 iou06",
    "best F1 half_d (at)",
    "picks each",
    "CPU s each",
)


def write_report(folder: Path, name: str, scores: list[SetScore], sets: list[BenchmarkSet]) -> str:
    """Write ``NAME.md`` and ``NAME.json`` into `folder`; the Markdown is returned too."""
    text = markdown(scores, sets)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    content = {
        "sets": [score.as_json() for score in scores],
        "means": [
            {"group": group, "picker": picker, "figures": {f: vars(mean_over_sets(chosen, f)) for f in figures}}
            for group, picker, chosen, figures in _means(scores, sets)
        ],
    }
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return text


def markdown(scores: list[SetScore], sets: list[BenchmarkSet]) -> str:
    """One row a set and picker, means below; a figure is followed by its 95 % confidence interval."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    order = {chosen.name: at for at, chosen in enumerate(sets)}
    for score in sorted(scores, key=lambda score: order[score.set]):
        cells = [score.set, score.picker, str(score.micrographs)]
        if "half_d" in score.figures:
            cells += [_cell(score.figures[name]) for name in FIGURES[:-1]]
            cells += [f"{_cell(score.figures['best_half_d'])} ({score.best_at:.2f})", f"{score.picks_each:.0f}"]
        else:
            cells += ["no particles", *[""] * 6, _cell(score.figures["false_picks"], 1)]
        lines.append("| " + " | ".join([*cells, f"{score.seconds_each:.1f}"]) + " |")
    for group, picker, chosen, figures in _means(scores, sets):
        cells = [f"**mean, {group}**", picker, str(sum(score.micrographs for score in chosen))]
        cells += [_cell(mean_over_sets(chosen, name)) if name in figures else "" for name in FIGURES]
        empty = "false_picks" in figures
        cells += [_cell(mean_over_sets(chosen, "false_picks"), 1) if empty else "", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _means(scores: list[SetScore], sets: list[BenchmarkSet]) -> list[tuple[str, str, list[SetScore], tuple[str, ...]]]:
    """What to average: (group, picker, its scores, the figures that they have)."""
    real = {chosen.name for chosen in sets if chosen.real}
    pickers = list(dict.fromkeys(score.picker for score in scores))
    means = []
    for group in ("real", "simulated", "simulated, empty"):
        for picker in pickers:
            mine = [score for score in scores if score.picker == picker and (score.set in real) == (group == "real")]
            empty = group.endswith("empty")
            chosen = [score for score in mine if ("false_picks" in score.figures) == empty]
            if len(chosen) > 1:
                means.append((group, picker, chosen, ("false_picks",) if empty else FIGURES))
    return means


def _cell(figure: Figure, digits: int = 3) -> str:
    """A value and its interval: ``0.912 [0.900, 0.925]``, without leading zeros."""
    if math.isnan(figure.value):
        return "–"
    texts = [f"{value:.{digits}f}" for value in (figure.value, figure.low, figure.high)]
    value, low, high = (text.replace("0.", ".", 1) if text.startswith("0.") else text for text in texts)
    return f"{value} [{low}, {high}]" if not math.isnan(figure.low) else value
