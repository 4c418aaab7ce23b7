"""Ready-made Schemes (RELION 5) and Schedules (3.1), filled in and put into a project.

The templates in ``schemes/`` hold ``@NAME@`` and the like; only the picking job is written as `make-job` does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

from pydantic import Field

from cryoemmae_plugin.box_size import suggest_box_px
from cryoemmae_plugin.errors import OutputError, SettingsError
from cryoemmae_plugin.files import atomic_write
from cryoemmae_plugin.settings import Diameter, Options
from cryoemmae_plugin.terminal.options import option_name
from relion_wrapper.jobstar import external_job_star

FOLDERS = {"3.1": "Schedules", "5": "Schemes"}
RUN = {
    "3.1": "relion_scheduler --schedule {name}",
    "5": "relion_schemer --scheme {name}",
}
"""The program of each version for what has been installed, to start in the project folder."""

MASK_DIAMETERS = 1.1
"""Diameter of the mask in 2D classification, in particle diameters."""

SELECTED = "$$selected"
"""The scheme's variable for the particles that a Select job has kept."""

_PLACE = re.compile(r"@([A-Z_]+)@")
_SECOND_ROUND = re.compile(r"^@SECOND_ROUND@(.*\n)", re.MULTILINE)
"""A line that only a scheme with a second round has."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}")


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=1)]


class SchemeValues(Options):
    """What a scheme needs to know of a project. Frozen."""

    diameter_A: Diameter = Field(description="Longest extent of the particle, in Å; a variable of the scheme.")
    pixel_size_A: Positive = Field(description="Å per pixel of the micrographs.")
    micrographs: str = Field(
        default="Micrographs/*.mrc",
        description="Glob of the motion-corrected micrographs, relative to the project; in quotes.",
    )
    voltage_kV: Positive = Field(default=300.0, description="Voltage in kV.")
    cs_mm: float = Field(default=2.7, ge=0, description="Spherical aberration in mm.")
    amplitude_contrast: float = Field(default=0.1, ge=0, le=1, description="Fraction of amplitude contrast.")
    box_px: Number | None = Field(
        default=None, description="Side of the extracted boxes in pixels. [default: 1.5 diameters]"
    )
    classes: Number = Field(default=50, description="Number of 2D classes.")
    iterations: Number = Field(default=25, description="Iterations of the 2D classification.")
    psi_step_deg: Number = Field(default=6, description="In-plane angular sampling of the 2D classification, in °.")
    min_particles: Number = Field(default=500, description="Least number of particles for the 2D classification.")
    wait_s: int = Field(default=180, ge=0, description="Least seconds between two passes.")
    hours: Number = Field(default=48, description="Hours after which a Scheme ends.")
    passes: Number = Field(default=500, description="Passes after which a Schedule ends.")
    threads: Number = Field(default=4, description="CPU threads of picking and classification.")

    def places(self, name: str) -> dict[str, str]:
        """What takes the place of ``@NAME@`` and the others in the templates."""
        fields = {option_name(field).upper().replace("-", "_"): value for field, value in self.model_dump().items()}
        fields |= {
            "NAME": name,
            "BOX": self.box_px or suggest_box_px(self.diameter_A, self.pixel_size_A),
            "MASK": math.ceil(MASK_DIAMETERS * self.diameter_A),
        }
        return {place: f"{value:g}" if isinstance(value, float) else str(value) for place, value in fields.items()}


def install_scheme(
    project: Path,
    version: str,
    name: str,
    values: SchemeValues,
    parameters: Mapping[str, str],
    *,
    executable: str | None = None,
    second_round: bool = False,
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
    second_round : bool
        Pick, extract and classify again, by what a Select job has kept of the first classification.
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
    home = f"{FOLDERS[version]}/{name}"
    settings = {"diameter": "$$diameter", **parameters}
    texts = fill_templates(version, values.places(name), second_round=second_round)
    for job, particles in {"pick": None, **({"refine": SELECTED} if second_round else {})}.items():
        texts[f"{job}/job.star"] = external_job_star(
            f"{home}/import/micrographs.star",
            settings,
            in_parts=particles,
            threads=values.threads,
            executable=executable,
        )
    for relative, text in sorted(texts.items()):
        with atomic_write(folder / relative) as file:
            file.write(text)
    return folder


def fill_templates(version: str, places: Mapping[str, str], *, second_round: bool = False) -> dict[str, str]:
    """The files of a scheme but the picking jobs, by path inside it."""
    with as_file(files("relion_wrapper") / "schemes" / version) as root:
        texts = {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in root.rglob("*.star")}
    if second_round:
        texts |= {
            f"{job}_refined/job.star": _of_second_round(texts[f"{job}/job.star"]) for job in ("extract", "class2d")
        }
    places = {
        **places,
        "JOB_COUNTER": "8" if second_round else "5",
        "NO_MORE_MICS": "HAS_selection" if second_round else "WAIT",
        "ENOUGH_PARTS": "SKIP_class2d" if second_round else "class2d",
    }
    chosen = {path: _SECOND_ROUND.sub(r"\1" if second_round else "", text) for path, text in texts.items()}
    return {path: _PLACE.sub(lambda found: places[found[1]], text) for path, text in chosen.items()}


def _of_second_round(job_star: str) -> str:
    """A job of the first round with the inputs of the second."""
    return job_star.replace("@NAME@/pick/", "@NAME@/refine/").replace("@NAME@/extract/", "@NAME@/extract_refined/")
