"""What picks are worth downstream: RELION's 2D classification of the picks of each picker, the same number of each.

    python benchmarks/class2d.py --data DATA --work DIR [--set empiar-10017] [--micrographs N] [--particles N]
        [--ours default,unadapted,paper,refined] [--picks NAME=PICKS.star ...] [--peers log,topaz]
        [--box 40] [--classes 10] [--iterations 12] [--per-scene 6]

The set is a real one of DATA or a simulated scene. Its reference picks are always classified, and so are as many
random places, which show what the rule makes of nothing. What the particle looks like is taken from a second
classification of the reference picks, from another seed. `--ours` are runs of `cryoemmae` on the whole set: as it
picks by default, without adapting, in paper mode, and refined from those of the default picks that their own
classification put into classes that show the particle. `--picks` are files that another program has written, with
the name that the table shall have for them. Of each, the best picks of the first N micrographs together are taken, as
many as of the reference. A particle counts as good where it is in a class that shows the particle; the rule
is in class_quality.py. RELION (3.1, Debian package relion) runs from a fixed seed.

Table and pictures go to DIR. Run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from class_quality import (
    LEAST_LIKENESS,
    Images,
    half_averages,
    known_averages,
    likeness,
    resolution_at,
    ring_correlation,
)
from numpy.typing import NDArray
from peers import RelionLoG, Topaz
from pickers import QUIET, Picker, candidates_of, pick_set, run_cryoemmae
from relion2d import BOX_DIAMETERS, Classes, Classification, Optics, classify, extract, read_classes
from sets import RECIPE, BenchmarkSet, chosen_sets

from cryoemmae_plugin.core.class_averages import MASK_EDGE
from cryoemmae_plugin.evaluation.metrics import Reference, Scored
from cryoemmae_plugin.evaluation.tables import read_picks
from cryoemmae_plugin.star import find_table, format_table, read_star

SEED = 1
LEAST_MEMBERS = 20
"""Classes of fewer particles have no halves worth comparing."""
BEST_CLASSES = 3
PICTURE_PX = 96
ASTIGMATISM_DEG = 30.0
"""Of simulated micrographs."""
OURS = {
    "default": ("pick",),
    "unadapted": ("pick", "--no-adapt"),
    "paper": ("pick", "--mode", "paper", "--particle-fraction", "auto"),
    "refined": ("refine",),
}
"""What `--ours` may name: the command and the options that make it."""
SELECTED = "selected.star"
Centres = Mapping[Path, NDArray[np.float64]]


@dataclass(frozen=True)
class Row:
    """One picker: shares are of its particles; resolutions in Å, means over particles in good classes."""

    picker: str
    particles: int
    good_share: float
    good_classes: int
    best_A: float
    halves_A: float
    likeness: float


def main() -> int:
    """Run the benchmark."""
    options = _options()
    chosen = next(chosen_sets(options.data, options.work, [options.set], per_scene=options.per_scene), None)
    if chosen is None:
        raise SystemExit(f"no set {options.set}, and none in {options.data}")
    how = Classification(options.box, options.classes, options.iterations, SEED, options.threads)
    paths = chosen.micrographs()[: options.micrographs]
    reference = {path.stem: chosen.reference()[path.stem] for path in paths}
    total = sum(len(one.xy) for one in reference.values())
    wanted = min(options.particles or total, total)
    work = options.work / "class2d" / f"{chosen.name}.{len(paths)}.{wanted}.{how.box_px}.{how.classes}.{how.iterations}"
    of_reference = _of_reference(paths, reference, wanted)
    found = {"reference": _classified("reference", of_reference, chosen, how, work)}
    other = _classified("known", of_reference, chosen, replace(how, seed=SEED + 1), work)
    known = known_averages(other.averages, other.kind)
    for name in filter(None, options.ours.split(",")):
        picks = best_first(paths, _ours(name, chosen, options.work), wanted)
        found[name] = _classified(name, picks, chosen, how, work)
        if name == "default":
            write_selected(found[name], known, chosen.diameter_A, _folder(chosen, options.work) / SELECTED)
    for name, scored in _others(options, chosen, paths, reference).items():
        found[name] = _classified(name, best_first(paths, scored, wanted), chosen, how, work)
    found["random places"] = _classified("random places", _random(paths, reference, chosen, wanted), chosen, how, work)
    rows = []
    for name, classes in found.items():
        row, alike = judge(name, classes, known, chosen.diameter_A)
        rows.append(row)
        _draw(work / f"{name.replace(' ', '_')}.png", classes, alike)
        print(row, file=sys.stderr, flush=True)
    (work / "class2d.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
    table = markdown(chosen.name, rows)
    (work / "class2d.md").write_text(table)
    print(table)
    return 0


def likenesses(classes: Classes, known: Images, diameter_A: float) -> NDArray[np.float64]:
    """How much each class (K,) is like the particle; -1 where it is empty."""
    members = np.bincount(classes.kind, minlength=len(classes.averages))
    diameter_px = diameter_A / classes.pixel_size_A
    return np.array(
        [likeness(one, known, diameter_px) if n else -1.0 for one, n in zip(classes.averages, members, strict=True)]
    )


def judge(name: str, classes: Classes, known: Images, diameter_A: float) -> tuple[Row, NDArray[np.float64]]:
    """Say how good the classes of one picker are; also the likeness of each to the particle."""
    diameter_px = diameter_A / classes.pixel_size_A
    members = np.bincount(classes.kind, minlength=len(classes.averages))
    alike = likenesses(classes, known, diameter_A)
    good = alike >= LEAST_LIKENESS
    halves = {
        at: _halves_resolution(classes, at, diameter_px) for at in np.flatnonzero(good & (members >= LEAST_MEMBERS))
    }
    weights = [members[at] for at in halves]
    estimated = np.isfinite(classes.resolution_A)  # RELION gives none to a class that has gained its particles at last
    best = sorted(classes.resolution_A[good & estimated & (members >= LEAST_MEMBERS)])[:BEST_CLASSES]
    row = Row(
        name,
        len(classes.kind),
        float(members[good].sum() / max(1, members.sum())),
        int(good.sum()),
        float(np.mean(best)) if best else float("nan"),
        float(np.average(list(halves.values()), weights=weights)) if halves else float("nan"),
        float(np.average(alike, weights=members)),
    )
    return row, alike


def _halves_resolution(classes: Classes, at: int, diameter_px: float) -> float:
    mine = classes.kind == at
    halves = half_averages(classes.images[mine], classes.psi_deg[mine], classes.shift_px[mine], SEED)
    side = classes.images.shape[1]
    line = (np.arange(side) - side // 2) / diameter_px
    mask = 1 / (1 + np.exp((np.hypot(line[:, None], line) - 0.6) / MASK_EDGE))
    return resolution_at(ring_correlation(*(half * mask for half in halves)), side, classes.pixel_size_A)


def best_first(paths: list[Path], scored: Mapping[str, Scored], wanted: int) -> Centres:
    """The best picks of all micrographs together, by micrograph."""
    scores = np.concatenate([scored[path.stem].score for path in paths])
    owners = np.concatenate([np.full(len(scored[path.stem].score), at) for at, path in enumerate(paths)])
    places = np.concatenate([scored[path.stem].xy for path in paths])
    best = np.argsort(-scores, kind="stable")[:wanted]
    return {path: places[best][owners[best] == at] for at, path in enumerate(paths)}


def _of_reference(paths: list[Path], reference: Mapping[str, Reference], wanted: int) -> Centres:
    """Reference picks, a random choice of them where fewer are wanted: they have no scores."""
    rng = np.random.default_rng(SEED)
    scored = {stem: Scored(one.xy, rng.random(len(one.xy))) for stem, one in reference.items()}
    return best_first(paths, scored, wanted)


def _random(paths: list[Path], reference: Mapping[str, Reference], chosen: BenchmarkSet, wanted: int) -> Centres:
    """Random places on the micrographs, boxes inside."""
    rng = np.random.default_rng(SEED + 1)
    from cryoemmae_plugin.images import read_header

    places = {}
    for path in paths:
        ny, nx = read_header(path).shape
        count = round(wanted * len(reference[path.stem].xy) / sum(len(one.xy) for one in reference.values()))
        margin = chosen.diameter_px
        places[path] = rng.uniform(margin, (nx - margin, ny - margin), (count, 2))
    return places


def _folder(chosen: BenchmarkSet, work: Path) -> Path:
    """Where the runs of cryoemmae on a set lie."""
    return work / "ours" / chosen.name


def _ours(name: str, chosen: BenchmarkSet, work: Path) -> Mapping[str, Scored]:
    """Pick the whole set with cryoemmae, in one of the ways of `OURS`; every candidate with its score."""
    folder = _folder(chosen, work)
    out = folder / name
    if not (out / "done").exists():
        words = list(OURS[name])
        if words[0] == "pick":
            words += [*map(str, chosen.micrographs()), "--diameter", f"{chosen.diameter_A:.6g}"]
        else:
            words += [str(folder / "default"), "--particles", str(folder / SELECTED)]
        run_cryoemmae([*words, "--out", str(out), *QUIET])
        (out / "done").touch()
    return candidates_of(out)


def write_selected(classes: Classes, known: Images, diameter_A: float, star: Path) -> None:
    """Write the particles of good classes, as RELION's Select job does with the classes that a person has chosen."""
    good = np.isin(classes.kind, np.flatnonzero(likenesses(classes, known, diameter_A) >= LEAST_LIKENESS))
    optics, particles = (find_table(read_star(classes.star), name) for name in ("optics", "particles"))
    assert optics is not None
    assert particles is not None
    rows = [row for row, keep in zip(particles.rows, good, strict=True) if keep]
    star.parent.mkdir(parents=True, exist_ok=True)
    text = format_table("optics", optics.columns, optics.rows) + format_table("particles", particles.columns, rows)
    star.write_text(text)


