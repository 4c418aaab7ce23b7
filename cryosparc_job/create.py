"""Make a job in CryoSPARC from a request, or reopen an existing one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from cryoemmae_plugin.run import engine as engines
from cryoemmae_plugin.run.engine import EngineFactory
from cryoemmae_plugin.run.request import RunRequest
from cryoemmae_plugin.settings import PickerSettings
from cryosparc_job.errors import CryosparcError
from cryosparc_job.exposures import ExposureOutputs
from cryosparc_job.follow import FollowJob
from cryosparc_job.instance import Instance
from cryosparc_job.job import ExternalJob
from cryosparc_job.picking import PickJob
from cryosparc_job.preflight import Prepared, prepare
from cryosparc_job.request import PickRequest, save_request, work_folder
from cryosparc_job.slots import PARTICLE_SLOTS, ParticleRows

logger = logging.getLogger(__name__)

INPUT, SELECTED = "micrographs", "particles"


def kind_of(request: PickRequest) -> type[PickJob]:
    """The kind of job that a request asks for."""
    return PickJob if request.follow is None else FollowJob


def begin(
    instance: Instance,
    request: PickRequest,
    engine_factory: EngineFactory | None = None,
    *,
    work: Path | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> PickJob:
    """Check a request, and make the job: built and connected, not yet running.

    Raises
    ------
    CryoemmaeError
        Before a job is made wherever that can be.
    """
    prepared = prepare(instance, request, work)
    if not request.train_on and request.settings.diameter_A != "auto":  # a wrong model shows before there is a job
        settings = request.settings.with_diameter(request.settings.diameter_A)
        engine_factory = _once(engine_factory or engines.build_engine, settings, request.run_request(Path()))
    job = ExternalJob.create(instance, request.project, request.workspace, request.title)
    try:
        rows, divided = _furnish(job, prepared)
        folder = work_folder(instance.credentials, request.project, job.uid, job.folder(), work)
        save_request(folder, request)
    except BaseException as err:
        _give_up(job, str(err) or "stopped before it began")
        raise
    tell(f"{request.project} {job.uid}: {len(prepared.exposures)} micrographs, results in {folder}")
    return kind_of(request)(instance, prepared, job, folder, engine_factory, rows, divided, tell=tell)


def _once(factory: EngineFactory, settings: PickerSettings, request: RunRequest) -> EngineFactory:
    """Make the engine of these settings now; later ones that differ, as with an adapted model, get their own."""
    engine = factory(settings, request)
    return lambda wanted, now: engine if wanted == settings else factory(wanted, now)


def _furnish(job: ExternalJob, prepared: Prepared) -> tuple[ParticleRows, ExposureOutputs]:
    """Connect the exposures, and make the outputs."""
    request = prepared.request
    uid, output = request.source
    job.connect(INPUT, uid, output, [slot for slot in prepared.slots if slot != "ctf"])
    if request.selected is not None:
        selected, _, name = request.selected.partition(".")
        job.connect(SELECTED, selected, name, ("location",))
    template = job.add_output("particle", request.output, PARTICLE_SLOTS, "Picked particles")
    return ParticleRows(template, flip_y=request.flip_y), ExposureOutputs.add(job, INPUT)


def _give_up(job: ExternalJob, why: str) -> None:
    """Mark a job as failed if its setup fails."""
    try:
        job.start()
        job.fail(why)
    except CryosparcError as err:
        logger.warning("%s is left as it is: %s", job.uid, err)


def reopen(
    instance: Instance,
    request: PickRequest,
    uid: str,
    folder: Path,
    engine_factory: EngineFactory | None = None,
    tell: Callable[[str], None] = lambda text: None,
    work: Path | None = None,
) -> PickJob:
    """Reopen an existing job; raises Refused if this version of CryoSPARC does not allow that."""
    prepared = prepare(instance, request, work)
    job = ExternalJob.open(instance, request.project, uid)
    rows = ParticleRows(job.template(request.output), flip_y=request.flip_y)
    divided = ExposureOutputs.of(job)
    job.start()
    return kind_of(request)(instance, prepared, job, folder, engine_factory, rows, divided, tell=tell)
