"""Check a request as far as possible before a job is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.images import is_readable
from cryoemmae_plugin.run.class_selection import ClassSelection
from cryosparc_job.instance import Instance, JobInfo
from cryosparc_job.refining import selection_of_request
from cryosparc_job.request import PickRequest
from cryosparc_job.slots import EXPOSURE_SLOTS, Exposure, read_exposures


@dataclass(frozen=True)
class Prepared:
    """A request that was checked, and its exposures."""

    request: PickRequest
    exposures: Sequence[Exposure]
    dataset: Any
    """The rows of the exposures output, those that `exposures` leaves out included."""
    project_dir: Path
    slots: tuple[str, ...]
    selection: ClassSelection | None = None


def prepare(instance: Instance, request: PickRequest, work: Path | None = None) -> Prepared:
    """Check everything that can be checked before a job is made.

    Raises
    ------
    CryoemmaeError
        When the workspace, the job, the output or its data are not what they should be.
    """
    instance.check_workspace(request.project, request.workspace)
    uid, name = request.source
    slots = exposure_slots(instance.job(request.project, uid), name)
    dataset = instance.load_output(request.project, uid, name, slots)
    exposures = read_exposures(dataset, f"{request.project} {request.exposures}")[: request.limit]
    if not any(is_readable(Path(exposure.file)) for exposure in exposures):
        raise InputError(
            f"{request.exposures}: {exposures[0].path} is of a kind that cannot be read; connect the micrographs that "
            "motion correction has written"
        )
    selection = selection_of_request(instance, request, exposures, work)
    return Prepared(request, exposures, dataset, instance.project_dir(request.project), slots, selection)


def exposure_slots(job: JobInfo, name: str) -> tuple[str, ...]:
    """The slots to load of an exposures output.

    Raises
    ------
    InputError
        When the job has no such output, or one of another kind.
    """
    fitting = [output.name for output in job.outputs.values() if _has_micrographs(output.type, output.slots)]
    hint = f"; with micrographs: {', '.join(f'{job.uid}.{n}' for n in fitting)}" if fitting else ""
    output = job.outputs.get(name)
    if output is None:
        raise InputError(
            f"{job.project} {job.uid} ({job.type}, {job.status}) has no output {name!r}; there are: "
            f"{', '.join(job.outputs) or 'none yet'}{hint}"
        )
    if output.type != "exposure":
        raise InputError(f"{job.project} {job.uid}.{name} is of type {output.type}, not exposure{hint}")
    if not _has_micrographs(output.type, output.slots):
        raise InputError(
            f"{job.project} {job.uid}.{name} has no micrograph_blob (it has {', '.join(output.slots) or 'nothing'}): "
            f"run motion correction first, or import micrographs{hint}"
        )
    return tuple(slot for slot in EXPOSURE_SLOTS if slot in output.slots)


def _has_micrographs(kind: str, slots: Sequence[str]) -> bool:
    return kind == "exposure" and EXPOSURE_SLOTS[0] in slots
