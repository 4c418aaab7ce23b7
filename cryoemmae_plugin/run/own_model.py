"""A model that the run trains once on its own micrographs and then keeps."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cryoemmae_plugin.device import choose_device, split_devices
from cryoemmae_plugin.errors import ModelError
from cryoemmae_plugin.files import Note, read_note, write_note
from cryoemmae_plugin.run.hooks import Hooks
from cryoemmae_plugin.run.observer import Observer
from cryoemmae_plugin.run.request import OwnModel
from cryoemmae_plugin.settings import Mode, PickerSettings
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.weights import CARD_FILE, read_card

if TYPE_CHECKING:
    from cryoemmae_plugin.training.prepare import TrainingMicrograph
    from cryoemmae_plugin.training.start import Start

SAMPLE_FILE = "training.json"
"""Name of the note beside the model's folder."""


class TrainingSample(Note):
    """What a model is trained on, noted once: a resumed training uses the same micrographs."""

    mode: Mode
    start: str
    epochs: int | None
    diameter_A: float
    contrast: str
    micrographs: tuple[tuple[str, float | None], ...]


def train_own_model(wanted: OwnModel, settings: PickerSettings, device: str, hooks: Hooks) -> PickerSettings:
    """Train the model, or resume a stopped training; an existing model is used unchanged.

    Returns
    -------
    PickerSettings
        `settings`, with this model.

    Raises
    ------
    ModelError
        When the existing model was trained for another mode.
    Interrupted
        When the front end says that the run should stop.
    CryoemmaeError
        When no micrograph can be used.
    """
    if (wanted.folder / CARD_FILE).exists():
        _check_mode(wanted.folder, settings.mode)
        hooks.observer.stage(f"Using the model that this job has trained: {wanted.folder}")
    else:
        _train(wanted, _noted_sample(wanted, settings), device, hooks)
        hooks.observer.stage(f"Trained. The model is kept in {wanted.folder}")
    return settings.model_copy(update={"model": str(wanted.folder)})


def _check_mode(folder: Path, mode: Mode) -> None:
    card = read_card(folder)
    if mode not in card.modes:
        raise ModelError(
            f"{folder}: trained for mode {' and '.join(card.modes)}, and a job keeps its model; "
            f"for mode {mode} start a new job"
        )


def _noted_sample(wanted: OwnModel, settings: PickerSettings) -> TrainingSample:
    path = wanted.folder.parent / SAMPLE_FILE
    sample = read_note(path, TrainingSample, "delete it to choose the training micrographs again")
    if sample is None:
        sample = TrainingSample(
            mode=settings.mode,
            start=settings.model_name,
            epochs=wanted.epochs,
            diameter_A=settings.diameter_A,
            contrast=settings.contrast,
            micrographs=tuple((str(m.path), m.pixel_size_A) for m in wanted.micrographs),
        )
        write_note(path, sample)
    return sample


def _train(wanted: OwnModel, sample: TrainingSample, device: str, hooks: Hooks) -> None:
    from cryoemmae_plugin.training.recipe import FitSettings
    from cryoemmae_plugin.training.train import train_model

    observer = hooks.observer
    start = _start(sample.start, observer)
    how = f"further from {sample.start}" if start else "from scratch"
    task = f"Training on {len(sample.micrographs)} micrographs, {how}"
    with ExitStack() as files:
        train_model(
            _files_of(wanted, sample, files),
            wanted.folder,
            wanted.name,
            mode=sample.mode,
            settings=FitSettings(epochs=sample.epochs) if sample.epochs else None,
            start=start,
            data=wanted.data or "",
            device=choose_device(split_devices(device)[0]),
            progress=lambda done, total, skill: observer.progress(task, done, total, f"skill {skill:.2f}"),
            on_stage=observer.progress,
            should_stop=hooks.should_stop,
        )


def _files_of(wanted: OwnModel, sample: TrainingSample, files: ExitStack) -> list[TrainingMicrograph]:
    """The micrographs of a sample; their files exist until `files` is closed."""
    from cryoemmae_plugin.training.prepare import TrainingMicrograph

    known = {str(micrograph.path): micrograph for micrograph in wanted.micrographs}
    found = []
    for path, pixel_size_A in sample.micrographs:
        micrograph = known.get(path) or Micrograph(Path(path), pixel_size_A, path)
        file = files.enter_context(wanted.file_of(micrograph))
        bright = sample.contrast == "bright"
        found.append(TrainingMicrograph(file, sample.diameter_A, pixel_size_A, bright))
    return found


def _start(name: str, observer: Observer) -> Start | None:
    """The model to train further; None if it is missing or has no decoder, so that a new one is trained."""
    from cryoemmae_plugin.training.start import load_start

    try:
        return load_start(name)
    except ModelError as err:
        observer.stage(f"Training a new model: {name} cannot be trained further ({err})")
        return None
