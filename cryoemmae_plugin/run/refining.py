"""Refine a model by what 2D classification has kept and dropped of its picks.

All of it happens on the CPU, so that the weights do not depend on which device picks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryoemmae_plugin.core.crop_detection import is_detectable, with_dark_particles
from cryoemmae_plugin.core.groups import make_groups
from cryoemmae_plugin.core.picker import load_head
from cryoemmae_plugin.errors import ImageError, InputError, Interrupted
from cryoemmae_plugin.run.adapting import save_with_head
from cryoemmae_plugin.run.class_selection import ClassSelection
from cryoemmae_plugin.run.hooks import Hooks
from cryoemmae_plugin.run.inputs import evenly_spread
from cryoemmae_plugin.run.learning_state import Basis, LearningState
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.weights import Model

if TYPE_CHECKING:
    from cryoemmae_plugin.training.refine import JudgedMicrograph

logger = logging.getLogger(__name__)

SAMPLE, MOST_SAMPLE = 12, 40
"""Micrographs to learn from, evenly spread over those with judged picks; more of them while..."""
ENOUGH_KEPT = 500
"""...fewer kept picks than this are on them."""
SUFFIX = "-refined"
TASK = "Refining the model"
"""Name of the task for observers."""


class RefinementNote(Basis):
    """What the refined model in a folder was taught: `why` for people, and the digest of the selection."""

    why: str
    selection: str

    def holds_for(self, settings: PickerSettings, model: Model, selection: ClassSelection) -> bool:
        """Whether it was taken with the same settings, model and selection."""
        return self.has_basis(settings, model) and self.selection == selection.digest


def refine_model(
    settings: PickerSettings,
    model: Model,
    selection: ClassSelection,
    micrographs: Sequence[Micrograph],
    folder: Path,
    state: LearningState,
    hooks: Hooks,
) -> RefinementNote:
    """Refine a model by a selection of its picks.

    Parameters
    ----------
    settings : PickerSettings
        What is going to be picked.
    selection : ClassSelection
        What was kept and what was dropped.
    micrographs : sequence of Micrograph
        What is going to be picked; those of the selection are among them.
    folder : Path
        Where the refined model goes.
    state : LearningState
        As for :func:`cryoemmae_plugin.run.adapting.adapt_model`.

    Raises
    ------
    InputError
        When no micrograph of the selection can be read.
    Interrupted
        When the front end says that the run should stop.
    OutputError
        When the model cannot be kept.
    """
    from cryoemmae_plugin.training.refine import refine_head

    observer = hooks.observer
    observer.stage(f"Refining {model.card.name}: {selection.describe()}")
    head = load_head(model)
    judged = _judged(settings, selection, micrographs, hooks)
    state.begin(settings, model, [micrograph for micrograph, _ in judged], selection.digest)
    pieces = [piece for _, piece in judged]
    progress = partial(observer.progress, TASK)
    refined = refine_head(model, head, pieces, work=state.folder, progress=progress, should_stop=hooks.should_stop)
    note = RefinementNote.of(settings, model, why=selection.describe(), selection=selection.digest)
    groups = make_groups(np.concatenate([piece.patches() for piece in pieces]))
    save_with_head(model, refined, groups, SUFFIX, f"refined by {note.why}", "trained on what was kept", folder)
    if groups is not None:
        observer.stage(groups.describe())
    observer.stage(f"Refined, from {note.why}")
    return note


def _judged(
    settings: PickerSettings, selection: ClassSelection, micrographs: Sequence[Micrograph], hooks: Hooks
) -> list[tuple[Micrograph, JudgedMicrograph]]:
    """Read a sample of the micrographs that have judged picks."""
    from cryoemmae_plugin.training.refine import JudgedMicrograph

    named = set(selection.uids)
    known = [one for one in micrographs if one.uid in named]
    judged: list[tuple[Micrograph, JudgedMicrograph]] = []
    for micrograph in dict.fromkeys([*evenly_spread(known, SAMPLE), *evenly_spread(known, MOST_SAMPLE)]):
        if len(judged) >= SAMPLE and sum(len(piece.kept) for _, piece in judged) >= ENOUGH_KEPT:
            break
        if hooks.should_stop():
            raise Interrupted("stopped while refining the model")
        try:
            loaded = hooks.loader(micrograph)
        except ImageError as err:
            logger.debug("not learned from: %s", err)
            continue
        diameter_px = settings.diameter_A / loaded.pixel_size_A
        if is_detectable(diameter_px, loaded.image.shape):
            image = with_dark_particles(loaded.image, settings.contrast == "bright")
            picks = selection.kept_in(micrograph.uid), selection.dropped_in(micrograph.uid)
            judged.append((micrograph, JudgedMicrograph.cut(image, diameter_px, *picks)))
    if not any(len(piece.kept) for _, piece in judged):
        raise InputError(
            "none of the micrographs with selected particles can be read", remedy="put the micrographs back in place"
        )
    return judged
