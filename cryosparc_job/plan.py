"""Which exposures outputs to pick again: from a plan file, or all that a project has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cryoemmae_plugin.errors import InputError, SettingsError
from cryoemmae_plugin.files import read_toml
from cryoemmae_plugin.settings import (
    PickerSettings,
    settings_error,
)
from cryosparc_job.exposures import ACCEPTED, REJECTED
from cryosparc_job.instance import Instance, JobInfo
from cryosparc_job.request import PickRequest


class PlanEntry(BaseModel):
    """One job to make.

    Attributes
    ----------
    project, exposures : str
        What to pick, such as "P3" and "J12.exposures".
    workspace : str or None
        Where to make the job; by default that of the job with the exposures.
    compare : str or None
        Particles output of the same project to compare with, such as "J20.particles".
    values : dict
        Settings and options of this entry.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    project: str
    exposures: str
    workspace: str | None = None
    compare: str | None = None
    values: dict[str, str | float | int | bool] = Field(default_factory=dict)

    def request(self, instance: Instance) -> PickRequest:
        """The job's request; asks CryoSPARC for the workspace where none is given.

        Raises
        ------
        SettingsError
            When a value of the entry cannot be right.
        """
        values = {_field(name): value for name, value in self.values.items()}
        if "diameter_A" not in values:
            raise SettingsError(
                f"{self.project} {self.exposures}: no diameter", remedy=("give one in the plan", "give $diameter_A")
            )
        workspace = values.pop("workspace", None)
        workspace = self.workspace or (str(workspace) if workspace else self._workspace(instance))
        return PickRequest.from_values(values, project=self.project, workspace=workspace, exposures=self.exposures)

    def _workspace(self, instance: Instance) -> str:
        return instance.job(self.project, self.exposures.partition(".")[0]).workspaces[0]


def _field(name: str) -> str:
    """The settings field of a name in a plan: ``pixel_size`` is ``pixel_size_A``."""
    return f"{name}_A" if f"{name}_A" in PickerSettings.model_fields else name


def read_plan(path: Path) -> list[PlanEntry]:
    """Read a plan: values for all jobs at its top, and a table ``[[job]]`` for each.

    Raises
    ------
    InputError
        When the file cannot be read, or an entry is incomplete.
    """
    try:
        content = read_toml(path)
    except (OSError, ValueError, RecursionError) as err:
        raise InputError(f"{path}: cannot be read as a plan ({err})") from err
    tables = content.pop("job", None)
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise InputError(f"{path}: no [[job]] in it; give one for each exposures output, with project and exposures")
    entries = []
    for number, table in enumerate(tables, 1):
        named = {name: table.pop(name) for name in ("project", "exposures", "workspace", "compare") if name in table}
        named = {**{name: content[name] for name in ("project", "workspace") if name in content}, **named}
        common = {name: value for name, value in content.items() if name not in ("project", "workspace")}
        try:
            entries.append(PlanEntry(**named, values={**common, **table}))
        except ValidationError as err:
            raise InputError(f"{path}: job {number}: {settings_error(err)}") from err
    return entries


def all_exposures(instance: Instance, project: str) -> list[PlanEntry]:
    """The last exposures outputs of a project's completed jobs: those that no other exposures output is made from.

    Raises
    ------
    InputError
        When there is none.
    """
    jobs = [job for job in instance.jobs(project) if job.status == "completed"]
    used = {source for job in jobs if _exposure_outputs(job) for source in job.sources}
    entries = [
        PlanEntry(project=project, exposures=f"{job.uid}.{name}", workspace=job.workspaces[0])
        for job in jobs
        for name in _exposure_outputs(job)
        if (job.uid, name) not in used and "rejected" not in name and "incomplete" not in name
    ]
    if not entries:
        raise InputError(f"project {project} has no completed job with micrographs")
    return entries


def _exposure_outputs(job: JobInfo) -> Sequence[str]:
    """The outputs of a job with micrographs; jobs of this program only divide those of others."""
    if job.type == "snowflake" and {ACCEPTED, REJECTED} <= job.outputs.keys():
        return []
    return [o.name for o in job.outputs.values() if o.type == "exposure" and "micrograph_blob" in o.slots and o.items]
