"""One interface to the clients 4.4 to 5.x; this module and `job` hold all differences between their major versions."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryosparc_job.credentials import Credentials
from cryosparc_job.errors import LoginError, Refused, ServerGone
from cryosparc_job.retry import Caller, code_of, is_gone
from cryosparc_job.server_info import check_client, client_version, probe

TIMEOUT_S = 300
_LAST_GAP = 30
"""After this many numbers in a row without a job, there are no more jobs (4.x cannot list them)."""


@dataclass(frozen=True)
class Output:
    """An output of a job: its type, its slots, and the number of its items."""

    name: str
    type: str
    slots: tuple[str, ...]
    items: int


@dataclass(frozen=True)
class JobInfo:
    """Facts about a job."""

    project: str
    uid: str
    type: str
    status: str
    title: str
    workspaces: tuple[str, ...]
    outputs: dict[str, Output]
    sources: tuple[tuple[str, str], ...]
    """(job, output) of each connected input."""


@dataclass
class Instance:
    """A CryoSPARC instance that somebody is logged in to.

    Attributes
    ----------
    major : int
        Its major version, 4 or 5.
    version : str
        That of the instance, such as "5.0.3"; "" if it does not say.
    credentials : Credentials
        Address and user.
    """

    cs: Any
    major: int
    version: str
    credentials: Credentials
    caller: Caller = field(default_factory=Caller)

    def project_dir(self, project: str) -> Path:
        """The project's folder, as the instance names it; it may be out of sight from here."""

        def ask() -> str:
            if self.major >= 5:
                return str(self.cs.api.projects.get_directory(project))
            return str(self.cs.cli.get_project_dir_abs(project))

        return Path(self.caller.patiently(f"folder of project {project}", ask))

    def check_workspace(self, project: str, workspace: str) -> None:
        """Make sure that a workspace is there.

        Raises
        ------
        Refused
            When the project has none of that name.
        """
        try:
            found = self.caller.patiently("", lambda: self.cs.find_workspace(project, workspace))
            missing = self.major < 5 and not found.doc
        except Refused as err:
            raise Refused(f"project {project} has no workspace {workspace}, or you have no access to it{err}") from err
        if missing:
            raise Refused(f"project {project} has no workspace {workspace}")

    def job(self, project: str, uid: str) -> JobInfo:
        """Look at a job.

        Raises
        ------
        Refused
            When there is none.
        """
        try:
            found = self.caller.patiently("", lambda: self.cs.find_job(project, uid))
        except Refused as err:
            raise Refused(f"project {project} has no job {uid}, or you have no access to it{err}", err.code) from err
        return job_info(found.model) if self.major >= 5 else job_info_4(found.doc)

    def jobs(self, project: str) -> Iterator[JobInfo]:
        """All jobs of a project that are not deleted, the oldest first."""
        if self.major >= 5:
            found = self.caller.patiently(
                f"jobs of project {project}", lambda: list(self.cs.find_jobs(project_uid=project))
            )
            yield from sorted((job_info(job.model) for job in found), key=lambda job: int(job.uid[1:]))
            return
        missing, number = 0, 0
        while missing < _LAST_GAP:
            number += 1
            try:
                document = self.caller.patiently("", lambda uid=f"J{number}": self.cs.find_job(project, uid).doc)  # type: ignore[misc]
            except Refused:
                document = None
            missing = 0 if document else missing + 1
            if document and not document.get("deleted"):
                yield job_info_4(document)

    def load_output(self, project: str, uid: str, output: str, slots: Sequence[str]) -> Any:
        """The data of an output, a `cryosparc.dataset.Dataset` with these slots."""
        what = f"output {uid}.{output} of project {project}"

        def load() -> Any:
            return self.cs.find_job(project, uid).load_output(output, slots=list(slots))

        return self.caller.patiently(f"{what} cannot be loaded (has the job completed?)", load)

    def download(self, project: str, path: str, target: Path) -> None:
        """Download a file of a project."""
        self.caller.patiently(
            f"download of {path} from project {project}", lambda: self.cs.download_file(project, path, target)
        )

    def user_name(self) -> str:
        """Who is logged in."""
        return self.credentials.email or (str(self.cs.user.name) if self.major >= 5 else "")