def _others(
    options: argparse.Namespace, chosen: BenchmarkSet, paths: list[Path], reference: Mapping[str, Reference]
) -> dict[str, Mapping[str, Scored]]:
    """Scored picks of other programs, by picker and micrograph."""
    nothing = Scored(np.zeros((0, 2)), np.zeros(0))
    found: dict[str, Mapping[str, Scored]] = {}
    for given in options.picks:
        name, _, file = given.partition("=")
        picks = read_picks([Path(file)], reference)
        found[name] = {path.stem: picks.get(path.stem, nothing) for path in paths}
    peers: dict[str, Picker] = {
        "log": RelionLoG(0.7, 0.9),
        "log-whole": RelionLoG(1.0, 1.0),
        "topaz": Topaz(options.work / "topaz-environment"),
    }
    for name in filter(None, options.peers.split(",")):
        picked = pick_set(peers[name], chosen, options.work / "picks", paths)
        found[name] = {stem: one.candidates for stem, one in picked.items()}
    return found


def _classified(name: str, picks: Centres, chosen: BenchmarkSet, how: Classification, work: Path) -> Classes:
    folder, optics = work / name.replace(" ", "_"), optics_of(chosen)
    folder.mkdir(parents=True, exist_ok=True)
    inside = {path: xy for path, xy in picks.items() if len(xy)}
    particles = extract(inside, optics, chosen.diameter_A, how, folder)
    print(f"{name}: classifying", file=sys.stderr, flush=True)
    return read_classes(classify(particles, optics, chosen.diameter_A, how, folder))


