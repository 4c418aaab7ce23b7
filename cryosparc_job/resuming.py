"""Resume a job that ended early: in the same job if this version of CryoSPARC allows it, else in a new one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from cryoemmae_plugin.errors import OutputError
from cryoemmae_plugin.run.engine import EngineFactory
from cryosparc_job.create import begin, reopen
from cryosparc_job.errors import Refused
from cryosparc_job.instance import Instance
from cryosparc_job.picking import JobReport, PickJob
from cryosparc_job.request import MODEL_FOLDER, PICKS_FOLDER, find_work_folder, load_request

_KEPT = (PICKS_FOLDER, MODEL_FOLDER)
"""What a new job copies from the folder of the old job."""


def resume_job(
    instance: Instance,
    project: str,
    uid: str,
    engine_factory: EngineFactory | None = None,
    *,
    work: Path | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> JobReport:
    """Pick the remaining exposures of a job; finished ones are not picked again.

    Raises
    ------
    InputError
        When this machine has no results of the job.
    Refused
        When the job has completed.
    """
    info = instance.job(project, uid)
    folder = find_work_folder(instance.credentials, project, uid, instance.project_dir(project) / uid, work)
    request = load_request(folder)
    if info.status == "completed":
        raise Refused(f"{project} {uid} has completed; there is nothing to resume")
    try:
        job = reopen(instance, request, uid, folder, engine_factory, tell, work)
    except Refused as err:
        tell(f"{uid} cannot run again ({err}); a new job takes over its results")
        job = begin(instance, request, engine_factory, work=work, tell=tell)
        _take_over(job, folder, uid)
    return job.run()


def _take_over(job: PickJob, old: Path, uid: str) -> None:
    """Copy results from the folder of an earlier job."""
    try:
        for name in _KEPT:
            if (old / name).is_dir() and old != job.folder:
                shutil.copytree(old / name, job.folder / name, ignore=shutil.ignore_patterns(".lock"))
    except OSError as err:
        raise OutputError(f"{job.folder}: the results of {uid} cannot be copied there ({err})") from err
    job.job.log(f"Goes on with the results of {uid}.")