def connect(credentials: Credentials, caller: Caller | None = None) -> Instance:
    """Log in, after a check of the server's version.

    Raises
    ------
    ClientError
        When the client is missing or of another version than the instance.
    LoginError
        When the login is refused, or something for it is missing.
    ServerGone
        When nobody answers.
    """
    client = client_version()
    server = probe(credentials)
    check_client(credentials, server, client)
    major = int(client.split(".")[0])
    cs = _log_in(credentials, major)
    version = server.version or ""
    if not version and major >= 5:
        version = str(cs.api.config.get_version()).removeprefix("v")
    instance = Instance(cs, major, version, credentials, caller or Caller())
    if version:
        check_client(credentials, type(server)(major, version), client)
    return instance


def _log_in(credentials: Credentials, major: int) -> Any:
    """The client, logged in. Its errors hold the password (4.x), so they are not passed on."""
    from cryosparc.tools import CryoSPARC

    if major < 5:
        missing = [name for name in ("license_id", "email", "password") if not getattr(credentials, name)]
        if missing:
            variables = {"license_id": "CRYOSPARC_LICENSE_ID", "email": "CRYOSPARC_EMAIL"}
            named = ", ".join(variables.get(name, "CRYOSPARC_PASSWORD") for name in missing)
            raise LoginError(f"CryoSPARC 4 asks for licence, email and password: set {named}, or use a profile")
    message, gone = "", False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about versions, which were compared already
        try:
            if major >= 5:
                return CryoSPARC(
                    credentials.url,
                    host=None,
                    base_port=None,
                    email=credentials.email,
                    password=credentials.password,
                    timeout=TIMEOUT_S,
                )
            return CryoSPARC(
                license=credentials.license_id,
                host=credentials.host,
                base_port=credentials.base_port,
                email=credentials.email,
                password=credentials.password,
                timeout=TIMEOUT_S,
            )
        except Exception as err:
            gone = is_gone(err) or is_gone(err.__context__)
            message = _why_no_login(credentials, major, err)
    # Outside of the except clause, so that the client's error, which may quote the password, is not the context.
    raise ServerGone(message) if gone else LoginError(message)


def _why_no_login(credentials: Credentials, major: int, err: Exception) -> str:
    who = f"login as {credentials.email or 'the user of the stored token'} at {credentials.url}"
    code = code_of(err.__cause__) if err.__cause__ is not None else None
    if isinstance(err, AssertionError):
        return f"{who}: the licence in CRYOSPARC_LICENSE_ID (or license_id of the profile) is not of the form of one"
    if major >= 5 and isinstance(err, ValueError) and not credentials.password:
        return (
            f"{who}: no password (CRYOSPARC_EMAIL and CRYOSPARC_PASSWORD, or a profile) and no stored token; "
            f"get a token with: python -m cryosparc.tools login --url {credentials.url}"
        )
    if code in (400, 401, 403) or major < 5:
        licence = " or licence" if major < 5 else ""
        return f"{who} was refused: wrong email or password{licence}, or an expired token"
    return f"{who} failed: {credentials.hide(str(err.__cause__ or err)).splitlines()[0][:200]}"


def job_info(model: Any) -> JobInfo:
    """A job of 5.x: `model` is a `cryosparc.models.job.Job`."""
    outputs = {
        name: Output(name, output.type, tuple(result.name for result in output.results), output.num_items)
        for name, output in model.spec.outputs.root.items()
    }
    sources = [
        (connection.job_uid, connection.output)
        for group in model.spec.inputs.root.values()
        for connection in group.connections
    ]
    return JobInfo(
        model.project_uid,
        model.uid,
        model.spec.type,
        model.status,
        model.title,
        tuple(model.workspace_uids),
        outputs,
        tuple(sources),
    )


def job_info_4(document: dict[str, Any]) -> JobInfo:
    """A job of 4.x: `document` is that of the database."""
    results = document.get("output_results", [])
    outputs = {}
    for group in document.get("output_result_groups", []):
        mine = [result for result in results if result["group_name"] == group["name"]]
        slots = tuple(result["name"] for result in mine)
        items = max((int(count) for result in mine for count in (result.get("num_items") or [])[-1:]), default=0)
        outputs[group["name"]] = Output(group["name"], group["type"], slots, items)
    sources = [
        (connection["job_uid"], connection["group_name"])
        for group in document.get("input_slot_groups", [])
        for connection in group.get("connections", [])
    ]
    return JobInfo(
        document["project_uid"],
        document["uid"],
        document["job_type"],
        document["status"],
        document.get("title") or "",
        tuple(document.get("workspace_uids") or ()),
        outputs,
        tuple(sources),
    )
