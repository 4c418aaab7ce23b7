"""Convert rows of CryoSPARC's data sets to exposures, and picks to rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.types import Micrograph, Picks
from cryosparc_job.errors import Refused

EXPOSURE_SLOTS = ("micrograph_blob", "mscope_params", "ctf")
"""Slots of an exposure that are used; only the first is required."""

PARTICLE_SLOTS = ("location", "pick_stats")

PARTICLE_FIELDS = {
    "location/micrograph_uid": "u8",
    "location/exp_group_id": "u4",
    "location/micrograph_path": "O",
    "location/micrograph_shape": "u4",
    "location/center_x_frac": "f4",
    "location/center_y_frac": "f4",
    "location/micrograph_psize_A": "f4",
    "location/min_dist_A": "f4",
    "pick_stats/ncc_score": "f4",
    "pick_stats/power": "f4",
    "pick_stats/template_idx": "u4",
    "pick_stats/angle_rad": "f4",
}
"""Every field that is written, with its type."""

_OPTIONAL = ("location/micrograph_psize_A", "location/min_dist_A")
"""Fields that old versions of CryoSPARC do not have."""


@dataclass(frozen=True)
class Exposure:
    """One row of an exposures output.

    Attributes
    ----------
    path : str
        As CryoSPARC has it, usually relative to the project's folder.
    shape : tuple of int
        (ny, nx) in pixels.
    exp_group_id : int
        Exposure group; 0 where none is known.
    defocus_A : float or None
        Mean of both defocus values, where the CTF is known.
    """

    uid: int
    path: str
    shape: tuple[int, int]
    pixel_size_A: float
    exp_group_id: int
    defocus_A: float | None

    @property
    def key(self) -> str:
        """Name that its result is stored under."""
        return str(self.uid)

    @property
    def file(self) -> str:
        """The path to read: without the mark at the front of exported paths."""
        return self.path.removeprefix(">")

    def micrograph(self, project_dir: Path, pixel_size_A: float | None = None) -> Micrograph:
        """What is to be picked; `pixel_size_A` overrides the data set's."""
        defocus_um = None if self.defocus_A is None else self.defocus_A / 1e4
        size_A = pixel_size_A or self.pixel_size_A
        return Micrograph(project_dir / self.file, size_A, self.key, self.shape, defocus_um)


def read_exposures(dataset: Any, source: str) -> list[Exposure]:
    """Read the rows of an exposures data set.

    Parameters
    ----------
    dataset : cryosparc.dataset.Dataset
        With the slot micrograph_blob, and mscope_params and ctf where they are there.
    source : str
        Its name, for messages.

    Raises
    ------
    InputError
        When a path, a shape or a pixel size is missing, or nothing is in it.
    """
    fields = set(dataset.fields())
    missing = {"micrograph_blob/path", "micrograph_blob/shape", "micrograph_blob/psize_A"} - fields
    if missing:
        raise InputError(f"{source} has no {', '.join(sorted(missing))}; connect micrographs, not movies")
    if not len(dataset):
        raise InputError(f"{source} is empty; choose an output with exposures in it")
    groups = _column(dataset, "mscope_params/exp_group_id", "ctf/exp_group_id")
    defocus = _defocus(dataset)
    exposures = []
    for row in range(len(dataset)):
        shape = dataset["micrograph_blob/shape"][row]
        exposure = Exposure(
            uid=int(dataset["uid"][row]),
            path=str(dataset["micrograph_blob/path"][row]),
            shape=(int(shape[0]), int(shape[1])),
            pixel_size_A=float(dataset["micrograph_blob/psize_A"][row]),
            exp_group_id=0 if groups is None else int(groups[row]),
            defocus_A=None if defocus is None else float(defocus[row]),
        )
        _check(exposure, source)
        exposures.append(exposure)
    return exposures


def _check(exposure: Exposure, source: str) -> None:
    if not exposure.file:
        raise InputError(f"{source}: exposure {exposure.uid} has no path; run the job that made it again")
    if not (0 < exposure.pixel_size_A < np.inf):
        raise InputError(
            f"{source}: {exposure.path} has a pixel size of {exposure.pixel_size_A:g} Å; import the exposures again "
            "with the right one"
        )
    if min(exposure.shape) < 1:
        raise InputError(f"{source}: {exposure.path} is {exposure.shape[1]} x {exposure.shape[0]} px; import it again")


def _column(dataset: Any, *names: str) -> NDArray[Any] | None:
    """The first of these columns that is there."""
    for name in names:
        if name in dataset.fields():
            return np.asarray(dataset[name])
    return None


def _defocus(dataset: Any) -> NDArray[np.float64] | None:
    u, v = _column(dataset, "ctf/df1_A"), _column(dataset, "ctf/df2_A")
    return None if u is None or v is None else (u.astype(np.float64) + v.astype(np.float64)) / 2


def check_template(template: Any) -> None:
    """Check that an output has all fields that are written into it.

    Raises
    ------
    Refused
        When it does not know one of the fields.
    """
    missing = [name for name in PARTICLE_FIELDS if name not in template.fields() and name not in _OPTIONAL]
    if missing:
        raise Refused(f"this version of CryoSPARC has no {', '.join(missing)} in a particle's location or pick_stats")


