"""The protocol of CryoSPARC 4: JSON-RPC on the base port plus 2 and 3, posts for data, a third service on plus 5."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from typing import Any

from cryosparc.dataset import Dataset
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from .state import ACTIVE, FIELDS, LICENSE, USER_ID, FakeJob, Refusal, State

DATASET = "application/x-cryosparc-dataset"


def as_document(job: FakeJob) -> dict[str, Any]:
    groups, results = [], []
    for name, output in job.outputs.items():
        groups.append({"uid": f"{job.uid}-G", "name": name, "type": output.type, "title": output.title})
        for slot in output.slots:
            results.append(
                {
                    "group_name": name,
                    "name": slot,
                    "type": f"{output.type}.{slot}",
                    "passthrough": False,
                    "min_fields": FIELDS[slot],
                    "metafiles": [output.file] if output.file else [],
                    "num_items": [output.items] if output.file else [],
                }
            )
    inputs = [
        {
            "name": name,
            "type": item.type,
            "connections": [{"job_uid": uid, "group_name": output} for uid, output in item.connections],
        }
        for name, item in job.inputs.items()
    ]
    return {
        "uid": job.uid,
        "project_uid": job.project,
        "workspace_uids": job.workspaces,
        "type": job.type,
        "job_type": job.type,
        "title": job.title,
        "status": job.status,
        "deleted": False,
        "input_slot_groups": inputs,
        "output_result_groups": groups,
        "output_results": results,
    }


class Core:
    """The methods of command_core; those of command_vis are below."""

    def __init__(self, state: State) -> None:
        self._state = state

    def test_connection(self) -> bool:
        return True

    def get_id_by_email_password(self, email: str, password: str) -> str:
        self._state.login(email, hashlib.sha256(password.encode()).hexdigest())
        return USER_ID

    def get_running_version(self) -> str:
        return f"v{self._state.version}"

    def get_job(self, project_uid: str, job_uid: str) -> dict[str, Any]:
        return as_document(self._state.job(project_uid, job_uid))

    def get_project(self, project_uid: str) -> dict[str, Any]:
        return {"uid": project_uid, "project_dir": str(self._state.project_dir(project_uid))}

    def get_workspace(self, project_uid: str, workspace_uid: str) -> dict[str, Any]:
        if workspace_uid not in self._state.workspaces.get(project_uid, ()):
            raise Refusal(404, f"Workspace {project_uid}-{workspace_uid} does not exist")
        return {"uid": workspace_uid, "project_uid": project_uid}

    def get_project_dir_abs(self, project_uid: str) -> str:
        return str(self._state.project_dir(project_uid))

    def get_job_dir_abs(self, project_uid: str, job_uid: str) -> str:
        return str(self._state.project_dir(project_uid) / job_uid)

    def job_send_streamlog(
        self, project_uid: str, job_uid: str, message: str, error: bool = False, flags: Any = (), imgfiles: Any = None
    ) -> str:
        kind = "image" if imgfiles else "error" if error else "text"
        files = [file["fileid"] for file in imgfiles or ()]
        return self._state.log(self._state.job(project_uid, job_uid), kind, message, files).id

    def job_checkpoint_streamlog(self, project_uid: str, job_uid: str, meta: dict[str, Any]) -> str:
        return self._state.log(self._state.job(project_uid, job_uid), "checkpoint").id

    def run_external_job(self, project_uid: str, job_uid: str, status: str) -> None:
        self._state.start(self._state.job(project_uid, job_uid), status)

    def set_job_status(self, project_uid: str, job_uid: str, status: str) -> None:
        self._state.job(project_uid, job_uid).set_status(status)


class Vis:
    def __init__(self, state: State) -> None:
        self._state = state

    def create_external_job(
        self, project_uid: str, workspace_uid: str, user: str, title: str | None = None, desc: str | None = None
    ) -> str:
        assert user == USER_ID
        return self._state.create(project_uid, workspace_uid, "snowflake", title or "", desc or "").uid

    def connect_external_job(
        self,
        project_uid: str,
        source_job_uid: str,
        source_output: str,
        target_job_uid: str,
        target_input: str,
        slots: list[str],
        title: str = "",
        desc: str = "",
    ) -> bool:
        job = self._state.job(project_uid, target_job_uid)
        kind = self._state.job(project_uid, source_job_uid).outputs[source_output].type
        self._state.add_input(job, target_input, kind, [(slot, True) for slot in slots], title)
        self._state.connect(job, target_input, source_job_uid, source_output)
        return True

    def add_external_job_output(
        self,
        project_uid: str,
        job_uid: str,
        type: str,
        name: str,
        slots: list[str],
        passthrough: str | None = None,
        title: str | None = None,
    ) -> str:
        self._state.add_job_output(self._state.job(project_uid, job_uid), name, type, slots, title or "", passthrough)
        return name


def make_apps(state: State) -> dict[int, Starlette]:
    """The three services, by their distance from the base port."""

    def rpc(service: object) -> Callable[[Request], Any]:
        names = [name for name in dir(service) if not name.startswith("_")]

        async def answer(request: Request) -> Response:
            if request.headers.get("license-id") != LICENSE:
                return JSONResponse({"detail": "license"}, 401)
            call = await request.json()
            method, params = call["method"], call["params"]
            if method == "system.describe":
                return JSONResponse({"result": {"procs": [{"name": name} for name in names]}, "id": call["id"]})
            try:
                if method not in names:
                    raise Refusal(-32601, f"no method {method}")
                with state.lock:
                    state.enter(method)
                    function = getattr(service, method)
                    result = function(**params) if isinstance(params, dict) else function(*params)
            except Refusal as err:
                error = {"name": "OtherError", "code": err.code, "message": str(err), "data": {"detail": err.detail}}
                return JSONResponse({"error": error, "id": call["id"]})
            return JSONResponse({"result": result, "id": call["id"]})

        return answer

    def raw(do: Callable[[Request, bytes], Response], operation: str) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            body = await request.body()
            if request.headers.get("license-id") != LICENSE:
                return JSONResponse({"detail": "license"}, 401)
            try:
                with state.lock:
                    state.enter(operation)
                    return do(request, body)
            except Refusal as err:
                return JSONResponse({"detail": err.detail}, err.code)

        return answer

    def load_job_input(request: Request, body: bytes) -> Response:
        wanted = json.loads(body)
        job = state.job(wanted["project_uid"], wanted["job_uid"])
        uid, output = job.inputs[wanted["input_name"]].connections[0]
        dataset = state.load_output(state.job(job.project, uid), output, wanted["slots"] or None)
        return Response(b"".join(dataset.stream()), media_type=DATASET)

    def get_project_file(request: Request, body: bytes) -> Response:
        wanted = json.loads(body)
        return Response(
            state.file(wanted["project_uid"], wanted["path"]).read_bytes(), media_type="application/x-numpy"
        )

    def upload(request: Request, body: bytes) -> Response:
        name = request.query_params.get("filename", "asset")
        asset = {"fileid": state.upload(body), "filename": name, "filetype": request.query_params["format"]}
        return JSONResponse(asset)

    def save_output(request: Request, body: bytes) -> Response:
        job = state.job(request.path_params["project"], request.path_params["job"])
        assert job.status in (*ACTIVE, "building"), job.status
        dataset = Dataset.load(io.BytesIO(body))
        state.save_output(job, request.path_params["output"], dataset, running_only=False)
        return PlainTextResponse("ok")

    files = "/projects/{project}/jobs/{job}/files"
    outputs = "/external/projects/{project}/jobs/{job}/outputs/{output}/dataset"
    core = [Route("/api", rpc(Core(state)), methods=["POST"])]
    vis = [
        Route("/api", rpc(Vis(state)), methods=["POST"]),
        Route("/load_job_input", raw(load_job_input, "load_job_input"), methods=["POST"]),
        Route("/get_project_file", raw(get_project_file, "get_project_file"), methods=["POST"]),
        Route(files, raw(upload, "upload_asset"), methods=["POST"]),
        Route(outputs, raw(save_output, "save_output"), methods=["POST"]),
    ]
    rtp = [
        Route("/api", rpc(object()), methods=["POST"]),
        Route("/", lambda request: PlainTextResponse("hello"), methods=["GET"]),
    ]
    web = [Route("/", lambda request: PlainTextResponse("<html>CryoSPARC</html>"), methods=["GET"])]
    return {0: Starlette(routes=web), 2: Starlette(routes=core), 3: Starlette(routes=vis), 5: Starlette(routes=rtp)}
