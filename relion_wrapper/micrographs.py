"""The micrographs of a job, and where RELION looks for their coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.files import is_file
from cryoemmae_plugin.picks.relion_coordinates import COORDINATES_SUFFIX, is_upside_down, root_of
from cryoemmae_plugin.run.micrograph_table import read_named_defocus, read_named_micrographs
from cryoemmae_plugin.types import Micrograph


@dataclass(frozen=True)
class JobMicrograph:
    """One micrograph of the input STAR.

    Attributes
    ----------
    name : str
        As it stands in the STAR, relative to the project.
    pixel_size_A : float
        Å per pixel of the stored micrograph.
    root : str
        Its path without the job that made it and without suffix; coordinates go to ``<job>/<root>_autopick.star``.
    defocus_um : float or None
        Mean defocus in µm where the STAR has it.
    """

    name: str
    pixel_size_A: float
    root: str
    defocus_um: float | None = None

    @property
    def upside_down(self) -> bool:
        """Whether RELION counts its rows from the last one stored."""
        return is_upside_down(self.name)

    @property
    def micrograph(self) -> Micrograph:
        """For the core; results are stored under the root."""
        return Micrograph(Path(self.name), self.pixel_size_A, self.root, defocus_um=self.defocus_um)


def read_job_micrographs(star: Path, pixel_size_A: float | None = None) -> list[JobMicrograph]:
    """List the micrographs of a STAR file, each once.

    Parameters
    ----------
    star : Path
        Micrographs STAR of any job and version since 2.
    pixel_size_A : float or None
        Å per pixel of all of them, over what the file says.

    Raises
    ------
    InputError
        When there are none, a pixel size is missing, none of them exists, or two would share one coordinate file.
    """
    listed, defocus_um = dict(read_named_micrographs(star)), read_named_defocus(star)
    micrographs = [
        JobMicrograph(name, pixel_size_A or _known(star, name, A), root_of(name), defocus_um.get(name))
        for name, A in listed.items()
    ]
    by_root: dict[str, str] = {}
    for micrograph in micrographs:
        other = by_root.setdefault(micrograph.root, micrograph.name)
        if other != micrograph.name:
            raise InputError(
                f"{star}: {other} and {micrograph.name} would both have the coordinate file "
                f"{micrograph.root}{COORDINATES_SUFFIX}; rename one of them, or pick them in two jobs"
            )
    if not any(is_file(Path(micrograph.name)) for micrograph in micrographs):
        raise InputError(
            f"{star}: none of its {len(micrographs)} micrographs exists, {micrographs[0].name} for one; names start "
            f"from the project folder, and the job runs in {Path.cwd()}"
        )
    return micrographs


def _known(star: Path, name: str, pixel_size_A: float | None) -> float:
    if pixel_size_A is None:
        raise InputError(
            f"{star}: no pixel size of {name} (rlnMicrographPixelSize of its optics group); make it with RELION's "
            "Import or MotionCorr, or give the job the parameter pixel_size"
        )
    if not 0 < pixel_size_A < 100:
        raise InputError(f"{star}: the pixel size of {name} is {pixel_size_A:g} Å; correct it, or give pixel_size")
    return pixel_size_A
