"""The micrographs that figures are measured on: real ones where they are at hand, and simulated ones."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import mrcfile

from cryoemmae_plugin.images import read_image
from cryoemmae_plugin.simulate import benchmark_scenes, write_micrographs

SIMULATION_SEED = 900


@dataclass(frozen=True)
class BenchmarkSet:
    """Micrographs of one specimen.

    Attributes
    ----------
    name : str
    folder : Path
        MRC files, pixel size in their headers, and ``reference.csv``.
    diameter_A : float
    """

    name: str
    folder: Path
    diameter_A: float


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
        sets.append(BenchmarkSet(real.name, target, real.diameter_px * real.pixel_size_A))
    return sets


def simulated_sets(folder: Path) -> list[BenchmarkSet]:
    """Simulate the benchmark's scenes under `folder`, one set each."""
    sets = []
    for at, scene in enumerate(benchmark_scenes()):
        target = folder / scene.name
        if not (target / "reference.csv").exists():
            write_micrographs(target, [scene], [SIMULATION_SEED + at])
        sets.append(BenchmarkSet(scene.name, target, scene.settings.diameter_A))
    return sets
