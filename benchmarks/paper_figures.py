"""Repeat the analyses of Zamanos et al. 2025 on the labelled real micrographs at hand: tables and figures.

    python benchmarks/paper_figures.py --data DATA --work DIR [--model NAME|DIR] [--only PART ...] [--images FOLDER]
        [--steps N] [--every]

Parts: ``table1`` (IoU, recall, precision and F1 of each set and micrograph, beside the paper's means), ``figure2a``
(against the number of training micrographs, each a training of N steps), ``figure2b`` (against the number of clusters),
``figure3`` (principal components of particle and background tokens), ``tableS3`` (distances between tokens within and
across two micrographs). Only the last two micrographs of a set are scored, which no shipped model was trained on; with
``--every``, all. Each part leaves its rows under DIR and is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pickers import source_hash
from sklearn.decomposition import PCA
from training_data import TRAINING_SETS, TrainingSet

from cryoemmae_plugin.core.paper.clusters import HIERARCHY
from cryoemmae_plugin.core.paper.pick import Embedded, embed_paper, pick_embedded
from cryoemmae_plugin.evaluation.metrics import Evaluation, Reference, Scored, evaluate
from cryoemmae_plugin.evaluation.tables import read_reference
from cryoemmae_plugin.images import read_image
from cryoemmae_plugin.settings import DEFAULT_MODEL, PUBLISHED_FRACTION, Auto
from cryoemmae_plugin.training.prepare import TrainingMicrograph
from cryoemmae_plugin.training.recipe import FitSettings
from cryoemmae_plugin.training.train import train_model
from cryoemmae_plugin.weights import Model, load_model

LABELLED = ("empiar-10017", "empiar-10146", "bgal-10204")
KEPT_BACK = 2
"""Micrographs of each set, the last by name, that are scored."""
PAPERS_TABLE_1 = {
    "10291": (0.567, 0.585, 0.481, 0.512),
    "10077": (0.575, 0.596, 0.482, 0.518),
    "10590": (0.470, 0.479, 0.444, 0.444),
    "10816": (0.554, 0.573, 0.492, 0.514),
}
"""IoU, recall, precision and F1 of cryo-EMMAE, means over 14 sets, by the set that it was trained on."""
FRACTIONS: tuple[float | Auto, ...] = (PUBLISHED_FRACTION, "auto")
CLUSTER_NUMBERS = (3, 4, 5, 6, 7)
TRAINED_ON, TRAINING_SET = (1, 2, 5, 8), "empiar-10017"
TILES = 256
"""Of a micrograph in paper mode."""
TOKENS, PAIRS = 1500, 20_000
"""Of each kind, drawn from a micrograph; pairs whose distance is taken."""
CORE, FAR = 0.25, 0.75
"""A patch is particle within the first distance of a centre, background beyond the second; in diameters."""
PARTICLE, BACKGROUND = "#d95f02", "#1b9e77"


@dataclass(frozen=True, eq=False)
class Labelled:
    """A micrograph and where its particles are."""

    set: TrainingSet
    path: Path
    reference: Reference

    @property
    def diameter_px(self) -> float:
        """Particle diameter in micrograph pixels."""
        return self.set.diameters_px[0]

    def embed(self, model: Model) -> Embedded:
        """Embed it."""
        with torch.inference_mode():
            return embed_paper(torch.from_numpy(read_image(self.path)), model, self.diameter_px)


def labelled(data: Path, every: bool) -> dict[str, list[Labelled]]:
    """The micrographs to score, by set; those whose folder is absent are left out."""
    found = {}
    for known in TRAINING_SETS:
        folder = data / known.name
        if known.name not in LABELLED or not folder.is_dir():
            continue
        reference = read_reference(folder / "reference.csv")
        paths = sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
        paths = paths if every else paths[-KEPT_BACK:]
        found[known.name] = [
            Labelled(known, path, Reference(reference[path.stem].xy, known.diameters_px[0])) for path in paths
        ]
    return found


def score(
    micrographs: list[Labelled], embed: Callable[[Labelled], Embedded], model: Model, **how: Any
) -> tuple[Evaluation, list[int]]:
    """Pick and score; the evaluation, and the number of picks of each micrograph."""
    picks = {}
    for one in micrographs:
        with torch.inference_mode():
            found = pick_embedded(embed(one), model, one.diameter_px, **how)
        picks[one.path.stem] = Scored(found.xy, found.score.astype(float))
    result = evaluate({one.path.stem: one.reference for one in micrographs}, picks)
    return result, [len(picks[one.path.stem].xy) for one in micrographs]


def figures_of(result: Evaluation) -> dict[str, float]:
    """IoU, recall, precision and F1 as the paper defines them, and F1 by half a diameter."""
    rule = result.mean["iou06"]
    both = {"iou": result.mean_iou, "recall": rule.recall, "precision": rule.precision, "f1": rule.f1}
    return both | {"half_d": result.mean["half_d"].f1}


def table_1(sets: dict[str, list[Labelled]], embed: Callable[[Labelled], Embedded], model: Model) -> Iterator[Any]:
    """Every set and micrograph, at each particle fraction."""
    for name, micrographs in sets.items():
        for fraction in FRACTIONS:
            result, counts = score(micrographs, embed, model, particle_fraction=fraction)
            row = {"set": name, "fraction": str(fraction), "picks": sum(counts), **figures_of(result)}
            yield row | {"each": {one.micrograph: [one.mean_iou, one.rules["iou06"].f1] for one in result.micrographs}}


def figure_2b(sets: dict[str, list[Labelled]], embed: Callable[[Labelled], Embedded], model: Model) -> Iterator[Any]:
    """Every set, the micrograph's own hierarchy ended at each number of clusters."""
    for largest in CLUSTER_NUMBERS:
        numbers = tuple(range(HIERARCHY[0], largest + 1))
        for name, micrographs in sets.items():
            for fraction in FRACTIONS:
                result, _ = score(micrographs, embed, model, particle_fraction=fraction, hierarchy=numbers)
                yield {"clusters": largest, "set": name, "fraction": str(fraction), **figures_of(result)}


