"""Picks of two jobs on the same micrographs, compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.evaluation.comparison import Comparison
from cryoemmae_plugin.picks.reading import read_picks
from cryoemmae_plugin.picks.relion import listed_files
from relion_wrapper.project import Job, Project


def compare_picks(
    project: Project, old: Job | None, new: Job, micrographs: Sequence[tuple[str, float | None]], diameter_A: float
) -> Comparison:
    """Compare old picks with new ones, one to one. Only one micrograph's picks are in memory at a time.

    Parameters
    ----------
    old : Job or None
        Where the old picks are; None where there are none.
    micrographs : sequence of (str, float or None)
        Names and pixel sizes in Å.

    Raises
    ------
    InputError
        When coordinates cannot be read.
    """
    old_files, new_files = (coordinate_files(project, job) for job in (old, new))
    comparison = Comparison()
    for name, pixel_size_A in micrographs:
        old_xy, new_xy = (_centres(files.get(name)) for files in (old_files, new_files))
        comparison.add(old_xy, new_xy, diameter_A / (pixel_size_A or 1.0))
    return comparison


def coordinate_files(project: Project, job: Job | None) -> dict[str, Path]:
    """The coordinate file of each micrograph that a job has one of."""
    if job is None or job.coordinates is None:
        return {}
    listed = listed_files(project.folder / job.coordinates) or []
    return {name: path for name, path in listed if path.is_file()}


def _centres(path: Path | None) -> NDArray[np.float64] | None:
    """Coordinates (N, 2) in a file; None without one."""
    return None if path is None else np.concatenate([table.xy for table in read_picks(path)])
