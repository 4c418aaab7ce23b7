"""What a user wants picked, and where its results are kept so that the job can be resumed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from cryoemmae_plugin.errors import InputError, SettingsError
from cryoemmae_plugin.files import read_bytes, write_note
from cryoemmae_plugin.run.request import NO_OUTPUTS, OwnModel, RunRequest
from cryoemmae_plugin.settings import (
    AS_SUITS,
    ONE_PROCESS,
    ComputeOptions,
    ExecutorOptions,
    RequestedSettings,
    settings_error,
)
from cryosparc_job.credentials import Credentials

REQUEST_FILE = "job.json"
FOLDER_IN_JOB = "cryoemmae"
DEFAULT_TITLE = "cryoemmae picks"

_NAMES = {
    "project": (r"P\d+", "P3"),
    "workspace": (r"W\d+", "W1"),
    "exposures": (r"J\d+\.[A-Za-z][0-9A-Za-z_]*", "J12.exposures"),
    "output": (r"[A-Za-z][0-9A-Za-z_]*", "particles (letters, digits and underscores, a letter first)"),
}


class PickRequest(BaseModel):
    """Everything that a job is made from.

    Attributes
    ----------
    project, workspace : str
        Where to make the job, such as "P3" and "W1".
    exposures : str
        Job and output to pick, such as "J12.exposures".
    settings : RequestedSettings
        What decides which particles are found; the diameter may be "auto".
    title : str
        The job's title.
    output : str
        Name of its particles output.
    limit : int or None
        Pick only so many exposures, the first ones.
    train_on : int or None
        First train a model on so many of the exposures.
    gpu : str
        "auto", "none", or the number of a GPU, or several with commas.
    flip_y : bool
        Turn the picks' vertical axis round.
    overlays : int
        Micrographs to show with their picks.
    compute : ComputeOptions
        How to compute.
    workers : ExecutorOptions
        Where and by how many processes to pick.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    project: str
    workspace: str
    exposures: str
    settings: RequestedSettings
    title: str = DEFAULT_TITLE
    output: str = "particles"
    limit: int | None = None
    train_on: int | None = None
    gpu: str = "auto"
    flip_y: bool = False
    overlays: int = 4
    compute: ComputeOptions = AS_SUITS
    workers: ExecutorOptions = ONE_PROCESS

    @model_validator(mode="before")
    @classmethod
    def _of_release_before(cls, values: Any) -> Any:
        """Take jobs that were begun when `jobs` was a field of its own."""
        if isinstance(values, dict) and "jobs" in values:
            values = dict(values)
            values["compute"] = {"jobs": values.pop("jobs")}
        return values

    @property
    def source(self) -> tuple[str, str]:
        """Job and output that the exposures come from."""
        job, _, output = self.exposures.partition(".")
        return job, output

    @property
    def device(self) -> str:
        """The device in the words of :func:`cryoemmae_plugin.device.choose_device`."""
        if self.gpu in ("none", "cpu"):
            return "cpu"
        return self.gpu if self.gpu == "auto" else f"cuda:{self.gpu.removeprefix('cuda:')}"

    def run_request(self, folder: Path, own_model: OwnModel | None = None) -> RunRequest:
        """What the picking service is asked for."""
        return RunRequest(
            self.settings,
            folder,
            devices=(self.device,),
            compute=self.compute,
            workers=self.workers,
            own_model=own_model,
            outputs=NO_OUTPUTS,
        )


def check_request(request: PickRequest) -> PickRequest:
    """`request`, if its names and numbers can be right.

    Raises
    ------
    SettingsError
        When one cannot.
    """
    for name, (pattern, example) in _NAMES.items():
        value = getattr(request, name)
        if not re.fullmatch(pattern, value):
            raise SettingsError(setting=name, value=value, remedy=f"give something like {example}")
    for name in ("limit", "train_on"):
        value = getattr(request, name)
        if value is not None and value < 1:
            raise SettingsError(setting=name, value=value, remedy="give 1 or more")
    if request.overlays < 0:
        raise SettingsError(setting="overlays", value=request.overlays, remedy="give 0 or more")
    if not re.fullmatch(r"auto|none|cpu|(cuda:)?\d{1,3}(,\d{1,3})*", request.gpu):
        raise SettingsError(
            setting="gpu", value=request.gpu, remedy="give auto, none, or numbers of GPUs, such as 0 or 0,1"
        )
    return request


def local_folder(credentials: Credentials, project: str, job: str) -> Path:
    """Where results are kept when the job's own folder cannot be seen or written from here."""
    instance = re.sub(r"[^0-9A-Za-z.-]", "-", f"{credentials.host}-{credentials.base_port}")
    return Path(platformdirs.user_data_dir("cryoemmae")) / "cryosparc" / instance / project / job


def work_folder(credentials: Credentials, project: str, job: str, job_dir: Path, chosen: Path | None = None) -> Path:
    """The folder of a new job's results: inside the job's own where that is possible."""
    if chosen is not None:
        return chosen / project / job
    if job_dir.is_dir() and os.access(job_dir, os.W_OK | os.X_OK):
        return job_dir / FOLDER_IN_JOB
    return local_folder(credentials, project, job)


def find_work_folder(
    credentials: Credentials, project: str, job: str, job_dir: Path, chosen: Path | None = None
) -> Path:
    """The folder with the results of an earlier run.

    Raises
    ------
    InputError
        When there is none.
    """
    places = [job_dir / FOLDER_IN_JOB, local_folder(credentials, project, job)]
    places = [chosen / project / job] if chosen is not None else places
    for place in places:
        if (place / REQUEST_FILE).is_file():
            return place
    raise InputError(
        f"{project} {job}: no results here (looked into {' and '.join(map(str, places))})",
        remedy=("run it where the job was begun", "name its folder with $work"),
    )


def save_request(folder: Path, request: PickRequest) -> None:
    """Note what the job is made from."""
    write_note(folder / REQUEST_FILE, request)


def load_request(folder: Path) -> PickRequest:
    """Read what a job was made from.

    Raises
    ------
    InputError
        When the file cannot be read.
    """
    path = folder / REQUEST_FILE
    try:
        return PickRequest.model_validate_json(read_bytes(path))
    except (OSError, UnicodeError, ValidationError) as err:
        raise InputError(f"{path}: cannot be read ({str(err).splitlines()[0]}); begin a new job with pick") from err


def make_request(**values: Any) -> PickRequest:
    """A checked request; raises SettingsError as :func:`check_request` does."""
    try:
        return check_request(PickRequest(**values))
    except ValidationError as err:
        raise settings_error(err) from err
