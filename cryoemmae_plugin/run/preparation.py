"""What a run settles before its first micrograph: the diameter, and the adapted or refined model.

Both are kept in one note in the result folder. A later run uses an answer as long as it depends on the same settings
(and, for the model, on the same base model). Otherwise the run settles it again. If the folder has results that the run
must continue (:attr:`Existing.CONTINUE`), these decide. More micrographs change no answer: all micrographs of a folder
are picked with the same diameter and model.

Earlier releases kept two notes, ``diameter.json`` and ``adapted.json``. They are read, and replaced by the one note
when something is settled again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from cryoemmae_plugin.core.groups import Groups
from cryoemmae_plugin.errors import ModelError, SettingsError, StoreError
from cryoemmae_plugin.files import Note, output_error, read_note, write_note
from cryoemmae_plugin.run.adapting import SAMPLE, AdaptationNote, adapt_model
from cryoemmae_plugin.run.adapting import SUFFIX as ADAPTED_SUFFIX
from cryoemmae_plugin.run.class_selection import ClassSelection
from cryoemmae_plugin.run.diameter import DiameterNote, estimate_from
from cryoemmae_plugin.run.hooks import Hooks
from cryoemmae_plugin.run.learning_state import LearningState
from cryoemmae_plugin.run.refining import SUFFIX as REFINED_SUFFIX
from cryoemmae_plugin.run.refining import RefinementNote, refine_model
from cryoemmae_plugin.run.store import Existing, ResultStore, has_results
from cryoemmae_plugin.settings import PickerSettings, RequestedSettings
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.weights import CARD_FILE, load_model, read_card
from cryoemmae_plugin.weights.folder import remove_model

NOTE_FILE = "preparation.json"
MODEL_FOLDER = "model"
EARLIER_NOTES = ("diameter.json", "adapted.json")
"""Notes of earlier releases."""

ESTIMATING_TASK = "Looking for the diameter"
"""Name of the task for observers."""

_REMEDY = ("choose another $out", "start over with $overwrite=yes")


class PreparationNote(Note):
    """What was settled in a result folder; None for what is still open."""

    diameter: DiameterNote | None = None
    adaptation: AdaptationNote | None = None
    refinement: RefinementNote | None = None

    @property
    def made_model(self) -> bool:
        """Whether a run in the folder has made the model there."""
        return self.refinement is not None or (self.adaptation is not None and self.adaptation.adapted)


def read_preparation(folder: Path) -> PreparationNote:
    """Read what was settled in a result folder; empty if nothing was.

    Raises
    ------
    StoreError
        When a note is there and cannot be read.
    """
    note = read_note(folder / NOTE_FILE, PreparationNote, _REMEDY)
    if note is not None:
        return note
    diameter, adaptation = (folder / name for name in EARLIER_NOTES)
    return PreparationNote(
        diameter=read_note(diameter, DiameterNote, _REMEDY),
        adaptation=read_note(adaptation, AdaptationNote, _REMEDY),
    )


def groups_in(folder: Path) -> Groups | None:
    """The groups that the picks of a result folder are in; None where they are not grouped."""
    try:
        made = read_preparation(folder).made_model
        return Groups.from_arrays(load_model(folder / MODEL_FOLDER).arrays) if made else None
    except (ModelError, StoreError):
        return None


def diameter_account(folder: Path, diameter_A: float) -> dict[str, object]:
    """Say for a summary whether a run's diameter was given or estimated, and from what."""
    note = None
    with suppress(StoreError):
        note = read_preparation(folder).diameter
    if note is None or note.diameter_A != diameter_A:
        return {"estimated": False}
    return {"estimated": True} | note.model_dump(mode="json")


def forget_preparation(folder: Path) -> None:
    """Delete the notes and the adapted model that they name, and nothing else."""
    with suppress(StoreError):  # a note that cannot be read names no model
        note = read_preparation(folder)
        if note.made_model:
            remove_model(folder / MODEL_FOLDER)
    LearningState(folder).remove()
    _unlink(folder, NOTE_FILE, *EARLIER_NOTES)


def _is_chosen(home: Path, settings: PickerSettings | RequestedSettings) -> bool:
    """Whether the model to pick with lies where the adapted one goes."""
    return settings.model is not None and os.path.realpath(settings.model) == os.path.realpath(home)


def refuse_to_delete_model(folder: Path, settings: RequestedSettings) -> None:
    """Refuse to start over in a folder whose model the run is to pick with.

    Raises
    ------
    StoreError
        When the model lies in the folder and would be deleted.
    """
    home = folder / MODEL_FOLDER
    if _is_chosen(home, settings) and (home / CARD_FILE).exists():
        raise StoreError(
            f"{home}: starting over would delete the model that you chose",
            remedy="choose another folder with $out, or copy the model elsewhere",
        )


def _refuse_foreign_model(home: Path, settings: PickerSettings, note: PreparationNote) -> None:
    """Refuse to overwrite a model that no run in this folder has made.

    A run that was killed may have left its model without a note; such a model's name says that it is one.
    """
    if not (home / CARD_FILE).exists():
        return
    ours = note.made_model
    if not ours:
        with suppress(ModelError):
            ours = read_card(home).name.endswith((ADAPTED_SUFFIX, REFINED_SUFFIX))
    if not ours or _is_chosen(home, settings):
        raise StoreError(
            f"{home}: holds a model that the new model would replace",
            remedy=("choose another folder with $out", "pick without adapting, with $adapt=no"),
        )


