"""Simulated micrographs as files: MRC images, and a table of the true coordinates."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import mrcfile
import numpy as np

from cryoemmae_plugin.errors import OutputError
from cryoemmae_plugin.simulate.render import SimulatedMicrograph, simulate
from cryoemmae_plugin.simulate.scenes import Scene

REFERENCE_NAME = "reference.csv"
REFERENCE_COLUMNS = ("micrograph", "x", "y", "diameter")


def write_micrographs(
    folder: Path,
    scenes: Sequence[Scene],
    seeds: Iterable[int],
    dtype: Literal["float32", "float16"] = "float32",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Simulate scenes into `folder`: one MRC each, row for row, pixel size in the header, and ``reference.csv``.

    Parameters
    ----------
    folder : Path
        Created where it does not exist; files of the same name are replaced.
    scenes : sequence of Scene
        Their names become the files' names.
    dtype : {"float32", "float16"}
        MRC mode 2 or 12.
    progress : callable
        Told how many of how many are written.

    Returns
    -------
    list of Path
        The MRC files. Micrographs without particles have no row in the reference.

    Raises
    ------
    OutputError
        If the folder or a file cannot be written.
    """
    paths: list[Path] = []
    progress(0, len(scenes))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / REFERENCE_NAME).open("w", newline="") as table:
            rows = csv.writer(table)
            rows.writerow(REFERENCE_COLUMNS)
            for scene, seed in zip(scenes, seeds, strict=True):
                path = folder / f"{scene.name}.mrc"
                micrograph = simulate(scene.settings, seed)
                write_mrc(path, micrograph, dtype)
                diameter = f"{micrograph.diameter_px:.3f}"
                rows.writerows((path.name, f"{x:.3f}", f"{y:.3f}", diameter) for x, y in micrograph.xy)
                paths.append(path)
                progress(len(paths), len(scenes))
    except OSError as err:
        raise OutputError(f"{folder}: cannot write simulated micrographs ({err}); choose a writable folder") from err
    return paths


def write_mrc(path: Path, micrograph: SimulatedMicrograph, dtype: Literal["float32", "float16"] = "float32") -> None:
    """Write one image to an MRC file, row 0 first, with its pixel size."""
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(micrograph.image.astype(np.dtype(dtype)))
        mrc.voxel_size = micrograph.pixel_size_A
