"""Picks of two jobs on the same micrographs, compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.evaluation.metrics import match
from cryoemmae_plugin.run.relion_coordinates import root_of
from cryoemmae_plugin.star import find_table, read_star
from relion_wrapper.project import Job, Project

SUFFIX_LIST = "coords_suffix"
"""How the file begins by which RELION 3.1 stands for all coordinates of a job."""


@dataclass
class Compared:
    """Picks before, picks after, and how many of the former lie within half a diameter of one of the latter."""

    before: int = 0
    after: int = 0
    found_again: int = 0


def compare_picks(
    project: Project, old: Job | None, new: Job, micrographs: Sequence[tuple[str, float | None]], diameter_A: float
) -> Compared:
    """Compare old picks with new ones, one to one; those of one micrograph are in memory at a time.

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
    compared = Compared()
    for name, pixel_size_A in micrographs:
        before = read_xy(old_files[name]) if name in old_files else np.zeros((0, 2))
        after = read_xy(new_files[name]) if name in new_files else np.zeros((0, 2))
        compared.before += len(before)
        compared.after += len(after)
        compared.found_again += len(match(before, after, diameter_A / (pixel_size_A or 1.0), "half_d"))
    return compared


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
