"""Count how often a run says that its settings are wrong: where they are, and where they are not.

    python benchmarks/wrong_settings.py --work DIR [--micrographs N] [--only NAME ...]

Simulated micrographs of many specimens, of both simulators, are looked at as a run looks at its first ones: with the
right settings, with a diameter twice and half as large (which is the same as a pixel size half and twice as large),
and with inverted contrast. Nothing is picked, so what a run says at its end, of no picks and of crowds, is not counted.
Rows go to the terminal as they come, and all to DIR/wrong_settings.md; run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import mrcfile
import numpy as np
from pickers import source_hash
from scenes import benchmark_scenes, faint_scenes
from second_simulator import Rendered, render_particles

from cryoemmae_plugin.core.head import Head
from cryoemmae_plugin.core.picker import load_head
from cryoemmae_plugin.core.size_check import find_better_fit
from cryoemmae_plugin.run.prefetch import load
from cryoemmae_plugin.settings import DEFAULT_MODEL
from cryoemmae_plugin.simulate import SimulationSettings, simulate
from cryoemmae_plugin.simulate.render import SimulatedMicrograph
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.weights import load_model

HOW = {"right": 1.0, "twice as large": 2.0, "half as large": 0.5, "inverted": 1.0}
"""Ways to be wrong, and the diameter given, over the true one."""
COARSE = {"shape": (1000, 1240), "pixel_size_A": 3.0}
EXTRA = {
    "few_globular_200": {**COARSE, "particle": "globular", "diameter_A": 200.0, "n_particles": 4},
    "one_shell_220": {**COARSE, "particle": "shell", "diameter_A": 220.0, "n_particles": 1},
    "crowded_globular_150": {**COARSE, "particle": "globular", "diameter_A": 150.0, "n_particles": 300,
                             "min_distance": 0.95},
    "full_capsid_280": {**COARSE, "particle": "full_capsid", "diameter_A": 280.0, "n_particles": 35},
    "empty_capsid_280": {**COARSE, "particle": "empty_capsid", "diameter_A": 280.0, "n_particles": 35},
    "cored_shell_130": {**COARSE, "particle": "cored_shell", "diameter_A": 130.0, "n_particles": 90},
    "liposome_300": {**COARSE, "particle": "liposome", "diameter_A": 300.0, "n_particles": 25},
    "micelle_150": {**COARSE, "particle": "micelle", "diameter_A": 150.0, "n_particles": 80},
}  # fmt: skip
SECOND = ("full_virus", "empty_virus", "iron_core", "bilobed")
SECOND_COUNT, SECOND_CONTRAST = 25, 1.0


@dataclass(frozen=True)
class Row:
    """One micrograph, looked at with one kind of settings; `said` is "nothing", "inverted", or the better diameter."""

    name: str
    particles: int
    how: str
    said: str

    @property
    def names_the_cause(self) -> bool:
        """Whether the warning names what is wrong, and the diameter to a third."""
        if self.how == "inverted" or self.said in ("nothing", "inverted"):
            return self.said == self.how
        return self.how != "right" and 0.67 < float(self.said) * HOW[self.how] < 1.5


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--micrographs", type=int, default=2, help="of each set")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="sets whose name begins so")
    options = parser.parse_args()
    kept = options.work / "wrong_settings" / f"{source_hash()}-{options.micrographs}"
    kept.mkdir(parents=True, exist_ok=True)
    head = load_head(load_model(DEFAULT_MODEL["default"]))
    rows = []
    wanted = tuple(options.only) or ("",)
    for name, paths, diameter_A, particles in sets(options.work / "wrong_settings_mics", options.micrographs, wanted):
        for path in paths:
            for how, factor in HOW.items():
                file = kept / f"{name}-{path.stem}-{how}.json".replace(" ", "_")
                if not file.exists():
                    said = look(path, diameter_A * factor, head, bright=how == "inverted")
                    file.write_text(json.dumps(asdict(Row(name, particles, how, said))))
                rows.append(Row(**json.loads(file.read_text())))
                print(f"{name} {path.stem} {how}: {rows[-1].said}", flush=True)
    (options.work / "wrong_settings.md").write_text(table(rows))
    print(table(rows))
    return 0


def sets(folder: Path, count: int, wanted: tuple[str, ...]) -> Iterator[tuple[str, list[Path], float, int]]:
    """Name, files, diameter in Å, and known particles of each set."""
    known = {scene.name: scene.settings for scene in [*faint_scenes(), *benchmark_scenes()]}
    known |= {name: SimulationSettings(**values) for name, values in EXTRA.items()}
    for name, settings in known.items():
        if not name.startswith(wanted):
            continue
        paths = [folder / name / f"{number}.mrc" for number in range(count)]
        particles = sum(_made(path, partial(simulate, settings, 4000 + n)) for n, path in enumerate(paths))
        yield name, paths, settings.diameter_A, particles
    for kind in SECOND:
        if not f"second {kind}".startswith(wanted):
            continue
        paths = [folder / kind / f"{number}.mrc" for number in range(count)]
        makers = [partial(render_particles, kind, SECOND_CONTRAST, SECOND_COUNT, 4000 + n) for n in range(count)]
        particles = sum(_made(path, make) for path, make in zip(paths, makers, strict=True))
        yield f"second {kind}", paths, 300.0, particles


def _made(path: Path, make: Callable[[], SimulatedMicrograph | Rendered]) -> int:
    """Write a micrograph, unless it is there; its particles."""
    note = path.with_suffix(".json")
    if not note.exists():
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        with mrcfile.new(path, made.image.astype(np.float32), overwrite=True) as mrc:
            mrc.voxel_size = made.pixel_size_A
        note.write_text(json.dumps(len(made.xy)))
    return int(json.loads(note.read_text()))


def look(path: Path, diameter_A: float, head: Head, *, bright: bool) -> str:
    """What a run would say of a micrograph with these settings."""
    loaded = load(Micrograph(path, None, path.stem))
    fit = find_better_fit(loaded.image, diameter_A / loaded.pixel_size_A, head, bright=bright)
    return "nothing" if fit is None else "inverted" if fit.inverted else f"{fit.factor:.3g}"


def table(rows: list[Row]) -> str:
    """A line a set, and the counts."""
    lines = ["| set | particles | " + " | ".join(HOW) + " |", "|" + " --- |" * (2 + len(HOW))]
    for name in dict.fromkeys(row.name for row in rows):
        mine = [row for row in rows if row.name == name]
        cells = [", ".join(row.said for row in mine if row.how == how) for how in HOW]
        lines.append(f"| {name} | {mine[0].particles} | {' | '.join(cells)} |")
    for how in HOW:
        of_kind = [row for row in rows if row.how == how and row.particles]
        silent = sum(row.said == "nothing" for row in of_kind)
        right = sum(row.names_the_cause for row in of_kind)
        lines.append(
            f"\n{how}: {len(of_kind)} micrographs, {silent} without a warning, {right} where the cause is named"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
