"""The protocol of CryoSPARC 5: an OpenAPI schema, from which the client builds its calls, and what answers them."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from cryosparc.dataset import Dataset
from cryosparc.models.asset import GridFSAsset
from cryosparc.models.event import CheckpointEvent, ImageEvent, TextEvent
from cryosparc.models.job import Job
from cryosparc.models.job_spec import InputSpec, JobSpec, OutputSpec
from cryosparc.models.project import Project
from cryosparc.models.resource import ResourceSpec
from cryosparc.models.session import Session
from cryosparc.models.user import User
from cryosparc.models.workspace import Workspace
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .state import EMAIL, FakeEvent, FakeJob, Refusal, State

PREFIX = "/api/cmd"
DATASET, BYTES = "application/x-cryosparc-dataset", "application/octet-stream"
LONGEST_URL = 4096
TOKEN = "token-of-ada"


@dataclass
class Call:
    """A request, taken apart."""

    state: State
    path: dict[str, str]
    query: dict[str, list[str]]
    body: bytes

    def one(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[0]

    def json(self) -> Any:
        return json.loads(self.body) if self.body else None

    @property
    def job(self) -> FakeJob:
        return self.state.job(self.path["project_uid"], self.path["job_uid"])


@dataclass
class Endpoint:
    """One operation: how the schema describes it, and what it does."""

    name: str
    method: str
    path: str
    answer: Any  # schema of the answer; a media type for a stream; None for no content
    do: Callable[[Call], Any]
    query: dict[str, bool] = field(default_factory=dict)  # name: required
    body: tuple[str, str, bool] | None = None  # media type, title, required
    public: bool = False

    def schema(self) -> dict[str, Any]:
        parameters = [
            {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
            for part in self.path.split("/")
            if part.startswith("{")
        ]
        parameters += [
            {"name": name, "in": "query", "required": required, "schema": {}} for name, required in self.query.items()
        ]
        if self.answer in (DATASET, BYTES):
            content = {self.answer: {"schema": {"type": "string", "format": "binary"}}}
        else:
            content = {"application/json": {"schema": self.answer}}
        operation: dict[str, Any] = {
            "summary": self.name,
            "parameters": parameters,
            "responses": {
                "200": {"description": "Successful Response", "content": content},
                "422": {"description": "Validation Error", "content": {"application/json": {"schema": {}}}},
            },
        }
        if self.body is not None:
            media, title, required = self.body
            described = {"title": title} if title != "Body" else {"$ref": "#/components/schemas/Anything"}
            operation["requestBody"] = {"content": {media: {"schema": described}}, "required": required}
        return operation


def ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


TEXT = {"type": "string"}
JSON = "application/json"
PROJECT = "/projects/{project_uid}"
JOB = PROJECT + "/jobs/{job_uid}"


def as_job(state: State, job: FakeJob) -> Job:
    inputs = {
        name: {
            "type": item.type,
            "title": item.title,
            "slots": [{"name": slot, "dtype": slot, "required": required} for slot, required in item.slots],
            "count_min": 1,
            "connections": [{"job_uid": uid, "output": output} for uid, output in item.connections],
        }
        for name, item in job.inputs.items()
    }
    outputs = {
        name: {
            "type": item.type,
            "title": item.title,
            "slots": [{"name": slot, "dtype": slot} for slot in item.slots],
            "results": [
                {
                    "name": slot,
                    "dtype": slot,
                    "versions": [0] if item.file else [],
                    "metafiles": [item.file] if item.file else [],
                    "num_items": [item.items] if item.file else [],
                }
                for slot in item.slots
            ],
            "num_items": item.items,
            "image": item.image,
        }
        for name, item in job.outputs.items()
    }
    number = int(job.uid[1:])
    spec = JobSpec.model_validate(
        {
            "type": job.type,
            "inputs": inputs,
            "outputs": outputs,
            "ui_tile_width": 1,
            "ui_tile_height": 1,
            "resource_spec": ResourceSpec(),
        }
    )
    return Job(
        _id=f"{number:024x}",
        uid=job.uid,
        project_uid=job.project,
        workspace_uids=job.workspaces,
        spec=spec,
        job_dir=job.uid,
        job_dir_size_last_updated=datetime.datetime.now(datetime.timezone.utc),
        title=job.title,
        description=job.description,
        status=job.status,
        uid_num=number,
        project_uid_num=int(job.project[1:]),
        status_num=0,
        build_errors=[],
    )


def _event(model: type[BaseModel], call: Call, event: FakeEvent, **more: Any) -> BaseModel:
    return model.model_validate(
        {"_id": event.id, "project_uid": call.job.project, "job_uid": call.job.uid, "type": event.kind, **more}
    )


def login(call: Call) -> Any:
    form = {key: values[0] for key, values in parse_qs(call.body.decode()).items()}
    call.state.login(form["username"], form["password"])
    return {"access_token": TOKEN, "token_type": "bearer"}


def me(call: Call) -> User:
    return User(name="ada", first_name="Ada", last_name="L", emails=[{"address": EMAIL}])


def find_project(call: Call) -> Project:
    uid = call.path["project_uid"]
    now = datetime.datetime.now(datetime.timezone.utc)
    folder = str(call.state.project_dir(uid))
    return Project(
        uid=uid, project_dir=folder, owner_user_id="x", title=uid, size_last_updated=now, uid_num=int(uid[1:])
    )


def find_workspace(call: Call) -> Workspace:
    project, workspace = call.path["project_uid"], call.path["workspace_uid"]
    if workspace not in call.state.workspaces.get(project, ()):
        raise Refusal(404, f"Workspace {project}-{workspace} does not exist")
    numbers = {"uid_num": int(workspace[1:]), "project_uid_num": int(project[1:])}
    return Workspace(uid=workspace, project_uid=project, workspace_type="base", **numbers)


def find_session(call: Call) -> Session:
    session = call.state.session(call.path["project_uid"], call.path["session_uid"])
    number = int(session.uid[1:])
    numbers = {"uid_num": number, "session_uid_num": number, "project_uid_num": int(session.project[1:])}
    return Session(
        uid=session.uid,
        project_uid=session.project,
        workspace_type="live",
        session_uid=session.uid,
        session_dir=session.uid,
        status=session.status,
        errors=[],
        **numbers,
    )


def count_exposures(call: Call) -> int:
    assert call.query["stage"] == ["ready"]
    return len(call.state.session(call.one("project_uid"), call.one("session_uid")).exposures.rows)


def export_exposures(call: Call) -> Job:
    session = call.state.session(call.path["project_uid"], call.path["session_uid"])
    return as_job(call.state, call.state.export(session))


def find_jobs(call: Call) -> list[Job]:
    wanted = call.query.get("project_uid")
    found = [job for job in call.state.jobs.values() if wanted is None or job.project in wanted]
    found.sort(key=lambda job: int(job.uid[1:]))
    after, limit = call.one("after"), int(call.one("limit", "100"))
    found = [job for job in found if not after or int(job.uid[1:]) > int(after, 16)]
    return [as_job(call.state, job) for job in found[:limit]]


def create(call: Call) -> Job:
    job = call.state.create(
        call.path["project_uid"],
        call.path["workspace_uid"],
        call.one("type"),
        call.one("title"),
        call.one("description"),
    )
    return as_job(call.state, job)


def changed(change: Callable[[Call], None]) -> Callable[[Call], Job]:
    """An operation on a job that answers with the job."""

    def do(call: Call) -> Job:
        change(call)
        return as_job(call.state, call.job)

    return do


def add_input(call: Call) -> None:
    spec = InputSpec.model_validate(call.json())
    slots = [(slot.name, slot.required) for slot in spec.slots]
    call.state.add_input(call.job, call.path["input_name"], spec.type, slots, spec.title)


def add_output(call: Call) -> None:
    spec = OutputSpec.model_validate(call.json())
    call.state.add_job_output(
        call.job, call.path["output_name"], spec.type, [slot.name for slot in spec.slots], spec.title, spec.passthrough
    )


def connect(call: Call) -> None:
    call.state.connect(call.job, call.path["input_name"], call.one("source_job_uid"), call.one("source_output_name"))


def load_output(call: Call) -> Dataset:
    slots = call.query.get("slots", ["default"])
    return call.state.load_output(
        call.job, call.path["output_name"], None if slots in (["all"], ["default"]) else slots
    )


def load_input(call: Call) -> Dataset:
    uid, output = call.job.inputs[call.path["input_name"]].connections[0]
    return call.state.load_output(call.state.job(call.job.project, uid), output, None)


def save_output(call: Call) -> None:
    dataset = Dataset.load(io.BytesIO(call.body))
    call.state.save_output(call.job, call.path["output_name"], dataset, running_only=True)


def mark_running(call: Call) -> None:
    call.state.start(call.job, call.one("status", "running"))


def mark_completed(call: Call) -> None:
    call.job.set_status("completed")


def mark_failed(call: Call) -> None:
    call.job.error = call.one("error")
    call.state.log(call.job, "error", call.job.error)
    call.job.set_status("failed")


def kill(call: Call) -> None:
    call.job.set_status("killed")


def add_event_log(call: Call) -> BaseModel:
    event = call.state.log(call.job, call.one("type", "text"), call.json())
    return _event(TextEvent, call, event, text=event.text)


def update_event_log(call: Call) -> BaseModel:
    event = next((event for event in call.job.events if event.id == call.path["event_id"]), None)
    if event is None:
        raise Refusal(404, "No such event")
    event.versions.append(event.text)
    event.text = call.json()
    return _event(TextEvent, call, event, text=event.text)


def add_checkpoint(call: Call) -> BaseModel:
    return _event(CheckpointEvent, call, call.state.log(call.job, "checkpoint"))


def upload(call: Call) -> GridFSAsset:
    name = call.one("filename") or "asset"
    return GridFSAsset(fileid=call.state.upload(call.body), filename=name, filetype=call.one("format"))


def add_image_log(call: Call) -> BaseModel:
    images = [GridFSAsset.model_validate(image) for image in call.json()]
    event = call.state.log(call.job, "image", call.one("text"), [image.fileid for image in images])
    return _event(ImageEvent, call, event, text=event.text, imgfiles=[image.model_dump() for image in images])


def set_tile_image(call: Call) -> None:
    call.job.tile = call.json()["fileid"]


def set_output_image(call: Call) -> None:
    call.job.outputs[call.path["output_name"]].image = call.json()["fileid"]


def download(call: Call) -> bytes:
    return call.state.file(call.path["project_uid"], call.one("path")).read_bytes()


_SLOTS = {"slots": False}
_IMAGE = (JSON, "Body", True)
_TIMES = ("created", "updated", "queued", "started", "waiting", "completed", "killed", "failed", "exported")
_PAGE = {
    **dict.fromkeys(("order", "after", "limit", "project_uid", "workspace_uid", "uid", "type", "status"), False),
    **dict.fromkeys(("category", "deleted", *(f"{time}_at" for time in _TIMES)), False),
}
_EXPOSURES = {
    **dict.fromkeys(("order", "after", "limit", "uid", "session_uid", "project_uid", "stage", "deleted"), False),
    **dict.fromkeys(("created_at", "updated_at"), False),
}
SESSION = PROJECT + "/sessions/{session_uid}"
ENDPOINTS = [
    Endpoint("sessions.find_one", "get", SESSION, ref(Session), find_session),
    Endpoint("exposures.count", "get", "/exposures/count", {"type": "integer"}, count_exposures, _EXPOSURES),
    Endpoint(
        "sessions.create_and_enqueue_export_exposures",
        "post",
        SESSION + "/export_exposures",
        ref(Job),
        export_exposures,
        {"export_ignored": False},
    ),
    Endpoint("health", "get", "/health", TEXT, lambda call: "OK", public=True),
    Endpoint(
        "login",
        "post",
        "/login",
        {"$ref": "#/components/schemas/Token"},
        login,
        {"expires_in": False},
        ("application/x-www-form-urlencoded", "Body_login", True),
        public=True,
    ),
    Endpoint("users.me", "get", "/users/me", ref(User), me),
    Endpoint("config.get_version", "get", "/config/version", TEXT, lambda call: f"v{call.state.version}"),
    Endpoint("projects.find_one", "get", PROJECT, ref(Project), find_project),
    Endpoint(
        "projects.get_directory",
        "get",
        PROJECT + "/directory",
        TEXT,
        lambda call: str(call.state.project_dir(call.path["project_uid"])),
    ),
    Endpoint("projects.download_file", "get", PROJECT + "/file", BYTES, download, {"path": False}),
    Endpoint(
        "workspaces.find_one",
        "get",
        PROJECT + "/workspaces/{workspace_uid}",
        {"anyOf": [ref(Workspace), {"$ref": "#/components/schemas/Session"}]},
        find_workspace,
    ),
    Endpoint("jobs.find", "get", "/jobs", {"type": "array", "items": ref(Job)}, find_jobs, _PAGE),
    Endpoint(
        "jobs.create",
        "post",
        PROJECT + "/workspaces/{workspace_uid}/jobs",
        ref(Job),
        create,
        {"type": True, "title": False, "description": False, "created_by_job_uid": False, "enable_bench": False},
        (JSON, "Params", False),
    ),
    Endpoint("jobs.find_one", "get", JOB, ref(Job), lambda call: as_job(call.state, call.job)),
    Endpoint(
        "jobs.get_directory",
        "get",
        JOB + "/directory",
        TEXT,
        lambda call: str(call.state.project_dir(call.job.project) / call.job.uid),
    ),
    Endpoint(
        "jobs.add_external_input", "post", JOB + "/inputs/{input_name}", ref(Job), changed(add_input), body=_IMAGE
    ),
    Endpoint(
        "jobs.connect",
        "post",
        JOB + "/inputs/{input_name}/connections",
        ref(Job),
        changed(connect),
        {"source_output_name": True, "source_job_uid": True},
    ),
    Endpoint(
        "jobs.add_external_output", "post", JOB + "/outputs/{output_name}", ref(Job), changed(add_output), body=_IMAGE
    ),
    Endpoint(
        "jobs.get_output_fields",
        "post",
        JOB + "/outputs/{output_name}/fields",
        {"type": "array", "items": {"type": "array", "prefixItems": [TEXT, TEXT]}},
        lambda call: call.state.output_fields(call.job, call.path["output_name"]),
        body=(JSON, "Dtype Params", False),
    ),
    Endpoint(
        "jobs.load_input",
        "get",
        JOB + "/inputs/{input_name}/dataset",
        DATASET,
        load_input,
        {"force_join": False, **_SLOTS},
    ),
    Endpoint(
        "jobs.load_output",
        "get",
        JOB + "/outputs/{output_name}/dataset",
        DATASET,
        load_output,
        {"version": False, **_SLOTS},
    ),
    Endpoint(
        "jobs.save_output",
        "post",
        JOB + "/outputs/{output_name}/dataset",
        ref(Job),
        changed(save_output),
        {"filename": False, "version": False},
        (DATASET, "Dataset", True),
    ),
    Endpoint("jobs.mark_running", "post", JOB + "/running", ref(Job), changed(mark_running), {"status": False}),
    Endpoint("jobs.mark_completed", "post", JOB + "/completed", ref(Job), changed(mark_completed)),
    Endpoint("jobs.mark_failed", "post", JOB + "/failed", ref(Job), changed(mark_failed), {"error": False}),
    Endpoint("jobs.kill", "post", JOB + "/kill", ref(Job), changed(kill)),
    Endpoint(
        "jobs.add_event_log",
        "post",
        JOB + "/events",
        ref(TextEvent),
        add_event_log,
        {"type": False},
        (JSON, "Text", True),
    ),
    Endpoint(
        "jobs.update_event_log",
        "patch",
        JOB + "/events/{event_id}",
        ref(TextEvent),
        update_event_log,
        {"type": False},
        (JSON, "Text", False),
    ),
    Endpoint(
        "jobs.add_checkpoint",
        "post",
        JOB + "/checkpoints",
        ref(CheckpointEvent),
        add_checkpoint,
        body=(JSON, "Meta", True),
    ),
    Endpoint(
        "jobs.add_image_log",
        "post",
        JOB + "/images",
        ref(ImageEvent),
        add_image_log,
        {"text": True, "flags": False},
        (JSON, "Images", True),
    ),
    Endpoint("jobs.set_tile_image", "post", JOB + "/tile", ref(Job), changed(set_tile_image), body=_IMAGE),
    Endpoint(
        "jobs.set_output_image",
        "post",
        JOB + "/outputs/{output_name}/image",
        ref(Job),
        changed(set_output_image),
        body=_IMAGE,
    ),
    Endpoint(
        "assets.upload",
        "post",
        PROJECT + "/assets/{job_uid}",
        ref(GridFSAsset),
        upload,
        {"filename": False, "format": False},
        (BYTES, "Stream", True),
    ),
]


def openapi(version: str | None) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method] = endpoint.schema()
    return {
        "openapi": "3.1.0",
        "info": {"title": "CryoSPARC", "version": f"v{version}" if version else "0"},
        "paths": paths,
        "components": {"schemas": {}},
    }


def make_app(state: State, *, tells_version: bool = True) -> Starlette:
    async def schema(request: Request) -> Response:
        return JSONResponse(openapi(state.version if tells_version else None))

    def handler(endpoint: Endpoint) -> Callable[[Request], Any]:
        async def handle(request: Request) -> Response:
            body = await request.body()
            state.longest_url = max(state.longest_url, len(str(request.url)))
            try:
                if len(str(request.url)) > LONGEST_URL:
                    raise Refusal(414, "URI Too Long")
                if not endpoint.public and request.headers.get("authorization") != f"Bearer {TOKEN}":
                    raise Refusal(401, "Not authenticated")
                query: dict[str, list[str]] = {}
                for key, value in request.query_params.multi_items():
                    query.setdefault(key, []).append(value)
                unknown = set(query) - set(endpoint.query)
                missing = {name for name, required in endpoint.query.items() if required} - set(query)
                if unknown or missing:
                    raise Refusal(422, f"query: unknown {unknown}, missing {missing}")
                with state.lock:
                    state.enter(endpoint.name)
                    answer = endpoint.do(Call(state, dict(request.path_params), query, body))
            except Refusal as err:
                return JSONResponse({"detail": err.detail}, err.code)
            except ValidationError as err:
                return JSONResponse({"detail": json.loads(err.json())}, 422)
            return _respond(answer)

        return handle

    routes = [Route(f"{PREFIX}/openapi.json", schema)]
    routes += [Route(PREFIX + e.path, handler(e), methods=[e.method.upper()]) for e in ENDPOINTS]
    return Starlette(routes=routes)


def _respond(answer: Any) -> Response:
    if isinstance(answer, Dataset):
        return Response(b"".join(answer.stream()), media_type=DATASET)
    if isinstance(answer, bytes):
        return Response(answer, media_type=BYTES)
    if isinstance(answer, BaseModel):
        return Response(answer.model_dump_json(by_alias=True), media_type=JSON)
    if isinstance(answer, list):
        items = [json.loads(i.model_dump_json(by_alias=True)) if isinstance(i, BaseModel) else i for i in answer]
        return JSONResponse(items)
    return JSONResponse(answer)
