"""A model of the data set's own, trained inside the job before it picks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from cryoemmae_plugin.errors import ModelError
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.types import Micrograph
from cryosparc_job.files import ExposureFiles
from cryosparc_job.job import ExternalJob
from cryosparc_job.messages import bar
from cryosparc_job.request import PickRequest


def train(
    micrographs: Sequence[Micrograph],
    files: ExposureFiles,
    request: PickRequest,
    settings: PickerSettings,
    folder: Path,
    job: ExternalJob,
    should_stop: Callable[[], bool],
) -> PickerSettings:
    """Train on some of the exposures; goes on where an earlier run stopped.

    Returns
    -------
    PickerSettings
        `settings`, with the new model.

    Raises
    ------
    CryoemmaeError
        When no exposure can be used, or training was stopped.
    """
    from cryoemmae_plugin.device import choose_device, split_devices
    from cryoemmae_plugin.training.start import load_start
    from cryoemmae_plugin.training.train import TrainingMicrograph, train_model

    target = folder / "model"
    chosen = settings.model_copy(update={"model": str(target)})
    if (target / "card.toml").is_file():
        job.log(f"Trained before: the model in {target} is used.")
        return chosen
    try:
        start = load_start(settings.model_name)
    except ModelError as err:
        job.log(f"A new model is trained: {settings.model_name} cannot be trained further ({err}).")
        start = None
    job.log(f"Training a model on {len(micrographs)} of the micrographs; it needs no label.")
    with ExitStack() as stack:
        sample = []
        for micrograph in micrographs:
            path = micrograph.path
            if not path.is_file():
                path = Path(stack.enter_context(files.fetched(micrograph))) / path.name
            bright = settings.contrast == "bright"
            sample.append(TrainingMicrograph(path, settings.diameter_A, micrograph.pixel_size_A, bright))

        def progress(done: int, total: int, loss: float) -> None:
            job.progress(f"Training  {bar(done, total)}  {done} / {total}   loss {loss:.4f}", now=done == total)

        def on_stage(stage: str, done: int, total: int) -> None:
            job.progress(f"{stage}  {bar(done, total)}  {done} / {total}", now=done == total)

        train_model(
            sample,
            target,
            f"{request.project}-{job.uid}",
            mode=settings.mode,
            start=start,
            data=f"{len(sample)} unlabelled exposures of {request.project} {request.exposures}",
            device=choose_device(split_devices(request.device)[0]),
            progress=progress,
            on_stage=on_stage,
            should_stop=should_stop,
        )
    job.log(f"Trained. The model is kept in {target}.")
    return chosen
