"""Measure what is seen of specimens of every kind, on a simulator that no head was trained on, and on junk.

    python benchmarks/specimens.py --work DIR [--data DATA] [--model NAME|DIR] [--seeds N] [--only NAME ...]

Particles: recall and precision (half_d) of viruses, vesicles, discs and others at five contrasts, and of micrographs
with one and two particles. Junk: picks a micrograph without a particle, of the second simulator, of scenes of the first
that no head was trained on, and of the real sets `negatives` and `ice-ucsf` in DATA. `micassess-good`, real micrographs
with particles, is there to show that they are still picked. Nothing is adapted: a micrograph is judged alone. Rows go
to the terminal as they come, and all to DIR/specimens.md; run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pickers import source_hash
from second_simulator import JUNK, SHADOWS, render_junk, render_particles

from cryoemmae_plugin.core.picker import CandidatePicker
from cryoemmae_plugin.evaluation.metrics import match
from cryoemmae_plugin.images import read_image
from cryoemmae_plugin.settings import DEFAULT_MODEL, DEFAULT_THRESHOLD, PickerSettings
from cryoemmae_plugin.simulate import simulate
from cryoemmae_plugin.training.scenes import KINDS, training_scene
from cryoemmae_plugin.weights import load_model

CONTRASTS = (0.3, 0.5, 1.0, 2.0, 5.0)
"""Of particles: darkness over the deviation of the noise in one pixel, where they are 100 pixels wide."""
PARTICLES = 20
FEW = {"one": 1, "two": 2}
FEW_CONTRASTS, FEW_KINDS = (1.0, 3.0), ("full_virus", "iron_core", "bilobed", "disc")
FRESH_SEED = 700_000 // len(KINDS) * len(KINDS)
"""Of simulated junk; nothing was trained on scenes from here on."""
ASSUMED_A = 2.0
"""Pixel size that real images are given; only the diameter in pixels matters."""
NEGATIVE_PX, ICE_PX = (40.0,), (30.0, 45.0)
GOOD_PX = {"19aug16d": 80.0}
"""Diameters of the particles in `micassess-good`, in pixels; the others have `GOOD_OTHER_PX`."""
GOOD_OTHER_PX = 14.0


@dataclass(frozen=True)
class Shown:
    """One micrograph: its image, particles dark, their centres, and the diameter in pixels."""

    image: NDArray[np.float32]
    xy: NDArray[np.float64]
    diameter_px: float


@dataclass(frozen=True)
class Row:
    """One kind of micrographs: how many, their particles, picks, and picks that are particles."""

    group: str
    name: str
    micrographs: int
    particles: int
    picks: int
    hits: int


Makers = list[Callable[[], Shown]]


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL["default"])
    parser.add_argument("--seeds", type=int, default=3, help="micrographs of each kind")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="rows whose name begins so")
    options = parser.parse_args()
    model = load_model(options.model)
    kept = options.work / "specimens" / f"{source_hash()}-{model.sha256[:12]}-{options.seeds}"
    kept.mkdir(parents=True, exist_ok=True)
    rows = []
    for group, name, makers in _kinds(options.seeds, options.data):
        if options.only and not name.startswith(tuple(options.only)):
            continue
        file = kept / f"{group}-{name}.json".replace(" ", "_")
        if not file.exists():
            file.write_text(json.dumps(asdict(measure(options.model, group, name, makers))))
        rows.append(Row(**json.loads(file.read_text())))
        print(_line(rows[-1]), flush=True)
    (options.work / "specimens.md").write_text(table(rows))
    print(table(rows))
    return 0


def measure(model_name: str, group: str, name: str, makers: Makers) -> Row:
    """Pick the micrographs of one kind, each alone, and count."""
    model = load_model(model_name)
    particles = picks = hits = 0
    for make in makers:
        shown = make()
        picker = CandidatePicker(model, PickerSettings(diameter_A=shown.diameter_px * ASSUMED_A))
        found = picker.pick(shown.image, ASSUMED_A)
        xy = found.xy[found.score >= DEFAULT_THRESHOLD["default"]]
        particles, picks = particles + len(shown.xy), picks + len(xy)
        hits += len(match(shown.xy, xy, shown.diameter_px, "half_d"))
    return Row(group, name, len(makers), particles, picks, hits)


def table(rows: list[Row]) -> str:
    """Three tables: particles by contrast, few particles, junk."""
    kinds = list(dict.fromkeys(row.name.rsplit(" ", 1)[0] for row in rows if row.group == "particles"))
    by_name = {row.name: row for row in rows}
    lines = ["| recall / precision at contrast | " + " | ".join(f"{c:g}" for c in CONTRASTS) + " |"]
    lines.append("|" + " --- |" * (len(CONTRASTS) + 1))
    for kind in kinds:
        cells = [_figures(by_name.get(f"{kind} {contrast:g}")) for contrast in CONTRASTS]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    lines += ["", "| few particles | micrographs | particles | found | other picks |", "|" + " --- |" * 5]
    few = [row for row in rows if row.group == "few"]
    lines += [f"| {r.name} | {r.micrographs} | {r.particles} | {r.hits} | {r.picks - r.hits} |" for r in few]
    lines += ["", "| no particles known | micrographs | picks each |", "|" + " --- |" * 3]
    junk = [row for row in rows if row.group in ("junk", "real")]
    lines += [f"| {row.name} | {row.micrographs} | {row.picks / row.micrographs:.1f} |" for row in junk]
    return "\n".join(lines) + "\n"


def _figures(row: Row | None) -> str:
    if row is None:
        return "–"
    return f"{row.hits / max(row.particles, 1):.2f} / {row.hits / max(row.picks, 1):.2f}"


def _line(row: Row) -> str:
    return f"{row.group} {row.name}: {row.particles} particles, {row.hits} found, {row.picks} picks"


def _kinds(seeds: int, data: Path | None) -> Iterator[tuple[str, str, Makers]]:
    """Name what is measured, and how each of its micrographs is made."""
    for kind in SHADOWS:
        for contrast in CONTRASTS:
            yield "particles", f"{kind} {contrast:g}", [_particles(kind, contrast, PARTICLES, s) for s in range(seeds)]
    for number, count in FEW.items():
        for kind in FEW_KINDS:
            for contrast in FEW_CONTRASTS:
                makers = [_particles(kind, contrast, count, 50 + s) for s in range(seeds)]
                yield "few", f"{number} {kind} {contrast:g}", makers
    for kind in JUNK:
        yield "junk", kind, [_junk(kind, s) for s in range(seeds)]
    empty = [at for at, kind in enumerate(KINDS) if kind.__name__ in ("_junk_only", "_ice_alone")]
    fresh = [FRESH_SEED + len(KINDS) * s + at for s in range(seeds) for at in empty]
    yield "junk", "simulated with the first simulator", [_simulated(seed) for seed in fresh]
    if data:
        yield from _real(data)


def _real(data: Path) -> Iterator[tuple[str, str, Makers]]:
    for name, diameters in (("negatives", NEGATIVE_PX), ("ice-ucsf", ICE_PX)):
        images = _images(data / name)
        if images:
            yield "real", name, [_read(path, px) for path in images for px in diameters]
    for path in _images(data / "micassess-good"):
        session = path.name.split("_")[0]
        yield (
            "real",
            f"micassess-good {session}, with particles",
            [_read(path, GOOD_PX.get(session[:8], GOOD_OTHER_PX))],
        )


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix in (".png", ".jpg")) if folder.is_dir() else []


def _particles(kind: str, contrast: float, count: int, seed: int) -> Callable[[], Shown]:
    def make() -> Shown:
        made = render_particles(kind, contrast, count, seed)
        return Shown(made.image, made.xy, made.diameter_px)

    return make


def _junk(kind: str, seed: int) -> Callable[[], Shown]:
    def make() -> Shown:
        made = render_junk(kind, seed)
        return Shown(made.image, made.xy, made.diameter_px)

    return make


def _simulated(seed: int) -> Callable[[], Shown]:
    def make() -> Shown:
        made = simulate(training_scene(seed), seed)
        return Shown(made.image, made.xy, made.diameter_px)

    return make


def _read(path: Path, diameter_px: float) -> Callable[[], Shown]:
    return lambda: Shown(read_image(path), np.zeros((0, 2)), diameter_px)


if __name__ == "__main__":
    sys.exit(main())
