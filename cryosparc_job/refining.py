"""Pick again by what Select 2D has kept: which job picked those particles, and what they say of its picks."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.errors import InputError, StoreError
from cryoemmae_plugin.run.class_selection import ClassSelection, judge_picks
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import ResultStore
from cryosparc_job.instance import Instance, JobInfo
from cryosparc_job.request import PICKS_FOLDER, PickRequest, find_work_folder, load_request
from cryosparc_job.slots import Exposure, read_locations

EXCLUDED = {"particles_selected": "particles_excluded"}
"""Output of Select 2D with the particles that it has dropped, by that of those that it has kept."""
MOST_JOBS = 200
"""Jobs upstream of a selection that are looked at."""
CLASS = "alignments2D/class"


def refining_request(
    instance: Instance, project: str, particles: str, rejected: str | None = None, *, work: Path | None = None
) -> PickRequest:
    """The request of the job that has picked some particles, to be refined by them.

    Parameters
    ----------
    particles, rejected : str
        Job and output, such as "J30.particles_selected". Without `rejected`, the output of Select 2D with the
        particles that it has dropped is taken where there is one.

    Raises
    ------
    InputError
        When no job of ours whose results are in sight has picked them.
    """
    job, _, output = particles.partition(".")
    info = instance.job(project, job)
    other = EXCLUDED.get(output)
    if rejected is None and other in info.outputs:
        rejected = f"{job}.{other}"
    picked_by, request = _find_picking(instance, project, info, work)
    changes = {
        "selected": particles,
        "rejected": rejected,
        "picked_by": picked_by,
        "title": f"{request.title}, refined",
    }
    return PickRequest.model_validate(request.model_dump() | changes)


def _find_picking(instance: Instance, project: str, start: JobInfo, work: Path | None) -> tuple[str, PickRequest]:
    """The nearest job upstream that has results of ours here."""
    waiting, seen = deque([start]), {start.uid}
    while waiting and len(seen) <= MOST_JOBS:
        info = waiting.popleft()
        try:
            job_dir = instance.project_dir(project) / info.uid
            return info.uid, load_request(find_work_folder(instance.credentials, project, info.uid, job_dir, work))
        except InputError:
            sources = [uid for uid, _ in info.sources if uid not in seen]
        seen.update(sources)
        waiting.extend(instance.job(project, uid) for uid in dict.fromkeys(sources))
    raise InputError(
        f"{project} {start.uid}: no job that these particles come from has results of cryoemmae here",
        remedy=("run it on the machine that picked them", "name the folder of that job with $work"),
    )


def selection_of_request(
    instance: Instance, request: PickRequest, exposures: Sequence[Exposure], work: Path | None = None
) -> ClassSelection | None:
    """What the selected particles of a request say of the picks of the job before; None where it has none.

    Raises
    ------
    InputError
        When the particles are not of these exposures.
    """
    if request.selected is None:
        return None
    known = {exposure.uid: exposure for exposure in exposures}
    kept, classes = _load(instance, request, request.selected, known)
    dropped = _load(instance, request, request.rejected, known)[0] if request.rejected else None
    diameter_A, picks = _earlier_picks(instance, request, {*kept, *(dropped or ())}, work)
    diameters = {one.key: diameter_A / one.pixel_size_A for one in exposures}
    return judge_picks(kept, dropped, picks, diameters, classes)


def _load(
    instance: Instance, request: PickRequest, name: str, known: dict[int, Exposure]
) -> tuple[dict[str, NDArray[np.float64]], int | None]:
    """Centres in pixels by the key of the exposure, and the number of classes where it is known."""
    job, _, output = name.partition(".")
    there = instance.job(request.project, job).outputs.get(output)
    if there is None or there.type != "particle" or "location" not in there.slots:
        raise InputError(f"{request.project} {name}: no output with particles that have a location")
    slots = [slot for slot in ("location", "alignments2D") if slot in there.slots]
    dataset = instance.load_output(request.project, job, output, slots)
    if not len(dataset):
        raise InputError(f"{request.project} {name} is empty; select at least one class")
    centres = {}
    for uid, fractions in read_locations(dataset).items():
        if uid in known:
            ny, nx = known[uid].shape
            xy = fractions * (nx, ny)
            centres[known[uid].key] = xy * (1, -1) + (0, ny - 1) if request.flip_y else xy
    if not centres:
        raise InputError(f"{request.project} {name}: none of its particles is on {request.exposures}")
    classes = len(np.unique(dataset[CLASS])) if CLASS in dataset.fields() else None
    return centres, classes


def _earlier_picks(
    instance: Instance, request: PickRequest, keys: set[str], work: Path | None
) -> tuple[float, dict[str, NDArray[np.float64]]]:
    """Diameter and picks of the job before; no picks where they are out of sight."""
    asked = request.settings.diameter_A
    try:
        job_dir = instance.project_dir(request.project) / str(request.picked_by)
        folder = find_work_folder(instance.credentials, request.project, str(request.picked_by), job_dir, work)
        store = ResultStore.open(folder / PICKS_FOLDER)
        rule = Selection.of(store.record.settings, request.settings.pick_threshold)
        return rule.diameter_A, {key: rule.picks(store.load(key)).xy for key in keys if store.owner(key)}
    except (InputError, StoreError) as err:
        if isinstance(asked, str):
            raise InputError(
                f"{request.project} {request.picked_by}: its results are not in sight, and its diameter is {asked}",
                remedy="name its folder with $work",
            ) from err
        return float(asked), {}
