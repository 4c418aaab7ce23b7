"""Picking in CryoSPARC from Python: what the command line does, as functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryoemmae_plugin.run.engine import EngineFactory
from cryoemmae_plugin.settings import Auto
from cryosparc_job.create import begin
from cryosparc_job.instance import Instance
from cryosparc_job.picking import JobReport
from cryosparc_job.request import PickRequest
from cryosparc_job.resuming import resume_job


def pick(
    instance: Instance,
    *,
    project: str,
    workspace: str,
    exposures: str,
    diameter_A: float | Auto,
    work: Path | None = None,
    engine_factory: EngineFactory | None = None,
    tell: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> JobReport:
    """Pick an exposures output in a new external job, and wait until it is done.

    Parameters
    ----------
    instance : Instance
        From :func:`cryosparc_job.connect`.
    project, workspace : str
        Where to make the job, such as "P3" and "W1".
    exposures : str
        Job and output, such as "J12.exposures".
    diameter_A : float or "auto"
        Longest extent of the particle in Å; "auto" estimates it from the micrographs.
    work : Path, optional
        Folder for intermediate results; by default inside the job's own folder.
    engine_factory : callable, optional
        Makes the picking engine; by default the network.
    tell : callable
        Takes lines of progress.
    **options
        Fields of :class:`cryosparc_job.options.JobOptions` (title, limit, gpu …), of
        :class:`cryoemmae_plugin.settings.ComputeOptions` (precision …) and of
        :class:`cryoemmae_plugin.settings.PickerSettings` (threshold, mode, model …).

    Returns
    -------
    JobReport
        The job, how it ended, and how much was picked. Ctrl-C ends the job as failed, with its picks so far.

    Raises
    ------
    CryoemmaeError
        When something is wrong; before there is a job wherever that can be.
    """
    request = PickRequest.from_values(
        {"diameter_A": diameter_A, **options}, project=project, workspace=workspace, exposures=exposures
    )
    return begin(instance, request, engine_factory, work=work, tell=tell).run()


def resume(
    instance: Instance,
    *,
    project: str,
    job: str,
    work: Path | None = None,
    engine_factory: EngineFactory | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> JobReport:
    """Resume a job that ended early, see :func:`cryosparc_job.resuming.resume_job`."""
    return resume_job(instance, project, job, engine_factory, work=work, tell=tell)
