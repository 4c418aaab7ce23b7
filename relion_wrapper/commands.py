"""The commands around the job: ``make-job``, ``install-scheme``, ``repick``."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from pydantic import create_model

from cryoemmae_plugin.errors import UNSPELLED, CryoemmaeError, InputError, render
from cryoemmae_plugin.files import atomic_write_bytes
from cryoemmae_plugin.settings import AS_SUITS, ONE_PROCESS, Auto, Options, RequestedSettings
from cryoemmae_plugin.terminal import exits
from cryoemmae_plugin.terminal.console import columns
from cryoemmae_plugin.terminal.options import OPTIONS, ComputeChoice, Flag, WorkerOptions, option_name
from cryoemmae_plugin.terminal.streams import write_if_possible
from cryoemmae_plugin.version import package_version
from relion_wrapper.arguments import JobOptions, accepted_labels
from relion_wrapper.dialect import detect_version
from relion_wrapper.jobstar import external_job_star
from relion_wrapper.project import PIPELINE
from relion_wrapper.repick import Plan, Row, make_plan, repick_all
from relion_wrapper.scheme import FOLDERS, RUN, SchemeValues, install_scheme

HELP = """Particle picking as a RELION External job.

RELION runs it; on the External job's form give
  External executable:  the path of this program
  Input micrographs:    a micrographs STAR (CtfFind, MotionCorr, Select or Import)
  Input particles:      nothing; or the particles of a Select job, to pick again by what it has kept
  Param1 - label, value:  diameter, and the particle's longest extent in Angstrom
  further parameters:     {labels}

By hand, in the project folder:
  cryoemmae-relion --o External/job010/ --in_mics CtfFind/job003/micrographs_ctf.star --diameter 160
