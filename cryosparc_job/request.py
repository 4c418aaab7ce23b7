"""What to pick, and where the results are kept so that the job can be resumed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import platformdirs
from pydantic import ValidationError, model_validator

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.files import read_bytes, write_note
from cryoemmae_plugin.run.class_selection import ClassSelection
from cryoemmae_plugin.run.request import NO_OUTPUTS, OwnModel, RunRequest
from cryoemmae_plugin.settings import (
    AS_SUITS,
    ONE_PROCESS,
    ComputeOptions,
    DeviceOptions,
    ExecutorOptions,
    RequestedSettings,
    device_of_gpus,
    form,
    make_options,
    pictures_of,
)
from cryosparc_job.credentials import Credentials
from cryosparc_job.options import FollowOptions, JobOptions

REQUEST_FILE = "job.json"
FOLDER_IN_JOB = "cryoemmae"
PICKS_FOLDER, MODEL_FOLDER = "picks", "model"
"""Results and the model that the job has trained, in the job's own folder."""


ParticlesOutput = Annotated[str, form(r"\AJ\d+\.[A-Za-z][0-9A-Za-z_]*\Z", "J30.particles_selected")]


class PickRequest(JobOptions):
    """Everything that a job is made from; a wrong value is a :class:`SettingsError`. Frozen.

    Attributes
    ----------
    project, workspace : str
        Where to make the job, such as "P3" and "W1".
    exposures : str
        Job and output to pick, such as "J12.exposures".
    settings : RequestedSettings
        What decides which particles are found; the diameter may be "auto".
    workers : ExecutorOptions
        Where and by how many processes to pick.
    selected, rejected : str or None
        Job and output with the particles that 2D classification has kept or dropped: they refine the model.
    picked_by : str or None
        The job that has picked them.
    follow : FollowOptions or None
        How to go on as new exposures come; None to pick those that are there.
    """

    project: Annotated[str, form(r"\AP\d+\Z", "P3")]
    workspace: Annotated[str, form(r"\AW\d+\Z", "W1")]
    exposures: Annotated[str, form(r"\AJ\d+\.[A-Za-z][0-9A-Za-z_]*\Z", "J12.exposures")]
    settings: RequestedSettings
    compute: ComputeOptions = AS_SUITS
    workers: ExecutorOptions = ONE_PROCESS
    selected: ParticlesOutput | None = None
    rejected: ParticlesOutput | None = None
    picked_by: str | None = None
    follow: FollowOptions | None = None

    @classmethod
    def from_values(cls, values: Mapping[str, Any], *, project: str, workspace: str, exposures: str) -> PickRequest:
        """Make a request from values by name: each group of settings takes its own.

        Raises
        ------
        SettingsError
            A name is unknown, or a value is wrong.
        """
        job, settings, compute, workers = make_options(
            values, JobOptions, RequestedSettings, ComputeOptions, ExecutorOptions
        )
        groups = {"settings": settings, "compute": compute, "workers": workers}
        return cls(project=project, workspace=workspace, exposures=exposures, **job.model_dump(), **groups)

    @model_validator(mode="before")
    @classmethod
    def _of_release_before(cls, values: Any) -> Any:
        """Accept requests of older releases, where `jobs` was a field of its own."""
        if isinstance(values, dict) and "jobs" in values:
            values = dict(values)
            values["compute"] = {"jobs": values.pop("jobs")}
        return values

    @property
    def source(self) -> tuple[str, str]:
        """Job and output that the exposures come from."""
        job, _, output = self.exposures.partition(".")
        return job, output

    def run_request(
        self, folder: Path, own_model: OwnModel | None = None, selection: ClassSelection | None = None
    ) -> RunRequest:
        """What the picking service is asked for."""
        return RunRequest(
            self.settings,
            folder,
            device=DeviceOptions(device=device_of_gpus(self.gpu)),
            compute=self.compute,
            workers=self.workers,
            own_model=own_model,
            selection=selection,
            outputs=replace(NO_OUTPUTS, report=pictures_of(self.report)),
        )


def local_folder(credentials: Credentials, project: str, job: str) -> Path:
    """The folder for results if the job's own folder cannot be read or written from here."""
    instance = re.sub(r"[^0-9A-Za-z.-]", "-", f"{credentials.host}-{credentials.base_port}")
    return Path(platformdirs.user_data_dir("cryoemmae")) / "cryosparc" / instance / project / job


def work_folder(credentials: Credentials, project: str, job: str, job_dir: Path, chosen: Path | None = None) -> Path:
    """The folder for the results of a new job: inside the job's own folder if possible."""
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
        remedy=("run it on the machine where the job started", "name its folder with $work"),
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
