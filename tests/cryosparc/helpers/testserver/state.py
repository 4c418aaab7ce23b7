"""What the stand-in knows, and what it does when asked: the same for both protocols."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryosparc.dataset import Dataset

EMAIL, PASSWORD = "ada@example.com", "correct horse battery staple"
LICENSE = "0f0f0f0f-1111-2222-3333-444444444444"
USER_ID = "507f1f77bcf86cd799439011"

FIELDS: dict[str, list[tuple[str, str]]] = {
    "location": [
        ("micrograph_uid", "u8"),
        ("exp_group_id", "u4"),
        ("micrograph_path", "O"),
        ("micrograph_shape", "2u4"),
        ("center_x_frac", "f4"),
        ("center_y_frac", "f4"),
        ("micrograph_psize_A", "f4"),
        ("min_dist_A", "f4"),
    ],
    "pick_stats": [("ncc_score", "f4"), ("power", "f4"), ("template_idx", "u4"), ("angle_rad", "f4")],
    "micrograph_blob": [("path", "O"), ("idx", "u4"), ("shape", "2u4"), ("psize_A", "f4"), ("format", "O")],
    "mscope_params": [("exp_group_id", "u4"), ("accel_kv", "f4")],
    "ctf": [("exp_group_id", "u4"), ("df1_A", "f4"), ("df2_A", "f4")],
    "movie_blob": [("path", "O"), ("shape", "3u4"), ("psize_A", "f4")],
}
SLOTS_OF = {
    "exposure": {"micrograph_blob", "mscope_params", "ctf", "movie_blob"},
    "particle": {"location", "pick_stats"},
}
ACTIVE = ("running", "waiting")


class Refusal(Exception):
    """An answer that is no."""

    def __init__(self, code: int, detail: Any) -> None:
        super().__init__(str(detail))
        self.code, self.detail = code, detail


@dataclass
class FakeOutput:
    type: str
    slots: list[str]
    title: str = ""
    file: str | None = None
    items: int = 0
    image: str | None = None
    passthrough: str | None = None


@dataclass
class FakeInput:
    type: str
    slots: list[tuple[str, bool]]
    title: str = ""
    connections: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class FakeEvent:
    id: str
    kind: str
    text: str = ""
    files: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)


@dataclass
class FakeJob:
    project: str
    uid: str
    type: str
    workspaces: list[str]
    title: str = ""
    description: str = ""
    status: str = "building"
    error: str = ""
    statuses: list[str] = field(default_factory=list)
    inputs: dict[str, FakeInput] = field(default_factory=dict)
    outputs: dict[str, FakeOutput] = field(default_factory=dict)
    events: list[FakeEvent] = field(default_factory=list)
    saves: list[int] = field(default_factory=list)
    tile: str | None = None

    def set_status(self, status: str) -> None:
        self.status = status
        self.statuses.append(status)

    @property
    def texts(self) -> str:
        return "\n".join(event.text for event in self.events if event.kind in ("text", "warning", "error"))

    @property
    def plots(self) -> list[str]:
        return [event.text for event in self.events if event.kind == "image"]


class State:
    """An instance: its projects, jobs, uploaded files, and hooks by which a test interferes.

    `hooks[operation]` is called with this object before the operation is carried out; it may raise `Refusal`.
    """

    def __init__(self, folder: Path, version: str) -> None:
        self.folder, self.version = folder, version
        self.projects: dict[str, Path] = {}
        self.advertised: dict[str, Path] = {}
        self.workspaces: dict[str, list[str]] = {}
        self.jobs: dict[tuple[str, str], FakeJob] = {}
        self.sessions: dict[tuple[str, str], Any] = {}
        self.assets: dict[str, bytes] = {}
        self.hooks: dict[str, Callable[[State], None]] = {}
        self.calls: list[str] = []
        self.longest_url = 0
        self.may_restart = True
        self.lock = threading.RLock()
        self._ids = 0

    def enter(self, operation: str) -> None:
        self.calls.append(operation)
        hook = self.hooks.get(operation)
        if hook is not None:
            hook(self)

    def new_id(self) -> str:
        self._ids += 1
        return f"{self._ids:024x}"

    # Set-up by tests

    def add_project(self, uid: str = "P3", workspaces: tuple[str, ...] = ("W1",)) -> Path:
        path = self.folder / f"CS-{uid.lower()}"
        path.mkdir(parents=True)
        self.projects[uid], self.workspaces[uid] = path, list(workspaces)
        return path

    def add_output(
        self,
        project: str,
        uid: str,
        name: str,
        dataset: Dataset,
        kind: str = "exposure",
        job_type: str = "ctf_estimation",
    ) -> FakeJob:
        """A completed job with an output, in a real `.cs` file."""
        job = self.jobs.setdefault((project, uid), FakeJob(project, uid, job_type, ["W1"], status="completed"))
        output = FakeOutput(kind, dataset.prefixes(), name)
        job.outputs[name] = output
        self._store(job, name, dataset)
        return job

    def session(self, project: str, uid: str) -> Any:
        if (project, uid) not in self.sessions:
            raise Refusal(404, f"Session {project}-{uid} does not exist")
        return self.sessions[project, uid]

    def export(self, session: Any) -> FakeJob:
        """A job that has exported the exposures of a Live session."""
        job = self.create(session.project, "W1", "live_exp_export", "", "")
        self.add_output(session.project, job.uid, "exposures", session.exposures.dataset(), job_type="live_exp_export")
        job.set_status("completed")
        return job

    # What the protocols ask for

    def login(self, email: str, sha256: str) -> None:
        if email != EMAIL or sha256 != hashlib.sha256(PASSWORD.encode()).hexdigest():
            raise Refusal(401, "Incorrect username or password")

    def project_dir(self, project: str) -> Path:
        if project not in self.projects:
            raise Refusal(404, f"Project {project} does not exist")
        return self.advertised.get(project, self.projects[project])

    def job(self, project: str, uid: str) -> FakeJob:
        if (project, uid) not in self.jobs:
            raise Refusal(404, f"Job {project}-{uid} does not exist")
        return self.jobs[project, uid]

    def create(self, project: str, workspace: str, job_type: str, title: str, description: str) -> FakeJob:
        if workspace not in self.workspaces.get(project, ()):
            raise Refusal(404, f"Workspace {project}-{workspace} does not exist")
        number = 1 + max((int(uid[1:]) for p, uid in self.jobs if p == project), default=0)
        job = FakeJob(project, f"J{number}", job_type, [workspace], title or "", description or "")
        self.jobs[project, job.uid] = job
        (self.projects[project] / job.uid).mkdir()
        return job

    def add_input(self, job: FakeJob, name: str, kind: str, slots: list[tuple[str, bool]], title: str) -> None:
        self._check_slots(kind, [slot for slot, _ in slots])
        job.inputs[name] = FakeInput(kind, slots, title)

    def connect(self, job: FakeJob, name: str, source_uid: str, source_output: str) -> None:
        source = self.job(job.project, source_uid).outputs.get(source_output)
        if source is None:
            raise Refusal(422, f"{source_uid} has no output {source_output}")
        lacking = [slot for slot, required in job.inputs[name].slots if required and slot not in source.slots]
        if lacking:
            raise Refusal(422, f"Missing required input slots {lacking}")
        job.inputs[name].connections.append((source_uid, source_output))

    def add_job_output(
        self, job: FakeJob, name: str, kind: str, slots: list[str], title: str, passthrough: str | None = None
    ) -> None:
        if passthrough is not None and getattr(job.inputs.get(passthrough), "type", None) != kind:
            raise Refusal(422, f"Job has no input {passthrough} of type {kind} to pass through")
        if not re.fullmatch(r"[A-Za-z][0-9A-Za-z_]*", name):
            raise Refusal(422, [{"loc": ["path", "output_name"], "msg": "String should match pattern"}])
        if job.status not in ("building", *ACTIVE):
            raise Refusal(422, f"Job is {job.status}")
        self._check_slots(kind, slots)
        job.outputs[name] = FakeOutput(kind, slots, title, passthrough=passthrough)

    def output_fields(self, job: FakeJob, name: str) -> list[tuple[str, str]]:
        if name not in job.outputs:
            raise Refusal(404, f"No output {name}")
        return [(f"{slot}/{fld}", dtype) for slot in job.outputs[name].slots for fld, dtype in FIELDS[slot]]

    def start(self, job: FakeJob, status: str) -> None:
        if job.status != "building" and not self.may_restart:
            raise Refusal(422, f"Cannot start a job that is {job.status}")
        job.set_status(status)

    def save_output(self, job: FakeJob, name: str, dataset: Dataset, *, running_only: bool) -> None:
        if running_only and job.status not in ACTIVE:
            raise Refusal(422, f"Cannot save output of a job that is {job.status}")
        have = {entry[0]: tuple(entry[1:]) for entry in dataset.descr()}
        want = {e[0]: tuple(e[1:]) for e in Dataset.allocate(0, self.output_fields(job, name)).descr()}
        wrong = [(key, *value) for key, value in want.items() if have.get(key) != value]
        if wrong:
            raise Refusal(422, f"Given dataset missing required fields {wrong}")
        self._store(job, name, dataset)
        job.saves.append(len(dataset))

    def load_output(self, job: FakeJob, name: str, slots: list[str] | None) -> Dataset:
        output = job.outputs.get(name)
        if output is None or output.file is None:
            raise Refusal(404, f"{job.uid} has no results for output {name}")
        lacking = set(slots or ()) - set(output.slots)
        if lacking:
            raise Refusal(422, f"{job.uid}.{name} has no slots {sorted(lacking)}")
        return Dataset.load(self.projects[job.project] / output.file, prefixes=slots)

    def file(self, project: str, path: str) -> Path:
        root = self.projects[project]
        target = root / path
        inside = Path(path).is_absolute() is False or target.is_relative_to(root)
        if not inside or not target.is_file():
            raise Refusal(404, f"File {path} does not exist in project {project}")
        return target

    def log(self, job: FakeJob, kind: str, text: str = "", files: list[str] | None = None) -> FakeEvent:
        event = FakeEvent(self.new_id(), kind, text, files or [])
        job.events.append(event)
        return event

    def upload(self, content: bytes) -> str:
        asset = self.new_id()
        self.assets[asset] = content
        return asset

    def _check_slots(self, kind: str, slots: list[str]) -> None:
        unknown = [slot for slot in slots if slot not in SLOTS_OF.get(kind, FIELDS)]
        if unknown or not slots:
            raise Refusal(422, f"Unknown {kind} slots {unknown}")

    def _store(self, job: FakeJob, name: str, dataset: Dataset) -> None:
        folder = self.projects[job.project] / job.uid
        folder.mkdir(exist_ok=True)
        file = f"{job.uid}/{job.uid}_{name}.cs"
        dataset.save(self.projects[job.project] / file)
        job.outputs[name].file, job.outputs[name].items = file, len(dataset)
