"""The micrographs that the shipped models are trained on: real ones where they are at hand, and simulated ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryoemmae_plugin.simulate import Scene, random_scene, write_micrographs
from cryoemmae_plugin.training.prepare import TrainingMicrograph

SIMULATED, SIMULATED_KEPT_BACK = 32, 4
"""Simulated micrographs, and how many of them are not trained on."""
SCENE_SEED, FIRST_SEED = 20260101, 5000


@dataclass(frozen=True)
class TrainingSet:
    """Real images of one kind.

    Attributes
    ----------
    name : str
        Of the folder.
    diameters_px : tuple of float
        Particle diameter in each image; one number holds for all.
    pixel_size_A : float
    trained_on : int
        The first images by name; the others are kept back.
    """

    name: str
    diameters_px: tuple[float, ...]
    pixel_size_A: float
    trained_on: int


TRAINING_SETS = (
    TrainingSet("empiar-10017", (108,), 1.77, 6),
    TrainingSet("empiar-10146", (80,), 1.5, 4),
    TrainingSet("bgal-10204", (34,), 4.6, 2),
    TrainingSet("negatives", (40,), 7.0, 3),
    TrainingSet("ring-24dec03a", (18,), 8.0, 1),
    TrainingSet("ice-ucsf", (40,), 4.0, 1),
    TrainingSet("epu-2025", (22,), 4.0, 4),
    TrainingSet("findem", (14,), 4.0, 1),
    TrainingSet("micassess-good", (18, 16, 16, 14, 16, 14, 16, 14), 7.0, 8),
)
"""Two images of each labelled set are kept back. Where diameter or pixel size are not known, they are estimates."""


@dataclass(frozen=True)
class TrainingData:
    """What is trained on, what is kept back, and both in words."""

    micrographs: list[TrainingMicrograph]
    kept_back: list[TrainingMicrograph]
    description: str


def training_data(source: Path, work: Path, simulated: bool = True) -> TrainingData:
    """Collect the micrographs.

    Parameters
    ----------
    source : Path
        Folder of real images; sets that are not there are left out.
    work : Path
        Receives the simulated micrographs.
    """
    trained: list[TrainingMicrograph] = []
    kept: list[TrainingMicrograph] = []
    words = []
    for known in TRAINING_SETS:
        folder = source / known.name
        if not folder.is_dir():
            continue
        images = sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
        diameters = known.diameters_px * (len(images) if len(known.diameters_px) == 1 else 1)
        found = [
            TrainingMicrograph(path, diameter_px * known.pixel_size_A, known.pixel_size_A)
            for path, diameter_px in zip(images, diameters, strict=False)
        ]
        trained += found[: known.trained_on]
        kept += found[known.trained_on :]
        words.append(f"{min(len(found), known.trained_on)} of {known.name}")
    if simulated:
        made = simulated_micrographs(work / "simulated")
        trained += made[:-SIMULATED_KEPT_BACK]
        kept += made[-SIMULATED_KEPT_BACK:]
        words.append(f"{SIMULATED - SIMULATED_KEPT_BACK} simulated")
    return TrainingData(trained, kept, f"{len(trained)} unlabelled micrographs: {', '.join(words)}")


def simulated_micrographs(folder: Path) -> list[TrainingMicrograph]:
    """Return the simulated micrographs, made if they are not there."""
    rng = np.random.default_rng(SCENE_SEED)
    scenes = [Scene(f"train_{at:03d}", random_scene(rng)) for at in range(SIMULATED)]
    if not (folder / "reference.csv").exists():
        write_micrographs(folder, scenes, range(FIRST_SEED, FIRST_SEED + SIMULATED), dtype="float16")
    return [
        TrainingMicrograph(folder / f"{s.name}.mrc", s.settings.diameter_A, s.settings.pixel_size_A) for s in scenes
    ]