class Preparation:
    """Settles what a run in a folder picks with.

    Parameters
    ----------
    folder : Path
        The result folder, locked.
    existing : Existing
        What the run does with results that are there.
    hooks : Hooks
        The front end's; its observer is told what is settled.

    Raises
    ------
    OutputError
        When an answer cannot be kept.
    StoreError
        When the folder's note cannot be read.
    """

    def __init__(self, folder: Path, existing: Existing, hooks: Hooks) -> None:
        if existing is Existing.REPLACE:
            forget_preparation(folder)
        self._folder, self._existing, self._hooks, self._observer = folder, existing, hooks, hooks.observer

    def settle_diameter(self, asked: RequestedSettings, micrographs: Sequence[Micrograph]) -> PickerSettings:
        """Settings with a number for the diameter: the one asked for, that of the folder, or an estimate.

        Raises
        ------
        CannotTellError
            When the micrographs do not say how large their particles are.
        """
        if asked.diameter_A != "auto":
            return asked.with_diameter(asked.diameter_A)
        known = self._known_diameter(asked)
        if known is not None:
            self._observer.stage(f"Diameter: {known:g} Å, as in {self._folder} before")
            return asked.with_diameter(known)
        self._observer.stage("Estimating the particle diameter from the micrographs")
        progress = partial(self._observer.progress, ESTIMATING_TASK)
        note = estimate_from(micrographs, asked, self._hooks.loader, progress)
        self._keep(diameter=note)
        self._observer.stage(note.describe())
        return asked.with_diameter(note.diameter_A)

    def settle_model(self, settings: PickerSettings, micrographs: Sequence[Micrograph]) -> PickerSettings:
        """Settings whose model is adapted to the micrographs; the same where that is not wanted or not possible.

        Raises
        ------
        Interrupted
            When the front end says that the run should stop.
        """
        if not settings.adapt or settings.mode != "default" or settings.sizes_A:  # a head learns one size
            return settings
        model, home = load_model(settings.model_name), self._folder / MODEL_FOLDER
        note = read_preparation(self._folder).adaptation
        if note is None or not note.has_basis(settings, model):
            if self._must_continue():
                return settings  # the store decides whether this run may continue there
            if len(micrographs) >= SAMPLE:  # with fewer, nothing is adapted
                _refuse_foreign_model(home, settings, read_preparation(self._folder))
            state = LearningState(self._folder)
            note = adapt_model(settings, model, micrographs, home, state, self._hooks)
            if note is not None:
                self._keep(adaptation=note, refinement=None)
            state.remove()
            if note is None:
                return settings  # nothing could be read; picking is going to say why
        elif note.adapted:
            self._observer.stage(f"Picking with the model that was adapted before: {home}")
        return settings.model_copy(update={"model": str(home.absolute())}) if note.adapted else settings

    def settle_refined_model(
        self, settings: PickerSettings, micrographs: Sequence[Micrograph], selection: ClassSelection
    ) -> PickerSettings:
        """Settings whose model is refined by a selection of picks.

        Raises
        ------
        Interrupted
            When the front end says that the run should stop.
        SettingsError
            When the mode has no head that could learn, or there are several sizes.
        """
        if settings.mode != "default":
            raise SettingsError("$mode=paper has no model that can be refined", remedy="pick in default mode")
        if settings.sizes_A:
            raise SettingsError(
                f"picks of several sizes ({', '.join(f'{size:g}' for size in settings.sizes_A)} Å) cannot be refined "
                "together: a model learns one size",
                remedy="pick each size into a folder of its own, and refine that",
            )
        model, home = load_model(settings.model_name), self._folder / MODEL_FOLDER
        before = read_preparation(self._folder)
        if before.refinement is not None and before.refinement.holds_for(settings, model, selection):
            self._observer.stage(f"Picking with the model that was refined before: {home}")
        elif self._must_continue():
            return settings  # the store says whether this run may go on there
        else:
            _refuse_foreign_model(home, settings, before)
            for text in selection.notes:
                self._observer.warning(text)
            state = LearningState(self._folder)
            note = refine_model(settings, model, selection, micrographs, home, state, self._hooks)
            self._keep(refinement=note, adaptation=None)
            state.remove()
        return settings.model_copy(update={"model": str(home.absolute())})

    def _known_diameter(self, asked: RequestedSettings) -> float | None:
        """The diameter that earlier runs in the folder have picked with, or have estimated."""
        if has_results(self._folder) and self._existing is not Existing.REPLACE:
            picked_with = ResultStore.open(self._folder).record.settings
            same = (picked_with.contrast, picked_with.pixel_size_A) == (asked.contrast, asked.pixel_size_A)
            return picked_with.diameter_A if same or self._must_continue() else None
        note = read_preparation(self._folder).diameter
        return note.diameter_A if note is not None and note.holds_for(asked) else None

    def _must_continue(self) -> bool:
        return self._existing is Existing.CONTINUE and has_results(self._folder)

    def _keep(self, **answer: Note | None) -> None:
        """Add an answer to the note; the other answer stays."""
        write_note(self._folder / NOTE_FILE, read_preparation(self._folder).model_copy(update=answer))
        _unlink(self._folder, *EARLIER_NOTES)


def _unlink(folder: Path, *names: str) -> None:
    try:
        for name in names:
            (folder / name).unlink(missing_ok=True)
    except OSError as err:
        raise output_error(folder, err) from err
