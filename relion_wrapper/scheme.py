"""Ready-made Schemes (RELION 5) and Schedules (3.1), filled in and put into a project.

The templates in ``schemes/`` hold ``@NAME@`` and the like; only the picking job is written as `make-job` does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from cryoemmae_plugin.box_size import suggest_box_px
from cryoemmae_plugin.errors import OutputError, SettingsError
from cryoemmae_plugin.files import atomic_write
from relion_wrapper.jobstar import external_job_star

FOLDERS = {"3.1": "Schedules", "5": "Schemes"}
RUN = {
    "3.1": "relion_scheduler --schedule {name} --run",
    "5": "relion_schemer --scheme {name} --run",
}
"""How each version runs what has been installed, in the project folder."""

MASK_DIAMETERS = 1.1
"""Diameter of the mask in 2D classification, in particle diameters."""

_PLACE = re.compile(r"@([A-Z_]+)@")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}")


@dataclass(frozen=True)
class SchemeValues:
    """What a scheme needs to know of a project.

    Attributes
    ----------
    micrographs : str
        Glob of the motion-corrected micrographs, relative to the project.
    pixel_size_A, voltage_kV, cs_mm, amplitude_contrast : float
        How they were taken.
    diameter_A : float
        Particle diameter; a variable of the scheme.
    box_px : int or None
        Side of the extracted boxes; by default 1.5 diameters.
    classes, iterations, psi_step_deg : int
        Of the 2D classification.
    min_particles : int
        Fewer are not classified.
    wait_s, hours, passes : int
        Least time between two passes; when to end (RELION 5); number of passes (3.1).
    threads : int
        CPU threads of picking and classification.
    """

    micrographs: str
    pixel_size_A: float
    diameter_A: float
    voltage_kV: float = 300.0
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.1
    box_px: int | None = None
    classes: int = 50
    iterations: int = 25
    psi_step_deg: int = 6
    min_particles: int = 500
    wait_s: int = 180
    hours: int = 48
    passes: int = 500
    threads: int = 4

    def places(self, name: str) -> dict[str, str]:
        """What takes the place of ``@NAME@`` and the others in the templates."""
        return {
            "NAME": name,
            "MICROGRAPHS": self.micrographs,
            "PIXEL_SIZE": f"{self.pixel_size_A:g}",
            "DIAMETER": f"{self.diameter_A:g}",
            "VOLTAGE": f"{self.voltage_kV:g}",
            "CS": f"{self.cs_mm:g}",
            "AMPLITUDE_CONTRAST": f"{self.amplitude_contrast:g}",
            "BOX": str(self.box_px or suggest_box_px(self.diameter_A, self.pixel_size_A)),
            "MASK": f"{math.ceil(MASK_DIAMETERS * self.diameter_A)}",
            "CLASSES": str(self.classes),
            "ITERATIONS": str(self.iterations),
            "PSI": str(self.psi_step_deg),
            "MIN_PARTICLES": str(self.min_particles),
            "WAIT": str(self.wait_s),
            "HOURS": str(self.hours),
            "PASSES": str(self.passes),
            "THREADS": str(self.threads),
        }


def install_scheme(
    project: Path,
    version: str,
    name: str,
    values: SchemeValues,
    parameters: Mapping[str, str],
    *,
    executable: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a scheme into a project.

    Parameters
    ----------
    version : str
        "3.1" for a Schedule, "4" or "5" for a Scheme.
    name : str
        What to call it.
    parameters : mapping
        Labels and values for the picking job besides the diameter, which is the scheme's variable.
    executable : str, optional
        Program of the picking job.
    overwrite : bool
        Replace a scheme of that name, and with it what it remembers of its passes.

    Returns
    -------
    Path
        The scheme's folder.

    Raises
    ------
    SettingsError
        When a value cannot be.
    OutputError
        When a scheme of that name is there, or the folder cannot be written.
    """
    version = "5" if version == "4" else version
    if not _NAME.fullmatch(name):
        raise SettingsError(setting="name", value=name, remedy="use letters, digits, _ and -")
    folder = project / FOLDERS[version] / name
    if folder.exists() and not overwrite:
        raise OutputError(f"{folder}: there already", remedy=("choose another $name", "replace it with $overwrite=yes"))
    micrographs = f"{FOLDERS[version]}/{name}/import/micrographs.star"
    pick = external_job_star(
        micrographs, {"diameter": "$$diameter", **parameters}, threads=values.threads, executable=executable
    )
    texts = {**fill_templates(version, values.places(name)), "pick/job.star": pick}
    for relative, text in sorted(texts.items()):
        with atomic_write(folder / relative) as file:
            file.write(text)
    return folder


def fill_templates(version: str, places: Mapping[str, str]) -> dict[str, str]:
    """The files of a scheme but the picking job, by path inside it."""
    with as_file(files("relion_wrapper") / "schemes" / version) as root:
        texts = {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in root.rglob("*.star")}
    return {path: _PLACE.sub(lambda found: places[found[1]], text) for path, text in texts.items()}
