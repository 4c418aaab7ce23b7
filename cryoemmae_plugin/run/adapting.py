"""A head that knows the data set at hand: made before the first micrograph is picked, and kept in the result folder.

The first run in a folder decides: every later one picks with the same weights, also when more micrographs have come by
then. All of it happens on the CPU, so that the weights do not depend on which device picks.
"""

from __future__ import annotations

import datetime
import logging
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from cryoemmae_plugin import files
from cryoemmae_plugin.core.crop_detection import CropDetections, detect_on_crop, is_detectable, with_dark_particles
from cryoemmae_plugin.core.head import Head
from cryoemmae_plugin.core.picker import load_head
from cryoemmae_plugin.errors import ImageError, Interrupted, StoreError
from cryoemmae_plugin.files import output_error
from cryoemmae_plugin.run.diameter import evenly_spread
from cryoemmae_plugin.run.prefetch import Loaded, load
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.weights import Model, load_model, save_model
from cryoemmae_plugin.weights.card import NAME_LIMIT
from cryoemmae_plugin.weights.folder import remove_model
from cryoemmae_plugin.weights.model import CENTROIDS

logger = logging.getLogger(__name__)

MODEL_FOLDER = "model"
NOTE_FILE = "adapted.json"
SAMPLE = 5
"""Micrographs that are looked at, evenly spread over the list; of fewer there is too little to learn."""
SPARE = 3
"""Where some of them cannot be looked at, others are, up to so many times as many in all."""
SUFFIX = "-adapted"

Tell = Callable[[str], None]
Progress = Callable[[int, int], None]


class AdaptationNote(BaseModel):
    """Whether a folder's results are picked by an adapted head, and what that depends on: content of `NOTE_FILE`.

    Attributes
    ----------
    adapted : bool
    why : str
        What there was to learn from, for people.
    base_sha256 : str
        The model that was adapted.
    diameter_A, contrast, pixel_size_A
        The settings that the adaptation depends on.
    """

    model_config = ConfigDict(frozen=True)

    adapted: bool
    why: str
    base_sha256: str
    diameter_A: float
    contrast: str
    pixel_size_A: float | None

    def holds_for(self, settings: PickerSettings, model: Model) -> bool:
        """Whether it was taken with the same settings and model."""
        now = (model.sha256, settings.diameter_A, settings.contrast, settings.pixel_size_A)
        return (self.base_sha256, self.diameter_A, self.contrast, self.pixel_size_A) == now


def settle_model(
    settings: PickerSettings,
    micrographs: Sequence[Micrograph],
    folder: Path,
    *,
    anew: bool = False,
    renew: bool = False,
    tell: Tell = logger.info,
    progress: Progress = lambda done, total: None,
    loader: Callable[[Micrograph], Loaded] = load,
    should_stop: Callable[[], bool] = lambda: False,
) -> PickerSettings:
    """Settings whose model is adapted to the micrographs; the same settings where that is not wanted or not possible.

    Parameters
    ----------
    settings : PickerSettings
        What the user wants.
    micrographs : sequence of Micrograph
        What is going to be picked.
    folder : Path
        The result folder; keeps the model.
    anew : bool
        Forget what earlier runs have left there.
    renew : bool
        Adapt anew where earlier runs had other settings: their results are going to be thrown away.
    tell : callable
        Takes lines for the user.
    progress : callable
        Told how many of how many steps are done.
    loader : callable
        Reads a micrograph.
    should_stop : callable
        Asked before each step.

    Raises
    ------
    Interrupted
        When `should_stop` says True.
    OutputError
        When the model cannot be kept.
    StoreError
        When the folder's note cannot be read.
    """
    if anew:
        _forget(folder)
    if not settings.adapt or settings.mode != "default":
        return settings
    from cryoemmae_plugin.run.store import has_results

    model = load_model(settings.model_name)
    note = read_note(folder)
    if note is None or not note.holds_for(settings, model):
        if has_results(folder) and not (anew or renew):
            return settings  # of another run: whether this one may go on there, the store says
        note = _adapt(settings, model, micrographs, folder, tell, progress, loader, should_stop)
        if note is None:
            return settings  # picking is going to say why
    elif note.adapted:
        tell(f"Picking with the model that was adapted to these micrographs before: {folder / MODEL_FOLDER}")
    return settings.model_copy(update={"model": str((folder / MODEL_FOLDER).absolute())}) if note.adapted else settings