class ParticleRows:
    """Makes the data set of particles from the picks of exposures.

    Parameters
    ----------
    template : cryosparc.dataset.Dataset
        Empty, with the output's own fields.
    flip_y : bool
        Whether the rows of the exposures were stored in reverse order.
    """

    def __init__(self, template: Any, *, flip_y: bool = False) -> None:
        check_template(template)
        self._template, self._flip_y = template, flip_y

    def build(
        self,
        exposures: Sequence[Exposure],
        picks_of: Callable[[Exposure], tuple[Picks, float] | None],
        min_dist_A: float,
        sizes_A: Sequence[float] = (),
    ) -> Any:
        """One row per pick, exposure by exposure.

        Parameters
        ----------
        exposures : sequence of Exposure
            In the order of the rows.
        picks_of : callable
            Picks of an exposure and its pixel size in Å; None where it has not been picked.
        min_dist_A : float
            Least distance of two picks, in Å; of those of the largest size where there are several.
        sizes_A : sequence of float
            Diameters where particles of several sizes are picked; template_idx then says which one a pick has.

        Raises
        ------
        InputError
            When a value is not what CryoSPARC can use.
        """
        columns: dict[str, list[NDArray[Any]]] = {name: [] for name in PARTICLE_FIELDS}
        for exposure in exposures:
            found = picks_of(exposure)
            if found is None or not len(found[0]):
                continue
            for name, values in self._rows(exposure, *found, min_dist_A, sizes_A).items():
                columns[name].append(values)
        sizes = [len(part) for part in columns["location/center_x_frac"]]
        dataset = type(self._template).allocate(sum(sizes), self._template.descr(exclude_uid=True))
        for name, parts in columns.items():
            if parts and name in self._template.fields():
                dataset[name] = np.concatenate(parts)
        return dataset

    def _rows(
        self, exposure: Exposure, picks: Picks, pixel_size_A: float, min_dist_A: float, sizes_A: Sequence[float]
    ) -> dict[str, NDArray[Any]]:
        """The columns of one exposure's particles."""
        n, (ny, nx) = len(picks), picks.shape
        x, y = picks.xy.T
        y = ny - 1 - y if self._flip_y else y
        columns: dict[str, Any] = {
            "location/micrograph_uid": np.full(n, exposure.uid, np.uint64),
            "location/exp_group_id": np.full(n, exposure.exp_group_id, np.uint32),
            "location/micrograph_path": np.full(n, exposure.path, object),
            "location/micrograph_shape": np.tile(np.array(exposure.shape, np.uint32), (n, 1)),
            "location/center_x_frac": (x / nx).astype(np.float32),
            "location/center_y_frac": (y / ny).astype(np.float32),
            "location/micrograph_psize_A": np.full(n, pixel_size_A, np.float32),
            "location/min_dist_A": (min_dist_A * _relative_sizes(picks, sizes_A)).astype(np.float32),
            "pick_stats/ncc_score": picks.score.astype(np.float32),
            "pick_stats/power": picks.power.astype(np.float32),
            "pick_stats/template_idx": _kinds(picks, sizes_A),
            "pick_stats/angle_rad": np.zeros(n, np.float32),
        }
        _check_rows(exposure, columns)
        return columns


def _relative_sizes(picks: Picks, sizes_A: Sequence[float]) -> NDArray[np.float64]:
    """Diameter of each pick over that of the largest size of the run."""
    return np.ones(len(picks)) if picks.diameter_A is None else picks.diameter_A / max(sizes_A)


def _kinds(picks: Picks, sizes_A: Sequence[float]) -> NDArray[np.uint32]:
    """Number of each pick's size, 0 for the smallest; of its group, where there is one size; 0 without groups."""
    if picks.diameter_A is None:
        return np.zeros(len(picks), np.uint32) if picks.group is None else picks.group.astype(np.uint32)
    nearest = np.abs(picks.diameter_A[:, None] - np.array(sizes_A)).argmin(axis=1)
    return np.asarray(nearest, np.uint32)


def _check_rows(exposure: Exposure, columns: dict[str, Any]) -> None:
    for name in ("location/center_x_frac", "location/center_y_frac"):
        if not ((columns[name] >= 0) & (columns[name] <= 1)).all():
            raise InputError(f"{exposure.path}: a pick lies outside of the micrograph; please report it")
    for name in ("pick_stats/ncc_score", "pick_stats/power"):
        if not np.isfinite(columns[name]).all():
            raise InputError(f"{exposure.path}: {name} of a pick is not a number; please report it")


def read_locations(dataset: Any) -> dict[int, NDArray[np.float64]]:
    """Centres of particles by the uid of their micrograph, as fractions of its size: arrays (N, 2), x first."""
    uids = np.asarray(dataset["location/micrograph_uid"])
    columns = ("location/center_x_frac", "location/center_y_frac")
    centres = np.stack([np.asarray(dataset[name], np.float64) for name in columns], axis=1)
    order = np.argsort(uids, kind="stable")
    found, starts = np.unique(uids[order], return_index=True)
    parts = np.split(centres[order], starts[1:])
    return {int(uid): part for uid, part in zip(found, parts, strict=True)} if len(uids) else {}


def pixel_sizes(exposures: Iterable[Exposure]) -> list[float]:
    """The different pixel sizes, in Å."""
    return sorted({round(exposure.pixel_size_A, 4) for exposure in exposures})