def figure_2a(sets: dict[str, list[Labelled]], data: Path, work: Path, steps: int) -> Iterator[Any]:
    """Trainings on so many micrographs of one set, each scored on all sets."""
    folder = data / TRAINING_SET
    known = next(one for one in TRAINING_SETS if one.name == TRAINING_SET)
    scored = {one.path for micrographs in sets.values() for one in micrographs}
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in (".jpg", ".png")]
    order = [path for path in paths if path not in scored] + [path for path in paths if path in scored]
    for count in TRAINED_ON:
        chosen = [
            TrainingMicrograph(path, known.diameters_px[0] * known.pixel_size_A, known.pixel_size_A)
            for path in order[:count]
        ]
        an_epoch = FitSettings().steps_an_epoch(TILES * count)
        settings = FitSettings(epochs=max(1, round(steps / an_epoch)))
        out = work / f"trained-on-{count}"
        train_model(chosen, out, f"trained-on-{count}", mode="paper", settings=settings, progress=_say)
        model = load_model(out)
        for name, micrographs in sets.items():
            for fraction in FRACTIONS:
                result, _ = score(micrographs, partial(Labelled.embed, model=model), model, particle_fraction=fraction)
                skill = model.card.training.skill if model.card.training else None
                yield {
                    "micrographs": count, "skill": skill, "set": name, "fraction": str(fraction), **figures_of(result)
                }  # fmt: skip


def _say(done: int, total: int, skill: float) -> None:
    if done % 50 == 0 or done == total:
        print(f"step {done}/{total}, skill {skill:.3f}", flush=True)


