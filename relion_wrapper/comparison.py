"""Picks of two jobs on the same micrographs, compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.evaluation.comparison import Comparison
from cryoemmae_plugin.picks.relion_coordinates import root_of
from cryoemmae_plugin.star import find_table, read_star
from relion_wrapper.project import Job, Project

SUFFIX_LIST = "coords_suffix"
"""How the file begins by which RELION 3.1 stands for all coordinates of a job."""


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
    """
    names = [name for name, _ in micrographs]
    old_files = coordinate_files(project, old, names) if old is not None else {}
    new_files = coordinate_files(project, new, names)
    comparison = Comparison()
    for name, pixel_size_A in micrographs:
        old_xy, new_xy = (read_xy(files[name]) if name in files else None for files in (old_files, new_files))
        comparison.add(old_xy, new_xy, diameter_A / (pixel_size_A or 1.0))
    return comparison


def coordinate_files(project: Project, job: Job, names: Sequence[str]) -> dict[str, Path]:
    """The coordinate file of each micrograph that a job has one of."""
    if job.coordinates is None:
        return {}
    listing = project.folder / job.coordinates
    table = None if listing.name.startswith(SUFFIX_LIST) else find_table(read_star(listing), "coordinate_files")
    if table:
        files = [project.folder / path for path in table.column("rlnMicrographCoordinates")]
        listed = dict(zip(table.column("rlnMicrographName"), files, strict=True))
    else:  # RELION 3.1: coords_suffix_autopick.star stands for all files in that folder that end in _autopick.star
        suffix = listing.name.removeprefix(SUFFIX_LIST)
        listed = {name: project.folder / job.name / f"{root_of(name)}{suffix}" for name in names}
    return {name: path for name, path in listed.items() if path.is_file()}


def read_xy(path: Path) -> NDArray[np.float64]:
    """Coordinates in a STAR file, shape (N, 2).

    Raises
    ------
    InputError
        When it cannot be read, or a coordinate is not a number.
    """
    tables = [table for table in read_star(path) if "rlnCoordinateX" in table]
    columns = [(table.numbers("rlnCoordinateX"), table.numbers("rlnCoordinateY")) for table in tables]
    return np.concatenate([np.zeros((0, 2)), *(np.stack(xy, axis=1) for xy in columns)])