"""


def _choices() -> type[Options]:
    """The settings but for the sizes, which each command asks for in its own way."""
    fields: dict[str, Any] = {
        name: (field.annotation, copy.copy(field))
        for name, field in RequestedSettings.model_fields.items()
        if not name.endswith("_A")
    }
    return create_model("Choices", __base__=Options, **fields)


if TYPE_CHECKING:
    Choices = Options
else:
    Choices = _choices()
SchemeChoice = Annotated[SchemeValues, Parameter(name="*", name_transform=option_name)]
Executable = Annotated[str | None, Parameter(help="Program that RELION starts. [default: this installation's]")]
Threads = Annotated[int, Parameter(help="CPU threads.")]
AS_USUAL, THE_JOBS_OWN = Choices(), JobOptions()
"""Nothing chosen."""


@dataclass(frozen=True)
class Chosen:
    """What may be chosen about a picking job, and need not."""

    picking: Annotated[Choices, Parameter(name="*", name_transform=option_name)] = AS_USUAL
    job: Annotated[JobOptions, Parameter(name="*", name_transform=option_name)] = THE_JOBS_OWN
    compute: ComputeChoice = AS_SUITS
    workers: WorkerOptions = ONE_PROCESS

    def parameters(self) -> dict[str, str]:
        """Labels and values of those parameters that are given."""
        groups = (self.picking, self.job, self.compute, self.workers)
        chosen = {label: value for group in groups for label, value in group.model_dump(exclude_defaults=True).items()}
        return {label: _text(value) for label, value in chosen.items() if value is not None}


Choice = Annotated[Chosen, Parameter(name="*")]


def build_app() -> App:
    """Put the commands together."""
    text = HELP.format(labels=accepted_labels())
    app = App(name="cryoemmae-relion", help=text, version=package_version, help_format="plaintext")
    app.command(make_job, sort_key=0)
    app.command(install, name="install-scheme", sort_key=1)
    app.command(repick, sort_key=2)
    return app


def make_job(
    *,
    in_mics: str,
    diameter: float | Auto,
    in_parts: str | None = None,
    out: Path = Path("pick.job.star"),
    pixel_size: float | None = None,
    threads: Threads = 4,
    executable: Executable = None,
    chosen: Choice = Chosen(),
) -> None:
    """Write the job.star of a picking job, for RELION 3.1, 4 and 5.

    Parameters
    ----------
    in_mics
        Micrographs STAR, relative to the project folder.
    diameter
        Longest extent of the particle, in Å; auto has the job estimate it.
    in_parts
        STAR of the particles that a Select job has kept: the job refines its model by them. [default: none]
    out
        File to write; its name has to end in job.star.
    pixel_size
        Å per pixel, where the STAR has it wrong or not at all.
    """
    asked = {"diameter": _text(diameter), **chosen.parameters()}
    if pixel_size is not None:
        asked["pixel_size"] = _text(pixel_size)
    text = external_job_star(in_mics, asked, in_parts=in_parts, threads=threads, executable=executable)
    if not out.name.endswith("job.star"):
        raise InputError(f"{out}: RELION reads a job's settings from a file whose name ends in job.star")
    atomic_write_bytes(out, text.encode())
    _tell(
        f"Written: {out}. In the project folder:",
        f"  relion_pipeliner --addJobFromStar {out}",
        '  relion_pipeliner --schedule pick --RunJobs "External/jobNNN/" --sec_wait_after 1',
        "NNN is the number that the first command has given the job (see default_pipeline.star, or the GUI).",
    )


def install(
    project: Path,
    /,
    *,
    values: SchemeChoice,
    name: str = "cryoemmae",
    executable: Executable = None,
    second_round: Flag = False,
    overwrite: Flag = False,
    chosen: Choice = Chosen(),
) -> None:
    """Put a Scheme (RELION 4 and 5) or a Schedule (3.1) into a project: import, pick, extract, classify, on the fly.

    Parameters
    ----------
    project
        RELION's project folder.
    name
        What to call the scheme.
    second_round
        When you have selected classes, refine the model by them, and pick, extract and classify again.
    overwrite
        Replace a scheme of that name.
    """
    if not project.is_dir():
        raise InputError(f"{project}: no such folder; give the one that RELION is started in")
    asked = chosen.job.relion_version
    version = asked if asked != "auto" else detect_version(project / PIPELINE)
    if version is None:
        raise InputError(f"{project / PIPELINE}: does not tell its version yet; give $relion_version: 3.1, 4 or 5")
    folder = install_scheme(
        project,
        version,
        name,
        values,
        chosen.parameters(),
        executable=executable,
        second_round=second_round,
        overwrite=overwrite,
    )
    command = RUN["3.1" if version == "3.1" else "5"].format(name=name)
    kind = FOLDERS["3.1" if version == "3.1" else "5"].removesuffix("s")
    _tell(
        f"Written: {folder}. In the project folder:", f"  {command} --run", f"or, in the GUI, {kind}s > {name} > Run."
    )
    if second_round:
        _tell(
            "When you have selected classes:",
            f"  {command} --set_var selected --value Select/jobNNN/particles.star",
        )


def repick(
    projects: Annotated[list[Path], Parameter(name="PROJECT", negative="")],
    /,
    *,
    job: str | None = None,
    diameter: float | None = None,
    threads: Threads = 4,
    executable: Executable = None,
    dry_run: Flag = False,
    chosen: Choice = Chosen(),
) -> int:
    """Pick whole projects again: one more External job in each, run by RELION's own pipeliner.

    Jobs that are there stay as they are. To resume, run the same command again: what is done is not done twice.

    Exit status: 0 all done, 1 none, 3 some.

    Parameters
    ----------
    projects
        RELION's project folders.
    job
        Whose micrographs to take. [default: the latest Select, else CtfFind, MotionCorr, Import]
    diameter
        Longest extent of the particle, in Å. [default: the project's own, from its display settings]
    dry_run
        Only say what would be done.
    """
    _tell(f"Looking at {', '.join(map(str, projects))}")
    parameters = chosen.parameters()
    plans: list[Plan | Row] = []
    for folder in projects:
        try:
            plans.append(
                make_plan(folder, parameters, job_name=job, diameter_A=diameter, threads=threads, executable=executable)
            )
        except CryoemmaeError as err:
            plans.append(Row(str(folder), "", "not done", note=render(err, UNSPELLED)))
    rows = repick_all(plans, _tell, dry_run=dry_run)
    _tell(*_table(rows))
    good = sum(row.status == "Succeeded" or (dry_run and bool(row.job)) for row in rows)
    return exits.status_of_run(len(rows), len(rows) - good)


def _table(rows: Sequence[Row]) -> list[str]:
    """One line for each project."""
    titles = ("project", "job", "status", "micrographs", "before", "after", "found_again", "note")
    cells: list[tuple[str, ...]] = [titles]
    for row in rows:
        numbers = ["-" if n is None else str(n) for n in (row.micrographs, row.before, row.after)]
        again = "-" if row.found_again is None else f"{row.found_again:.0%}"
        cells.append((row.project, row.job.rstrip("/") or "-", row.status, *numbers, again, OPTIONS(row.note)))
    return columns(cells)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _tell(*lines: str) -> None:
    write_if_possible(sys.stdout, "\n".join(lines) + "\n")