def tokens_of(one: Labelled, embedded: Embedded) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw equally many tokens of particles and of background, each (N, dim)."""
    rows, columns, dim = embedded.embedding.shape
    fine = np.array(embedded.grid.shape[::-1]) / (columns, rows)
    at = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2)
    xy = embedded.frame.to_micrograph((at + 0.5) * fine - 0.5)
    distance = np.hypot(*(xy[:, None] - one.reference.xy[None]).transpose(2, 0, 1)).min(1) / one.diameter_px
    ny, nx = embedded.frame.shape
    inside = ((xy > 0) & (xy < (nx, ny))).all(1)
    tokens = embedded.embedding.reshape(-1, dim).numpy()
    rng = np.random.default_rng(0)
    kinds = [np.flatnonzero(inside & (distance < CORE)), np.flatnonzero(inside & (distance > FAR))]
    count = min(TOKENS, *(len(kind) for kind in kinds))
    particle, background = (tokens[rng.choice(kind, count, replace=False)] for kind in kinds)
    return particle, background


def figure_3(sets: dict[str, list[Labelled]], embed: Callable[[Labelled], Embedded], picture: Path) -> Iterator[Any]:
    """Principal components of each micrograph's tokens, and how well the first two and all of them separate."""
    micrographs = [one for found in sets.values() for one in found]
    figure = Figure(figsize=(4 * KEPT_BACK, 3.6 * -(-len(micrographs) // KEPT_BACK)), layout="constrained")
    for place, one in enumerate(micrographs, start=1):
        particle, background = tokens_of(one, embed(one))
        both = np.concatenate([particle, background])
        pca = PCA(2, random_state=0).fit(both)
        axes = figure.add_subplot(-(-len(micrographs) // KEPT_BACK), KEPT_BACK, place)
        for kind, colour, label in ((background, BACKGROUND, "background"), (particle, PARTICLE, "particle")):
            axes.scatter(*pca.transform(kind).T, s=2, c=colour, alpha=0.5, label=label, linewidths=0)
        axes.set_title(f"{one.set.name}: {one.path.stem[:24]}", fontsize=8)
        axes.set_xlabel(f"PC 1 ({pca.explained_variance_ratio_[0]:.0%})", fontsize=7)
        axes.set_ylabel(f"PC 2 ({pca.explained_variance_ratio_[1]:.0%})", fontsize=7)
        axes.tick_params(labelsize=6)
        if place == 1:
            axes.legend(markerscale=5, fontsize=7)
        yield {
            "set": one.set.name,
            "micrograph": one.path.stem,
            "plane": separation(pca.transform(particle), pca.transform(background)),
            "all": separation(particle, background),
        }
    figure.savefig(picture, dpi=110)


def separation(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Chance that a vector lies farther along the line from one mean to the other than one of the other kind (AUC)."""
    line = first.mean(0) - second.mean(0)
    a, b = np.sort(first @ line), np.sort(second @ line)
    return float(np.searchsorted(b, a).mean() / len(b))


def table_s3(sets: dict[str, list[Labelled]], embed: Callable[[Labelled], Embedded]) -> Iterator[Any]:
    """Mean distances between tokens of particles and background, within and across the two micrographs of a set."""
    rng = np.random.default_rng(0)
    for name, micrographs in sets.items():
        kinds = {}
        for letter, one in zip("AB", micrographs, strict=False):
            kinds[f"particle {letter}"], kinds[f"background {letter}"] = tokens_of(one, embed(one))
        for first, second in combinations_with_replacement(kinds, 2):
            i, j = (rng.integers(0, len(kinds[key]), PAIRS) for key in (first, second))
            distance = np.linalg.norm(kinds[first][i] - kinds[second][j], axis=1)[(i != j) | (first != second)]
            yield {"set": name, "first": first, "second": second, "distance": float(distance.mean())}


def markdown(part: str, rows: list[dict[str, Any]]) -> str:
    """A part's rows as a table."""
    if part == "tableS3":
        kinds = list(dict.fromkeys(row["first"] for row in rows))
        lines = ["| set | from | " + " | ".join(kinds) + " |", "|" + " --- |" * (len(kinds) + 2)]
        known = {(r["set"], *pair): r["distance"] for r in rows for pair in _both_ways(r)}
        for name in dict.fromkeys(row["set"] for row in rows):
            for kind in kinds:
                cells = " | ".join(f"{known[name, kind, other]:.2f}" for other in kinds)
                lines.append(f"| {name} | {kind} | {cells} |")
        return "\n".join(lines) + "\n"
    columns = [column for column in rows[0] if column != "each"]
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(row[column]) for column in columns) + " |" for row in rows]
    if part == "table1":
        for trained_on, values in PAPERS_TABLE_1.items():
            paper = " | ".join(f"{value:.3f}" for value in values)
            lines.append(f"| the paper, trained on {trained_on}: 14 sets | {PUBLISHED_FRACTION} | | {paper} | |")
        lines += ["", "| micrograph | fraction | IoU | F1 |", "| --- | --- | --- | --- |"]
        for row in rows:
            lines += [
                f"| {stem} | {row['fraction']} | {iou:.3f} | {f1:.3f} |" for stem, (iou, f1) in row["each"].items()
            ]
    return "\n".join(lines) + "\n"


def _both_ways(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield row["first"], row["second"]
    yield row["second"], row["first"]


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def draw_lines(part: str, rows: list[dict[str, Any]], axis: str, picture: Path) -> None:
    """Draw the paper's four figures, means over the sets, against a column."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    for place, fraction in enumerate(FRACTIONS, start=1):
        axes = figure.add_subplot(1, len(FRACTIONS), place)
        chosen = [row for row in rows if row["fraction"] == str(fraction)]
        at = sorted({row[axis] for row in chosen})
        for key, label in (("iou", "IoU"), ("recall", "recall"), ("precision", "precision"), ("f1", "F1")):
            axes.plot(
                at, [np.mean([row[key] for row in chosen if row[axis] == x]) for x in at], marker="o", label=label
            )
        axes.set_title(f"particle fraction {fraction}", fontsize=8)
        axes.set_xlabel("number of clusters" if part == "figure2b" else "training micrographs", fontsize=8)
        axes.set_xticks(at)
        axes.set_ylim(0, 1)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7)
    figure.savefig(picture, dpi=110)


def main() -> int:
    """Measure what is missing, and print the tables."""
    options = _options()
    model = load_model(options.model)
    sets = labelled(options.data, options.every)
    if not sets:
        sys.exit(f"{options.data}: none of {', '.join(LABELLED)} is there; --data names the folder that holds them")
    key = f"{source_hash()}-{model.sha256[:12]}-{'every' if options.every else 'kept-back'}"
    kept = options.work / "paper_figures" / key
    kept.mkdir(parents=True, exist_ok=True)
    images = options.images or kept
    images.mkdir(parents=True, exist_ok=True)
    embed = cache(lambda one: one.embed(model))
    parts: dict[str, Callable[[], Iterator[Any]]] = {
        "table1": lambda: table_1(sets, embed, model),
        "figure2a": lambda: figure_2a(sets, options.data, options.work, options.steps),
        "figure2b": lambda: figure_2b(sets, embed, model),
        "figure3": lambda: figure_3(sets, embed, images / "paper-figure3.png"),
        "tableS3": lambda: table_s3(sets, embed),
    }
    for part, measure in parts.items():
        if part not in options.only:
            continue
        file = kept / f"{part}.json"
        if not file.exists():
            file.write_text(json.dumps(list(measure())))
        rows = json.loads(file.read_text())
        for name, axis in (("figure2a", "micrographs"), ("figure2b", "clusters")):
            if part == name:
                draw_lines(part, rows, axis, images / f"paper-{part}.png")
        print(f"## {part}\n{markdown(part, rows)}", flush=True)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real images")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", default=DEFAULT_MODEL["paper"])
    parts = ["table1", "figure2a", "figure2b", "figure3", "tableS3"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, metavar="PART")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="where the pictures go")
    parser.add_argument("--steps", type=int, default=1500, help="of each training of figure2a")
    parser.add_argument("--every", action="store_true", help="score all micrographs, those trained on as well")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