def read_note(folder: Path) -> AdaptationNote | None:
    """What earlier runs in a folder have decided; None where there is nothing.

    Raises
    ------
    StoreError
        When the file is there and cannot be read.
    """
    way_out = "choose another --out, or start over with --overwrite"
    return files.read_note(folder / NOTE_FILE, AdaptationNote, way_out)


def _adapt(
    settings: PickerSettings,
    model: Model,
    micrographs: Sequence[Micrograph],
    folder: Path,
    tell: Tell,
    progress: Progress,
    loader: Callable[[Micrograph], Loaded],
    should_stop: Callable[[], bool],
) -> AdaptationNote | None:
    """Adapt the model, keep it in the folder, and write down what was decided; None where nothing could be seen."""
    adapted = False
    if model.card.name.endswith(SUFFIX):
        why = f"{model.card.name} has been adapted before"
        tell(f"Not adapted: {why}")
    elif len(micrographs) < SAMPLE:
        why = f"{len(micrographs)} micrographs, fewer than {SAMPLE}"
    else:
        from cryoemmae_plugin.training.adapt import adapt_head, judge_together
        from cryoemmae_plugin.training.specimen import count_sure

        tell(f"Adapting {model.card.name} to these micrographs; --no-adapt (in RELION: adapt no) leaves that out")
        head = load_head(model)
        seen = _look(settings, model, head, micrographs, loader, should_stop)
        if not seen:
            return None
        why = f"{count_sure(seen)} sure picks in {len(seen)} micrographs"
        trained = adapt_head(model, head, seen, progress=progress, should_stop=should_stop)
        better = judge_together(trained or head, seen) or trained
        if better is not None:
            recipe = (
                "trained further on micrographs made of its own picks" if trained else "told what they show together"
            )
            _save(model, better.arrays(), why, recipe, folder / MODEL_FOLDER)
            adapted = True
        tell(_account(why, trained=trained is not None, adapted=adapted))
    note = AdaptationNote(
        adapted=adapted,
        why=why,
        base_sha256=model.sha256,
        diameter_A=settings.diameter_A,
        contrast=settings.contrast,
        pixel_size_A=settings.pixel_size_A,
    )
    files.write_note(folder / NOTE_FILE, note)
    return note


def _look(
    settings: PickerSettings,
    model: Model,
    head: Head,
    micrographs: Sequence[Micrograph],
    loader: Callable[[Micrograph], Loaded],
    should_stop: Callable[[], bool],
) -> list[CropDetections]:
    """See a sample of the micrographs, others for those that cannot be seen: these, picking is going to report."""
    detections: list[CropDetections] = []
    for micrograph in dict.fromkeys([*evenly_spread(micrographs, SAMPLE), *evenly_spread(micrographs, SPARE * SAMPLE)]):
        if len(detections) == SAMPLE:
            break
        if should_stop():
            raise Interrupted("stopped while adapting to the micrographs; run the same command again")
        try:
            loaded = loader(micrograph)
        except ImageError as err:
            logger.debug("not adapted to: %s", err)
            continue
        diameter_px = settings.diameter_A / loaded.pixel_size_A
        if is_detectable(diameter_px, loaded.image.shape):
            image = with_dark_particles(loaded.image, settings.contrast == "bright")
            detections.append(detect_on_crop(image, diameter_px, head, model))
    return detections


def _account(why: str, *, trained: bool, adapted: bool) -> str:
    if trained:
        return f"Adapted, from {why}"
    if adapted:
        return (
            f"Too little stands out to learn from: {why}. Adapted in what is taken for an empty micrograph only; where "
            "picks are missing, lower the threshold"
        )
    return f"Not adapted: {why}"


def _save(model: Model, head: dict[str, Tensor], why: str, recipe: str, folder: Path) -> None:
    name = model.card.name[: NAME_LIMIT - len(SUFFIX)] + SUFFIX
    card = model.card.model_copy(
        update={
            "name": name,
            "data": f"{model.card.data}; adapted to {why}",
            "recipe": f"{model.card.recipe}; head {recipe}",
            "hardware": f"CPU, {platform.machine()}",
            "created": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        }
    )
    clusters = {CENTROIDS: model.centroids, **model.arrays, **head}
    save_model(folder, card, model.encoder.state_dict(), clusters)


def _forget(folder: Path) -> None:
    """Delete the note and the model that it tells of, and nothing else."""
    with suppress(StoreError):  # a note that cannot be read goes, and tells of nothing
        note = read_note(folder)
        if note is not None and note.adapted:
            remove_model(folder / MODEL_FOLDER)
    try:
        (folder / NOTE_FILE).unlink(missing_ok=True)
    except OSError as err:
        raise output_error(folder, err) from err
