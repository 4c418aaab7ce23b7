"""Count how often a run says that its settings are wrong: where they are, and where they are not.

    python benchmarks/wrong_settings.py --work DIR [--micrographs N] [--only NAME ...]

Simulated micrographs of many specimens, of both simulators, and with --data the real ones, are looked at as a run looks
at its first ones: with the right settings, with a diameter twice and half as large (which is the same as a pixel size
half and twice as large), and with inverted contrast. Where that says nothing they are picked, for what a run says at
its end, and to see what the user is left with. Each micrograph is a run of its own.
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
from numpy.typing import NDArray
from pickers import source_hash
from scenes import benchmark_scenes, faint_scenes
from second_simulator import Rendered, render_particles
from sets import real_sets

from cryoemmae_plugin.core.head import Head
from cryoemmae_plugin.core.picker import CandidatePicker, load_head
from cryoemmae_plugin.core.size_check import find_better_fit
from cryoemmae_plugin.evaluation.metrics import match
from cryoemmae_plugin.run.plausibility import CROWDED
from cryoemmae_plugin.run.prefetch import Loaded, load
from cryoemmae_plugin.settings import DEFAULT_MODEL, DEFAULT_THRESHOLD, PickerSettings
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
SECOND_COUNT, SECOND_CONTRAST, FIRST_SEED = 25, 1.0, 4000


@dataclass(frozen=True)
class Row:
    """One micrograph, looked at with one kind of settings.

    Attributes
    ----------
    said : str
        "inverted", the better diameter over the given one, "no picks", "crowded", or "nothing".
    picks, hits : int
        Where no cause was named: picks, and known particles among them.
    """

    name: str
    particles: int
    how: str
    said: str
    picks: int = 0
    hits: int = 0

    @property
    def names_the_cause(self) -> bool:
        """Whether the warning names what is wrong, and the diameter to a third."""
        if self.how == "inverted" or not self.said[0].isdigit():
            return self.said == self.how
        return self.how != "right" and 0.67 < float(self.said) * HOW[self.how] < 1.5

    def cell(self) -> str:
        """What was said, and what the user is left with where that is nothing."""
        return f"nothing ({self.hits} of {self.picks} picks right)" if self.said == "nothing" else self.said


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder of the real sets")
    parser.add_argument("--micrographs", type=int, default=2, help="of each set")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="sets whose name begins so")
    options = parser.parse_args()
    kept = options.work / "wrong_settings" / f"{source_hash()}-{options.micrographs}"
    kept.mkdir(parents=True, exist_ok=True)
    head = load_head(load_model(DEFAULT_MODEL["default"]))
    rows = []
    wanted = tuple(options.only) or ("",)
    for name, paths, diameter_A in sets(options.work / "wrong_settings_mics", options.micrographs, options.data):
        for path in paths if name.startswith(wanted) else ():
            for how, factor in HOW.items():
                file = kept / f"{name}-{path.stem}-{how}.json".replace(" ", "_")
                if not file.exists():
                    row = look(name, path, diameter_A, head, how, factor)
                    file.write_text(json.dumps(asdict(row)))
                rows.append(Row(**json.loads(file.read_text())))
                print(f"{name} {path.stem} {how}: {rows[-1].cell()}", flush=True)
    (options.work / "wrong_settings.md").write_text(table(rows))
    print(table(rows))
    return 0


def sets(folder: Path, count: int, data: Path | None) -> Iterator[tuple[str, list[Path], float]]:
    """Name, files and diameter in Å of each set; simulated ones are made when their turn comes."""
    for real in real_sets(data, folder) if data else ():
        known = real.reference()
        for path in real.micrographs()[:count]:
            _note(path).write_text(json.dumps(known[path.stem].xy.tolist()))
        yield real.name, real.micrographs()[:count], real.diameter_A
    known_scenes = {scene.name: scene.settings for scene in [*faint_scenes(), *benchmark_scenes()]}
    known_scenes |= {name: SimulationSettings(**values) for name, values in EXTRA.items()}
    for name, settings in known_scenes.items():
        yield name, _make(folder / name, count, partial(simulate, settings)), settings.diameter_A
    for kind in SECOND:
        make = partial(render_particles, kind, SECOND_CONTRAST, SECOND_COUNT)
        yield f"second {kind}", _make(folder / kind, count, make), 300.0


def _make(folder: Path, count: int, make: Callable[[int], SimulatedMicrograph | Rendered]) -> list[Path]:
    """Write micrographs, unless they are there, and beside each where its particles are."""
    paths = [folder / f"{number}.mrc" for number in range(count)]
    for number, path in enumerate(paths):
        if not _note(path).exists():
            made = make(FIRST_SEED + number)
            folder.mkdir(parents=True, exist_ok=True)
            with mrcfile.new(path, made.image.astype(np.float32), overwrite=True) as mrc:
                mrc.voxel_size = made.pixel_size_A
            _note(path).write_text(json.dumps(np.asarray(made.xy).tolist()))
    return paths


def _note(path: Path) -> Path:
    return path.with_suffix(".particles.json")


def look(name: str, path: Path, diameter_A: float, head: Head, how: str, factor: float) -> Row:
    """What a run of one micrograph would say with these settings."""
    loaded = load(Micrograph(path, None, path.stem))
    known = np.array(json.loads(_note(path).read_text()), float).reshape(-1, 2)
    given_A, contrast = diameter_A * factor, "bright" if how == "inverted" else "dark"
    sample = [(loaded.image, given_A / loaded.pixel_size_A)]
    fit = find_better_fit(lambda: sample, head, bright=contrast == "bright")
    if fit is not None:
        return Row(name, len(known), how, "inverted" if fit.inverted else f"{fit.factor:.3g}")
    xy = _picks(loaded, PickerSettings(diameter_A=given_A, contrast=contrast))
    hits = len(match(known, xy, diameter_A / loaded.pixel_size_A, "half_d"))
    covered = len(xy) * np.pi / 4 * (given_A / loaded.pixel_size_A) ** 2 / loaded.image.size
    said = "no picks" if not len(xy) else "crowded" if covered > CROWDED else "nothing"
    return Row(name, len(known), how, said, len(xy), hits)


def _picks(loaded: Loaded, settings: PickerSettings) -> NDArray[np.float64]:
    """Centres of the picks, without adapting."""
    picks = CandidatePicker(load_model(DEFAULT_MODEL["default"]), settings).pick(loaded.image, loaded.pixel_size_A)
    return picks.xy[picks.score >= DEFAULT_THRESHOLD["default"]]


def table(rows: list[Row]) -> str:
    """A line a set, and the counts."""
    lines = ["| set | particles | " + " | ".join(HOW) + " |", "|" + " --- |" * (2 + len(HOW))]
    for name in dict.fromkeys(row.name for row in rows):
        mine = [row for row in rows if row.name == name]
        cells = [", ".join(row.cell() for row in mine if row.how == how) for how in HOW]
        lines.append(f"| {name} | {mine[0].particles} | {' | '.join(cells)} |")
    for how in HOW:
        of_kind = [row for row in rows if row.how == how and row.particles]
        named = sum(row.names_the_cause for row in of_kind)
        asked = sum(row.said in ("no picks", "crowded") for row in of_kind)
        silent = sum(row.said == "nothing" for row in of_kind)
        lines.append(
            f"\n{how}: {len(of_kind)} micrographs, {named} where the cause is named, {asked} with what to check, "
            f"{silent} without a warning"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
