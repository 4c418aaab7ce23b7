"""The micrographs that figures are measured on: real ones where they are at hand, and simulated ones."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
from scenes import benchmark_scenes, faint_scenes

from cryoemmae_plugin.evaluation.metrics import Reference
from cryoemmae_plugin.evaluation.tables import read_reference
from cryoemmae_plugin.images import read_image
from cryoemmae_plugin.simulate import Scene, write_micrographs

SIMULATION_SEED = 900
SEEDS_PER_SCENE = 3
RECIPE = "scene.json"
"""File beside simulated micrographs that says what they show; they are made anew when that has changed."""
SEED_STEP = 1000
"""Micrographs of one scene have the seeds SIMULATION_SEED + the scene's place, and then this much more each."""


@dataclass(frozen=True)
class BenchmarkSet:
    """Micrographs of one specimen.

    Attributes
    ----------
    name : str
    folder : Path
        MRC files, pixel size in their headers, and ``reference.csv``.
    diameter_A : float
    pixel_size_A : float
    """

    name: str
    folder: Path
    diameter_A: float
    pixel_size_A: float

    @property
    def diameter_px(self) -> float:
        """Particle diameter in micrograph pixels."""
        return self.diameter_A / self.pixel_size_A

    @property
    def real(self) -> bool:
        """Whether a microscope has made these images."""
        return self.name in {real.name for real in REAL_SETS}

    def micrographs(self) -> list[Path]:
        """The MRC files by name."""
        return sorted(self.folder.glob("*.mrc"))

    def fingerprint(self) -> str:
        """Identify images and diameter: picks of others must not be scored as if they were of these."""
        digest = hashlib.blake2b(f"{self.diameter_A:.6g}".encode(), digest_size=8)
        for path in self.micrographs():
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def reference(self) -> dict[str, Reference]:
        """Where the particles are, for every micrograph; none for those that the table does not name."""
        known = read_reference(self.folder / "reference.csv")
        empty = Reference(np.zeros((0, 2)), self.diameter_px)
        return {path.stem: known.get(path.stem, empty) for path in self.micrographs()}


@dataclass(frozen=True)
class RealSet:
    """A set of real images as delivered: PNG or JPEG beside a ``reference.csv`` that names them ``.mrc``."""

    name: str
    diameter_px: float
    pixel_size_A: float


REAL_SETS = (
    RealSet("empiar-10017", 108.0, 1.77),
    RealSet("empiar-10146", 80.0, 1.5),
    RealSet("negatives", 40.0, 7.0),
    RealSet("bgal-10204", 34.0, 4.6),
)


def real_sets(source: Path, folder: Path) -> list[BenchmarkSet]:
    """Write the real images row for row to MRC under `folder`; those whose source is absent are left out."""
    sets = []
    for real in REAL_SETS:
        if not (source / real.name).is_dir():
            continue
        target = folder / real.name
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted((source / real.name).iterdir()):
            written = target / f"{path.stem}.mrc"
            if path.suffix in (".jpg", ".png") and not written.exists():
                partial = written.with_suffix(".partial")
                with mrcfile.new(partial, overwrite=True) as mrc:
                    mrc.set_data(read_image(path))
                    mrc.voxel_size = real.pixel_size_A
                partial.replace(written)
        shutil.copy(source / real.name / "reference.csv", target / "reference.csv")
        sets.append(BenchmarkSet(real.name, target, real.diameter_px * real.pixel_size_A, real.pixel_size_A))
    return sets


def simulated_sets(folder: Path, names: list[str], per_scene: int | None = None) -> list[BenchmarkSet]:
    """Simulate the benchmark's scenes under `folder`: one set a scene, several micrographs each.

    Parameters
    ----------
    names : list of str
        Of the scenes.
    per_scene : int, optional
        Micrographs of each; `SEEDS_PER_SCENE` by default, which are the first of them.
    """
    sets, count = [], per_scene or SEEDS_PER_SCENE
    for at, scene in enumerate(benchmark_scenes() + faint_scenes()):
        if scene.name not in names:
            continue
        target = folder / f"{scene.name}.{count}"
        recipe = scene.settings.model_dump_json(indent=1)
        if not (target / RECIPE).exists() or (target / RECIPE).read_text() != recipe:
            _simulate(scene, target, SIMULATION_SEED + at, count)
            (target / RECIPE).write_text(recipe)
        settings = scene.settings
        sets.append(BenchmarkSet(scene.name, target, settings.diameter_A, settings.pixel_size_A))
    return sets


def _simulate(scene: Scene, target: Path, first_seed: int, count: int) -> None:
    """Make all micrographs of a scene."""
    shutil.rmtree(target, ignore_errors=True)
    scenes = [Scene(f"{scene.name}_{n + 1}", scene.settings) for n in range(count)]
    write_micrographs(target, scenes, [first_seed + SEED_STEP * n for n in range(count)])


def chosen_sets(
    source: Path,
    work: Path,
    only: list[str],
    simulated: bool = True,
    per_scene: int | None = None,
    faint: bool = False,
) -> Iterator[BenchmarkSet]:
    """All sets, or those that `only` names; the real ones first, each simulated one made when its turn comes.

    The `faint` ones instead of all others, or, by name, beside them.
    """
    for real in [] if faint else real_sets(source, work / "sets"):
        if not only or real.name in only:
            yield real
    named = [scene for scene in faint_scenes() if scene.name in only]
    for scene in (faint_scenes() if faint else benchmark_scenes() + named) if simulated else []:
        if not only or scene.name in only:
            yield from simulated_sets(work / "simulated", [scene.name], per_scene)
