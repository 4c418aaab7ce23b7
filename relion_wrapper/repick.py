"""Pick whole projects again: RELION's pipeliner runs one more External job in each; nothing else changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryoemmae_plugin.errors import UNSPELLED, CryoemmaeError, InputError, render
from cryoemmae_plugin.files import atomic_write_bytes
from cryoemmae_plugin.run.micrograph_table import read_named_micrographs
from cryoemmae_plugin.star import parse_star, records_of, to_number
from relion_wrapper.display import FILE as DISPLAY_FILE
from relion_wrapper.jobstar import external_job_star
from relion_wrapper.project import Job, Project, options_in

MICROGRAPH_JOBS = ("Select", "CtfFind", "MotionCorr", "Import")
"""Jobs to take micrographs from; the first kind found is used."""

JOB_STAR = ".cryoemmae_repick_job.star"


@dataclass(frozen=True)
class Plan:
    """What is to be done in one project.

    Attributes
    ----------
    in_mics : str
        Micrographs STAR.
    text : str
        The new job's ``job.star``.
    job : Job or None
        The job that does exactly this, where there is one already.
    old : Job or None
        The latest job with coordinates before it.
    """

    project: Project
    in_mics: str
    diameter_A: float
    text: str
    job: Job | None
    old: Job | None


@dataclass(frozen=True)
class Row:
    """One line of the table: a project, its new job and how that ended, and old and new picks."""

    project: str
    job: str
    status: str
    micrographs: int | None = None
    before: int | None = None
    after: int | None = None
    found_again: float | None = None
    note: str = ""


def make_plan(
    folder: Path,
    parameters: Mapping[str, str],
    *,
    job_name: str | None,
    diameter_A: float | None,
    threads: int,
    executable: str | None,
) -> Plan:
    """Look at a project and say what to do; changes nothing.

    Parameters
    ----------
    parameters : mapping
        Labels and values for the picking job besides the diameter.
    job_name : str or None
        Job whose micrographs to take; by default the latest Select, else CtfFind, MotionCorr, Import.
    diameter_A : float or None
        Particle diameter; by default the one in the project's display settings.

    Raises
    ------
    InputError
        When it is not a project, or has no micrographs or no diameter.
    """
    project = Project(folder)
    in_mics = _micrographs_star(project, job_name)
    diameter = diameter_A or _diameter_of(project)
    text = external_job_star(
        in_mics, {"diameter": f"{diameter:g}", **parameters}, threads=threads, executable=executable
    )
    wanted = options_in(parse_star(text))
    jobs = project.jobs()
    same = [job for job in jobs if job.kind == "External" and wanted.items() <= project.options(job).items()]
    job = same[-1] if same else None
    earlier = [old for old in jobs if job is None or old.number < job.number]
    older = [old for old in earlier if old.coordinates and old.status == "Succeeded"]
    return Plan(project, in_mics, diameter, text, job, older[-1] if older else None)


def carry_out(plan: Plan, tell: Callable[[str], None]) -> Row:
    """Add and run the job of a plan; a finished job is left alone, a stopped one resumes.

    Raises
    ------
    CryoemmaeError
        When RELION does not take the job.
    """
    project = plan.project
    if plan.job is not None:
        project.check_completion()
        job = project.job(plan.job.name)
    else:
        star = project.folder / JOB_STAR
        atomic_write_bytes(star, plan.text.encode())
        try:
            job = project.add(star)
        finally:
            star.unlink()
    if job.status == "Succeeded":
        tell(f"{project.folder}: {job.name} is done already")
    elif job.status == "Running":
        tell(
            f"{project.folder}: {job.name} is running; if it is not, mark it as failed in RELION's GUI and repeat this"
        )
    else:
        tell(f"{project.folder}: running {job.name}")
        job = project.run(job)
    return _row(plan, job)


def _micrographs_star(project: Project, job_name: str | None) -> str:
    if job_name is not None:
        job = project.job(job_name)
        if job.micrographs is None:
            raise InputError(
                f"{project.folder / job.name}: has no micrographs; give another $job, such as CtfFind/job003"
            )
        return job.micrographs
    for kind in MICROGRAPH_JOBS:
        for job in reversed(project.jobs()):
            if job.kind == kind and job.status == "Succeeded" and job.micrographs is not None:
                return job.micrographs
    raise InputError(f"{project.folder}: no finished job with micrographs; name one with $job")


def _diameter_of(project: Project) -> float:
    for row in records_of(project.folder / DISPLAY_FILE, "joboptions_values"):
        diameter_A = to_number(row.get("rlnJobOptionValue", ""))
        if row.get("rlnJobOptionVariable") == "diameter" and diameter_A is not None and diameter_A > 0:
            return diameter_A
    raise InputError(f"{project.folder}: the particle's diameter is not known here; give $diameter_A")


def _row(plan: Plan, job: Job) -> Row:
    from relion_wrapper.comparison import compare_picks  # takes a second to import

    folder, names = plan.project.folder, read_named_micrographs(plan.project.folder / plan.in_mics)
    if job.status != "Succeeded":
        return Row(str(folder), job.name, job.status, len(names), note=f"see {folder / job.name / 'run.err'}")
    compared = compare_picks(plan.project, plan.old, job, names, plan.diameter_A)
    if plan.old is None:
        return Row(str(folder), job.name, job.status, len(names), after=compared.after)
    return Row(str(folder), job.name, job.status, len(names), compared.before, compared.after, compared.share)


def repick_all(plans: list[Plan | Row], tell: Callable[[str], None], *, dry_run: bool) -> list[Row]:
    """Carry out plans one after the other; a plan that fails becomes a row, and the next one starts."""
    rows = []
    for plan in plans:
        if isinstance(plan, Row):
            rows.append(plan)
        elif dry_run:
            rows.append(_dry(plan))
        else:
            try:
                rows.append(carry_out(plan, tell))
            except CryoemmaeError as err:
                rows.append(Row(str(plan.project.folder), "", "not done", note=render(err, UNSPELLED)))
    return rows


def _dry(plan: Plan) -> Row:
    where = plan.job.name if plan.job else "new External"
    finished = plan.job is not None and plan.job.status == "Succeeded"
    status = "nothing to do" if finished else "would continue" if plan.job else "would run"
    count = len(read_named_micrographs(plan.project.folder / plan.in_mics))
    note = f"{plan.in_mics}, diameter {plan.diameter_A:g} Å"
    return Row(str(plan.project.folder), where, status, count, note=note)
