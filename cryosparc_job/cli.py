"""The commands of ``cryoemmae-cryosparc``: pick, follow, resume, repick, refine, doctor."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter

from cryoemmae_plugin.errors import SettingsError
from cryoemmae_plugin.settings import AS_SUITS, ONE_PROCESS, Auto
from cryoemmae_plugin.terminal import exits
from cryoemmae_plugin.terminal.app import run_app
from cryoemmae_plugin.terminal.console import Reporter
from cryoemmae_plugin.terminal.options import (
    ComputeChoice,
    Flag,
    SettingsOptions,
    WorkerOptions,
    given,
    option_name,
    option_of,
)
from cryosparc_job.options import FollowOptions, JobOptions
from cryosparc_job.terminal import NAMES, PROGRAM, Teller, finish

if TYPE_CHECKING:
    from cryosparc_job.instance import Instance
    from cryosparc_job.request import PickRequest

HELP = """Particle picking for CryoSPARC, as an external job.

Begin with:  cryoemmae-cryosparc doctor --url http://HOST:39000 --project P3
Then:        cryoemmae-cryosparc pick --project P3 --workspace W1 --exposures J12.exposures --diameter 150

Address and account: options, CRYOSPARC_BASE_URL, CRYOSPARC_EMAIL, CRYOSPARC_PASSWORD (and CRYOSPARC_LICENSE_ID for
CryoSPARC 4), a profile file, or the token of `python -m cryosparc.tools login`. Never a password on the command line.
"""


@dataclass(frozen=True)
class Connection:
    """Where CryoSPARC is, and who asks.

    Attributes
    ----------
    url : str
        Address of the CryoSPARC web interface, such as http://localhost:39000.
    email : str
        E-mail of the account to log in with.
    profile : str
        Table of the profile file to take address and account from.
    wait : float
        Minutes to wait for CryoSPARC when it does not answer during a run.
    """

    url: str | None = None
    email: str | None = None
    profile: str | None = None
    wait: float = 30.0

    def open(self) -> Instance:
        """Log in."""
        from cryosparc_job.credentials import find_credentials
        from cryosparc_job.instance import connect
        from cryosparc_job.retry import Caller

        return connect(find_credentials(self.url, self.email, self.profile), Caller(patience_s=60 * self.wait))


ConnectionOptions = Annotated[Connection, Parameter(name="*", group=Group("Connection", sort_key=6))]


Project = Annotated[str, Parameter(help="Project, such as P3.")]
Workspace = Annotated[str, Parameter(help="Workspace to make the job in, such as W1.")]
Work = Annotated[Path | None, Parameter(help="Folder for intermediate results. [default: inside the job's own folder]")]
FollowChoice = Annotated[FollowOptions, Parameter(name="*", name_transform=option_name)]
AS_USUAL, FOLLOW_AS_USUAL = JobOptions(), FollowOptions()
"""Nothing chosen."""


@dataclass(frozen=True)
class Chosen:
    """What may be chosen about a job, and need not."""

    job: Annotated[JobOptions, Parameter(name="*", name_transform=option_name)] = AS_USUAL
    compute: ComputeChoice = AS_SUITS
    workers: WorkerOptions = ONE_PROCESS

    def request(self, **asked: Any) -> PickRequest:
        """The request for a job, with what else is asked for."""
        from cryosparc_job.request import PickRequest

        return PickRequest(compute=self.compute, workers=self.workers, **self.job.model_dump(), **asked)


Choice = Annotated[Chosen, Parameter(name="*")]


def pick(
    *,
    project: Project,
    workspace: Workspace,
    exposures: str,
    settings: SettingsOptions,
    chosen: Choice = Chosen(),
    work: Work = None,
    connection: ConnectionOptions = Connection(),
) -> int:
    """Pick an exposures output in a new external job.

    To stop, press Ctrl-C: the picks so far are kept. To resume, use the command `resume`.

    Exit status: 0 all done, 1 nothing done, 2 wrong usage, 3 some micrographs failed, 128 + N stopped by signal N.

    Parameters
    ----------
    exposures
        Job and output to pick, such as J12.exposures.
    """
    teller = Teller()
    teller(f"Connecting to CryoSPARC for {project} {exposures}")  # before the imports, which take seconds
    from cryosparc_job.create import begin

    request = chosen.request(project=project, workspace=workspace, exposures=exposures, settings=settings)
    with teller.reporter.alive():
        report = begin(connection.open(), request, work=work, tell=teller).run()
    return finish(teller, report)


def follow(
    *,
    project: Project,
    workspace: Workspace,
    exposures: str | None = None,
    settings: SettingsOptions,
    options: FollowChoice = FOLLOW_AS_USUAL,
    chosen: Choice = Chosen(),
    work: Work = None,
    connection: ConnectionOptions = Connection(),
) -> int:
    """Pick exposures as they come: of an output that grows, or of a Live session. One job's particles grow with them.

    To stop, press Ctrl-C: the picks so far are kept. To go on, use the command `resume`.

    Parameters
    ----------
    exposures
        Job and output to follow, such as J2.exposures.
    """
    teller = Teller()
    teller(f"Connecting to CryoSPARC to follow {project} {exposures or options.session or ''}")
    from cryosparc_job.create import begin
    from cryosparc_job.follow import wait_for_exposures
    from cryosparc_job.sources import source_of

    if (exposures is None) == (options.session is None):
        raise SettingsError("no exposures, or two kinds of them", remedy="give either $exposures or a $session")
    request = chosen.request(
        project=project,
        workspace=workspace,
        exposures=exposures or "J0.exposures",  # the export of the session takes its place
        settings=settings,
        follow=options,
    )
    with teller.reporter.alive():
        instance = connection.open()
        source = source_of(instance, request)
        wait_for_exposures(source, options, teller)
        request = source.newest(request, lambda: False)
        report = begin(instance, request, work=work, tell=teller).run()
    return finish(teller, report)


def resume(
    *,
    project: Project,
    job: str,
    work: Annotated[Work, Parameter(help="Folder that was given with --work when the job started.")] = None,
    connection: ConnectionOptions = Connection(),
) -> int:
    """Resume a job that was stopped, killed or failed; what is done is not done again.

    In the job itself where this version of CryoSPARC lets it run again, else in a new one.

    Parameters
    ----------
    job
        The job, such as J45.
    """
    teller = Teller()
    teller(f"Connecting to CryoSPARC for {project} {job}")
    from cryosparc_job.resuming import resume_job

    with teller.reporter.alive():
        report = resume_job(connection.open(), project, job, work=work, tell=teller)
    return finish(teller, report)


def repick(
    *,
    plan: Path | None = None,
    project: str | None = None,
    all_exposures: Flag = False,
    diameter: float | Auto | None = None,
    threshold: float | None = None,
    dry_run: Flag = False,
    work: Path | None = None,
    connection: ConnectionOptions = Connection(),
) -> int:
    """Pick many exposures outputs, one job each; existing jobs are not changed or deleted.

    To resume, run the same command again: what has completed is not picked again. Exit status as of pick; 3 where some
    entries failed.

    Parameters
    ----------
    plan
        File with a table [[job]] for each exposures output: project, exposures, diameter; see the documentation.
    project
        Instead of a plan, with --all-exposures: the project.
    all_exposures
        All exposures outputs of the project from which no others are made.
    diameter
        Longest extent of the particle in Å, or auto, where the plan has none.
    threshold
        Figure of merit threshold, where the plan has none.
    dry_run
        Only say what would be picked.
    work
        Folder for intermediate results and for the list of finished jobs. [default: the job folders; beside the plan]
    """
    teller = Teller()
    teller(f"Connecting to CryoSPARC for {plan or project or 'a plan'}")
    from cryosparc_job.plan import all_exposures as find_all
    from cryosparc_job.plan import read_plan
    from cryosparc_job.repicking import Repicking, table
    from cryosparc_job.request import local_folder

    if (plan is None) == (project is None) or (project is None) == all_exposures:
        raise SettingsError(
            "no plan and no project", remedy=("give a $plan", "give a $project with $all_exposures and $diameter")
        )
    instance = connection.open()
    if plan is not None:
        entries, state = read_plan(plan), plan.with_suffix(".done.json")
    else:
        assert project is not None
        entries = find_all(instance, project)
        state = (work or local_folder(instance.credentials, project, "repick")) / "done.json"
    common = given(diameter=diameter, threshold=threshold)
    entries = [entry.model_copy(update={"values": {**common, **entry.values}}) for entry in entries]
    repicking = Repicking(instance, entries, state, work=work, tell=teller)
    with teller.reporter.alive():
        rows = repicking.dry_run() if dry_run else repicking.run()
    teller.reporter.say(table(rows))
    wrong = sum(row.status not in ("completed", "to do") for row in rows)
    if dry_run:
        wrong = sum(row.status == "wrong" for row in rows)
    return exits.status_of_run(len(rows), wrong)


def refine(
    *,
    project: Project,
    particles: str,
    rejected: str | None = None,
    workspace: str | None = None,
    threshold: Annotated[float | None, option_of("threshold", default="as before")] = None,
    title: str | None = None,
    work: Path | None = None,
    connection: ConnectionOptions = Connection(),
) -> int:
    """Pick again in a new job, by what you have kept in Select 2D.

    The particles that were kept and those that were dropped teach the model of this data set. The exposures and all
    settings are those of the job that has picked the particles; that job and its picks stay. Exit status as of pick.

    Parameters
    ----------
    particles
        Job and output with the particles that were kept, such as J30.particles_selected.
    rejected
        Job and output with those that were dropped. [default: particles_excluded of the same job]
    workspace
        Workspace to make the job in. [default: that of the job that has picked]
    title
        Title of the job. [default: that of the job that has picked, and "refined"]
    work
        Folder that was given with --work when that job started; the new job's results go there too.
    """
    teller = Teller()
    teller(f"Connecting to CryoSPARC for {project} {particles}")
    from cryosparc_job.create import begin
    from cryosparc_job.refining import refining_request
    from cryosparc_job.request import PickRequest

    with teller.reporter.alive():
        instance = connection.open()
        found = refining_request(instance, project, particles, rejected, work=work)
        request = PickRequest(**dict(found) | given(workspace=workspace, title=title))
        if threshold is not None:
            settings = type(request.settings)(**request.settings.model_dump() | {"threshold": threshold})
            request = request.model_copy(update={"settings": settings})
        report = begin(instance, request, work=work, tell=teller).run()
    return finish(teller, report)


def doctor(
    *,
    project: str | None = None,
    connection: ConnectionOptions = Connection(),
) -> int:
    """Check address, version of the client, login, access to a project, and whether its files are in sight.

    Parameters
    ----------
    project
        Project to look at, such as P3.
    """
    reporter = Reporter()
    reporter.say("Checking the connection to CryoSPARC")
    from cryosparc_job.doctor import Examination

    with reporter.alive():
        well = Examination(connection.url, connection.email, connection.profile, project).run(
            lambda text: reporter.say(NAMES(text))
        )
    reporter.say("All is well." if well else "Something is wrong: see above.")
    return exits.ALL_DONE if well else exits.NOTHING_DONE


def build_app() -> App:
    """Put the commands together."""
    app = App(name=PROGRAM, help=HELP, version=lambda: version("cryoemmae"), help_format="plaintext")
    app.command(pick, sort_key=0)
    app.command(follow, sort_key=1)
    app.command(resume, sort_key=2)
    app.command(repick, sort_key=3)
    app.command(refine, sort_key=4)
    app.command(doctor, sort_key=5)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit status, see :mod:`cryoemmae_plugin.terminal.exits`."""
    warnings.filterwarnings("ignore", message=r"\*\*\* ")  # the client's, on attempts, which we report
    return run_app(build_app(), argv, NAMES)
