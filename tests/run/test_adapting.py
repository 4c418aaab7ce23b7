"""Adapting before picking: when it is done, what is kept, and that later runs in a folder pick with the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cryoemmae_plugin.core.crop_detection import CropDetections
from cryoemmae_plugin.core.head import Head
from cryoemmae_plugin.core.picker import load_head
from cryoemmae_plugin.errors import ImageError, Interrupted, StoreError
from cryoemmae_plugin.run import adapting
from cryoemmae_plugin.run.adapting import SAMPLE
from cryoemmae_plugin.run.hooks import Hooks
from cryoemmae_plugin.run.observer import Observer
from cryoemmae_plugin.run.prefetch import Loaded
from cryoemmae_plugin.run.preparation import (
    EARLIER_NOTES,
    MODEL_FOLDER,
    NOTE_FILE,
    Preparation,
    read_preparation,
    refuse_to_delete_model,
)
from cryoemmae_plugin.run.store import Existing, ResultStore, RunRecord
from cryoemmae_plugin.settings import PickerSettings, RequestedSettings
from cryoemmae_plugin.training import adapt
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.weights import load_model

RECORD = RunRecord(version="0", model_name="m", model_sha256="0", settings=PickerSettings(diameter_A=40))


def micrographs(count: int) -> list[Micrograph]:
    return [Micrograph(Path(f"m{i:02d}.mrc"), 2.0, f"m{i:02d}") for i in range(count)]


class Laboratory(Observer):
    """Stands in for looking and training, which take minutes; remembers what it was asked for."""

    def __init__(self, model: Path) -> None:
        self.model, self.seen, self.trained = model, 0, 0
        self.read: list[str] = []
        self.signs: list[float] = []
        self.broken: tuple[str, ...] = ()
        self.enough, self.shown = True, True
        self.told: list[str] = []

    def stage(self, text: str) -> None:
        self.told.append(text)

    def load(self, micrograph: Micrograph) -> Loaded:
        if micrograph.uid in self.broken:
            raise ImageError(f"{micrograph.path}: the file is empty; copy it again")
        self.read.append(micrograph.uid)
        return Loaded(np.full((200, 260), 7, np.float32), 2.0, 1, 0.0)

    def detect_on_crop(self, image: object, diameter_px: float, head: object, model: object) -> CropDetections:
        self.signs.append(float(image[0, 0]))  # type: ignore[index]
        assert diameter_px == 20
        area = 100.0 if self.shown else 1e4
        return CropDetections(np.zeros((8, 8), np.float32), area, np.zeros((30, 2)), np.full(30, 0.9, np.float32))

    def adapt(self, model: object, head: Head, seen: list[CropDetections], **options: object) -> Head | None:
        self.trained += 1
        self.seen = len(seen)
        return load_head(load_model(self.model)).requires_grad_(False) if self.enough else None

    def settle(
        self,
        folder: Path,
        settings: PickerSettings | None = None,
        count: int = 9,
        existing: Existing = Existing.CONTINUE,
        *,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> str:
        """The model to pick with."""
        settings = settings or self.settings()
        preparation = Preparation(folder, existing, Hooks(self, self.load, should_stop))
        chosen = preparation.settle_model(settings, micrographs(count))
        assert chosen.model_copy(update={"model": None}) == settings.model_copy(update={"model": None})
        return chosen.model_name

    def settings(self, **values: object) -> PickerSettings:
        return PickerSettings(**{"diameter_A": 40.0, "model": str(self.model)} | values)


@pytest.fixture
def lab(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Laboratory:
    lab = Laboratory(tiny_model)
    monkeypatch.setattr(adapting, "detect_on_crop", lab.detect_on_crop)
    monkeypatch.setattr(adapt, "adapt_head", lab.adapt)
    return lab


def test_an_adapted_model_is_kept_in_the_folder_and_says_what_it_is(lab: Laboratory, tmp_path: Path) -> None:
    name = lab.settle(tmp_path)
    assert name == str(tmp_path / MODEL_FOLDER)
    model = load_model(name)
    assert model.card.name == "tiny-adapted"
    assert "150 confident picks in 5 micrographs" in model.card.data
    assert lab.read == ["m00", "m02", "m04", "m06", "m08"]
    assert lab.told[0] == "Adapting tiny to these micrographs; $adapt=no skips this"
    note = read_preparation(tmp_path).adaptation
    assert note is not None
    assert note.adapted
    assert note.base_sha256 == load_model(lab.model).sha256


def test_later_runs_pick_with_it_also_when_more_micrographs_have_come(lab: Laboratory, tmp_path: Path) -> None:
    first = lab.settle(tmp_path)
    sha256 = load_model(first).sha256
    assert lab.settle(tmp_path, count=40) == first
    assert lab.trained == 1
    assert load_model(first).sha256 == sha256
    assert "before" in lab.told[-1]


def test_few_micrographs_or_few_picks_are_not_adapted_to_and_later_runs_keep_to_that(
    lab: Laboratory, tmp_path: Path
) -> None:
    assert lab.settle(tmp_path / "few", count=SAMPLE - 1) == str(lab.model)
    assert (lab.read, lab.trained) == ([], 0)
    assert lab.settle(tmp_path / "few", count=SAMPLE) == str(lab.model)
    lab.enough = lab.shown = False
    assert lab.settle(tmp_path / "faint") == str(lab.model)
    assert "Not adapted" in lab.told[-1]
    lab.enough = lab.shown = True
    assert lab.settle(tmp_path / "faint") == str(lab.model)
    assert lab.trained == 1
    assert not (tmp_path / "faint" / MODEL_FOLDER).exists()


def test_faint_particles_that_nothing_is_learnt_from_are_expected_all_the_same(lab: Laboratory, tmp_path: Path) -> None:
    lab.enough = False
    name = lab.settle(tmp_path)
    assert name == str(tmp_path / MODEL_FOLDER)
    assert "only the test for empty micrographs was adjusted" in lab.told[-1]
    head, before = load_head(load_model(name)), load_head(load_model(lab.model))
    assert float(head.least_density) == pytest.approx(0.5 * 0.27)
    assert all(
        torch.equal(tensor, before.state_dict()[key])
        for key, tensor in head.state_dict().items()
        if key != "least_density"
    )
    assert lab.settle(tmp_path) == name
    assert lab.trained == 1


def test_it_is_left_out_on_request_and_in_paper_mode(lab: Laboratory, tmp_path: Path) -> None:
    for values in ({"adapt": False}, {"mode": "paper"}):
        assert lab.settle(tmp_path, lab.settings(**values)) == str(lab.model)
    assert lab.trained == 0
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_run_is_not_adapted_in_unless_its_results_go(lab: Laboratory, tmp_path: Path) -> None:
    lab.settle(tmp_path)
    with ResultStore.create(tmp_path, RECORD) as store:
        store.path_of("m00").parent.mkdir()
        store.path_of("m00").touch()
    other = lab.settings(contrast="bright")
    assert lab.settle(tmp_path, other) == str(lab.model)
    assert lab.trained == 1
    assert lab.settle(tmp_path, other, existing=Existing.RENEW) == str(tmp_path / MODEL_FOLDER)
    assert lab.trained == 2
    assert lab.signs == [7.0] * 5 + [-7.0] * 5  # bright particles are turned dark
    assert lab.settle(tmp_path, existing=Existing.REPLACE) == str(tmp_path / MODEL_FOLDER)
    assert lab.trained == 3


def test_a_folder_without_any_result_is_nobodys(lab: Laboratory, tmp_path: Path) -> None:
    lab.settle(tmp_path)
    with ResultStore.create(tmp_path, RECORD):
        pass
    assert lab.settle(tmp_path, lab.settings(contrast="bright")) == str(tmp_path / MODEL_FOLDER)
    assert lab.trained == 2


def test_starting_over_forgets_it(lab: Laboratory, tmp_path: Path) -> None:
    lab.settle(tmp_path)
    lab.settle(tmp_path, existing=Existing.REPLACE)
    assert lab.trained == 2
    lab.settle(tmp_path, count=1, existing=Existing.REPLACE)
    assert not (tmp_path / MODEL_FOLDER).exists()


def test_a_folder_called_model_that_is_not_ours_stays(lab: Laboratory, tmp_path: Path) -> None:
    (tmp_path / MODEL_FOLDER).mkdir()
    (tmp_path / MODEL_FOLDER / "thesis.txt").write_text("chapter 1")
    for count in (1, 9, 1):  # the second is adapted to, and the last forgets it
        lab.settle(tmp_path, count=count, existing=Existing.REPLACE)
    assert [path.name for path in (tmp_path / MODEL_FOLDER).iterdir()] == ["thesis.txt"]


def test_a_model_of_ones_own_stays_where_nothing_was_adapted(lab: Laboratory, tmp_path: Path) -> None:
    lab.settle(tmp_path, count=1)  # of one, nothing is learnt
    shutil.copytree(lab.model, tmp_path / MODEL_FOLDER)
    lab.settle(tmp_path, count=1, existing=Existing.REPLACE)
    assert load_model(tmp_path / MODEL_FOLDER).card.name == "tiny"
    (tmp_path / NOTE_FILE).write_text("{")
    lab.settle(tmp_path, count=1, existing=Existing.REPLACE)
    assert load_model(tmp_path / MODEL_FOLDER).card.name == "tiny"


def test_for_micrographs_that_cannot_be_read_others_are_looked_at(lab: Laboratory, tmp_path: Path) -> None:
    lab.broken = ("m02", "m08")
    lab.settle(tmp_path)
    assert lab.seen == SAMPLE
    assert lab.read == ["m00", "m04", "m06", "m01", "m03"]


def test_where_none_can_be_read_nothing_is_decided_yet(lab: Laboratory, tmp_path: Path) -> None:
    lab.broken = tuple(m.uid for m in micrographs(9))  # a disk that is not mounted
    assert lab.settle(tmp_path) == str(lab.model)
    assert not list(tmp_path.iterdir())
    lab.broken = ()
    assert lab.settle(tmp_path) == str(tmp_path / MODEL_FOLDER)


def test_particles_that_the_frame_cannot_hold_are_not_looked_at(lab: Laboratory, tmp_path: Path) -> None:
    assert lab.settle(tmp_path, lab.settings(diameter_A=150.0)) == str(lab.model)
    assert lab.signs == []


def test_an_adapted_model_is_taken_as_it_is(lab: Laboratory, tmp_path: Path) -> None:
    adapted = lab.settle(tmp_path / "first")
    assert lab.settle(tmp_path / "second", lab.settings(model=adapted)) == adapted
    assert lab.told[-1] == "Not adapted: tiny-adapted has been adapted before"
    assert lab.trained == 1


def test_a_stop_leaves_no_model_behind_and_starting_over_forgets_what_was_seen(lab: Laboratory, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        lab.settle(tmp_path, should_stop=lambda: True)
    assert [path.name for path in tmp_path.iterdir()] == ["learning"]
    lab.settle(tmp_path, lab.settings(adapt=False), existing=Existing.REPLACE)
    assert not list(tmp_path.iterdir())


def test_a_note_that_cannot_be_read_is_named(lab: Laboratory, tmp_path: Path) -> None:
    for name, content in ((EARLIER_NOTES[1], {"adapted": "perhaps"}), (NOTE_FILE, {"adaptation": "perhaps"})):
        (tmp_path / name).write_text(json.dumps(content))
        with pytest.raises(StoreError, match=rf"{name}: cannot be read .* start over"):
            lab.settle(tmp_path)


def test_a_note_of_the_release_before_holds(lab: Laboratory, tmp_path: Path) -> None:
    name = lab.settle(tmp_path)
    note = json.loads((tmp_path / NOTE_FILE).read_text())
    (tmp_path / NOTE_FILE).unlink()
    (tmp_path / EARLIER_NOTES[1]).write_text(json.dumps(note["adaptation"]))
    assert lab.settle(tmp_path) == name
    assert lab.trained == 1
    lab.settle(tmp_path, existing=Existing.REPLACE, count=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [NOTE_FILE]


def test_a_model_of_the_users_own_in_the_folder_is_not_replaced(lab: Laboratory, tmp_path: Path) -> None:
    own = tmp_path / MODEL_FOLDER
    shutil.copytree(lab.model, own)
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    for settings in (lab.settings(model=str(own)), lab.settings()):
        with pytest.raises(StoreError, match="holds a model that the new model would replace"):
            lab.settle(tmp_path, settings)
    with pytest.raises(StoreError, match="would delete the model"):
        refuse_to_delete_model(tmp_path, RequestedSettings(diameter_A=40, model=str(own)))
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before
    assert lab.settle(tmp_path, lab.settings(model=str(own), adapt=False)) == str(own)


def test_an_adapted_model_whose_note_was_lost_is_made_again(lab: Laboratory, tmp_path: Path) -> None:
    name = lab.settle(tmp_path)
    (tmp_path / NOTE_FILE).unlink()
    assert lab.settle(tmp_path) == name
    assert lab.trained == 2