def optics_of(chosen: BenchmarkSet) -> Optics:
    """How a set was taken: simulated scenes know their CTF, the real images are without."""
    recipe = chosen.folder / RECIPE
    if not recipe.exists():
        return Optics(chosen.pixel_size_A)
    scene = json.loads(recipe.read_text())
    u, v = (1e4 * (scene["defocus_um"] + sign * scene["astigmatism_um"]) for sign in (1, -1))
    defocus = {path.stem: (u, v, ASTIGMATISM_DEG) for path in chosen.micrographs()}
    return Optics(chosen.pixel_size_A, scene["voltage_kV"], scene["cs_mm"], scene["amplitude_contrast"], defocus)


def markdown(name: str, rows: list[Row]) -> str:
    """The table."""
    head = (
        "| set | picks of | particles | in classes that show the particle | such classes | best classes (Å) | "
        "half averages agree to (Å) |\n| --- | --- | --- | --- | --- | --- | --- |\n"
    )
    return head + "".join(
        f"| {name} | {row.picker} | {row.particles} | {row.good_share:.3f} | {row.good_classes} | {row.best_A:.1f} | "
        f"{row.halves_A:.1f} |\n"
        for row in rows
    )


def _draw(path: Path, classes: Classes, alike: NDArray[np.float64]) -> None:
    """Draw the class averages, the largest first; a frame says which show the particle."""
    members = np.bincount(classes.kind, minlength=len(classes.averages))
    tiles = []
    for at in np.argsort(-members, kind="stable"):
        average = classes.averages[at]
        low, high = np.quantile(average, (0.01, 0.999))
        grey = (np.clip((average - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
        tile = cv2.cvtColor(cv2.resize(grey, (PICTURE_PX, PICTURE_PX), interpolation=cv2.INTER_CUBIC), 8)
        colour = (60, 180, 60) if alike[at] >= LEAST_LIKENESS else (60, 60, 200)
        cv2.rectangle(tile, (0, 0), (PICTURE_PX - 1, PICTURE_PX - 1), colour, 2)
        cv2.putText(tile, f"{members[at]}", (5, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
        tiles.append(tile)
    cv2.imwrite(str(path), np.concatenate(tiles, axis=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--set", default="empiar-10017")
    parser.add_argument("--micrographs", type=int, help="only the first so many")
    parser.add_argument("--particles", type=int, help="of each picker; as many as the reference has by default")
    parser.add_argument("--ours", default=",".join(OURS), help="runs of cryoemmae, in order; refined needs default")
    parser.add_argument("--per-scene", type=int, default=6, help="simulated micrographs of a scene")
    parser.add_argument("--picks", nargs="+", default=[], metavar="NAME=PICKS.star")
    parser.add_argument("--peers", default="log", help="of log (0.7 to 0.9 diameters), log-whole (1), topaz")
    parser.add_argument("--box", type=int, default=40, help="pixels; a particle has 1/1.6 of it")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    unknown = {name for name in options.ours.split(",") if name and name not in OURS}
    if unknown:
        parser.error(f"--ours: {', '.join(sorted(unknown))} is none of {', '.join(OURS)}")
    if options.box < 2 * BOX_DIAMETERS * 8:
        parser.error("--box: at least 26 pixels are needed to tell classes apart")
    return options


if __name__ == "__main__":
    sys.exit(main())
