"""Adapt a model to the micrographs, from its most confident picks in a sample of them.

All of it happens on the CPU, so that the weights do not depend on which device picks.
"""

from __future__ import annotations

import datetime
import logging
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cryoemmae_plugin.core.crop_detection import CropDetections, detect_on_crop, is_detectable, with_dark_particles
from cryoemmae_plugin.core.groups import PREFIX as GROUPS
from cryoemmae_plugin.core.groups import Groups, make_groups
from cryoemmae_plugin.core.head import Head
from cryoemmae_plugin.core.picker import load_head
from cryoemmae_plugin.errors import ImageError, Interrupted
from cryoemmae_plugin.run.hooks import Hooks
from cryoemmae_plugin.run.inputs import evenly_spread
from cryoemmae_plugin.run.learning_state import Basis, LearningState
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.weights import Model, save_model
from cryoemmae_plugin.weights.card import NAME_LIMIT
from cryoemmae_plugin.weights.model import CENTROIDS

logger = logging.getLogger(__name__)

SAMPLE = 5
"""Number of micrographs to learn from, evenly spread over the list; fewer are not enough."""
SPARE = 3
"""Unreadable micrographs are replaced; the search stops after SPARE times the sample."""
SUFFIX = "-adapted"
LOOKING, TASK = "Looking at the micrographs", "Adapting to the micrographs"
"""Names of the tasks for observers."""


class AdaptationNote(Basis):
    """Whether the results in a folder come from an adapted head, and `why`: what there was to learn from."""

    adapted: bool
    why: str


def adapt_model(
    settings: PickerSettings,
    model: Model,
    micrographs: Sequence[Micrograph],
    folder: Path,
    state: LearningState,
    hooks: Hooks,
) -> AdaptationNote | None:
    """Adapt a model to micrographs.

    Parameters
    ----------
    micrographs : sequence of Micrograph
        All micrographs of the run.
    folder : Path
        Folder for the adapted model.
    state : LearningState
        Keeps what is done, so that a second call goes on where the first was stopped.

    Returns
    -------
    AdaptationNote or None
        What was done; None where no micrograph could be read.

    Raises
    ------
    Interrupted
        When the front end says that the run should stop.
    OutputError
        When the model cannot be kept.
    """
    observer = hooks.observer
    if model.card.name.endswith(SUFFIX):
        why = f"{model.card.name} has been adapted before"
        observer.stage(f"Not adapted: {why}")
        return AdaptationNote.of(settings, model, adapted=False, why=why)
    if len(micrographs) < SAMPLE:
        why = f"{len(micrographs)} micrographs, fewer than {SAMPLE}"
        return AdaptationNote.of(settings, model, adapted=False, why=why)
    from cryoemmae_plugin.training.adapt import adapt_head, judge_together
    from cryoemmae_plugin.training.specimen import count_sure

    observer.stage(f"Adapting {model.card.name} to these micrographs; $adapt=no skips this")
    head = load_head(model)
    seen = _Detector(settings, model, head, state, hooks).detect(micrographs)
    if not seen:
        return None
    why = f"{count_sure(seen)} confident picks in {len(seen)} micrographs"
    progress = partial(observer.progress, TASK)
    trained = adapt_head(model, head, seen, work=state.folder, progress=progress, should_stop=hooks.should_stop)
    better = judge_together(trained or head, seen) or trained
    groups = make_groups(np.concatenate([one.patches() for one in seen]))
    if better is not None:
        if groups is not None:
            observer.stage(groups.describe())
        recipe = "trained further on micrographs made of its own picks" if trained else "told what they show together"
        save_with_head(model, better, groups, SUFFIX, f"adapted to {why}", recipe, folder)
    observer.stage(_account(why, trained=trained is not None, adapted=better is not None))
    return AdaptationNote.of(settings, model, adapted=better is not None, why=why)


@dataclass(frozen=True)
class _Detector:
    """Finds particles in a sample of the micrographs."""

    settings: PickerSettings
    model: Model
    head: Head
    state: LearningState
    hooks: Hooks

    def detect(self, micrographs: Sequence[Micrograph]) -> list[CropDetections]:
        """Candidates of each. Others replace unreadable ones; picking reports those."""
        sample, spare = evenly_spread(micrographs, SAMPLE), evenly_spread(micrographs, SPARE * SAMPLE)
        wanted = list(dict.fromkeys([*sample, *spare]))
        self.state.begin(self.settings, self.model, wanted)
        seen: list[CropDetections] = []
        self.hooks.observer.progress(LOOKING, 0, SAMPLE)
        for micrograph in wanted:
            if len(seen) == SAMPLE:
                break
            if self.hooks.should_stop():
                raise Interrupted("stopped while adapting to the micrographs")
            try:
                found = self._on(micrograph)
            except ImageError as err:
                logger.debug("not adapted to: %s", err)
                continue
            seen += [] if found is None else [found]
            self.hooks.observer.progress(LOOKING, len(seen), SAMPLE)
        return seen

    def _on(self, micrograph: Micrograph) -> CropDetections | None:
        """Candidates of one; None where particles of this size cannot be detected."""
        loaded = self.hooks.loader(micrograph)
        diameter_px = self.settings.diameter_A / loaded.pixel_size_A
        if not is_detectable(diameter_px, loaded.image.shape):
            return None

        def detect() -> CropDetections:
            image = with_dark_particles(loaded.image, self.settings.contrast == "bright")
            return detect_on_crop(image, diameter_px, self.head, self.model)

        return self.state.seen_on(micrograph, detect)


def _account(why: str, *, trained: bool, adapted: bool) -> str:
    if trained:
        return f"Adapted, from {why}"
    if adapted:
        return (
            f"Too few confident picks to adapt ({why}): only the test for empty micrographs was adjusted. "
            "Where picks are missing, lower the threshold"
        )
    return f"Not adapted: {why}"


def save_with_head(
    model: Model, head: Head, groups: Groups | None, suffix: str, data: str, recipe: str, folder: Path
) -> None:
    """Save a model with another head, and with groups of picks; name and card say so."""
    card = model.card.model_copy(
        update={
            "name": model.card.name[: NAME_LIMIT - len(suffix)] + suffix,
            "data": f"{model.card.data}; {data}",
            "recipe": f"{model.card.recipe}; head {recipe}",
            "hardware": f"CPU, {platform.machine()}",
            "created": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        }
    )
    kept = {name: tensor for name, tensor in model.arrays.items() if not name.startswith(GROUPS)}
    arrays = {CENTROIDS: model.centroids, **kept, **head.arrays(), **(groups.arrays() if groups else {})}
    save_model(folder, card, model.encoder.state_dict(), arrays)
