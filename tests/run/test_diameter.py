"""``--diameter auto``: which micrographs are asked, what is kept, and when a number is used as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cryoemmae_plugin.core.diameter import DiameterEstimate, LikelyParticles
from cryoemmae_plugin.errors import CannotTellError, ImageError, StoreError
from cryoemmae_plugin.run import diameter as module
from cryoemmae_plugin.run.diameter import SAMPLE
from cryoemmae_plugin.run.hooks import Hooks
from cryoemmae_plugin.run.inputs import evenly_spread
from cryoemmae_plugin.run.observer import Observer
from cryoemmae_plugin.run.prefetch import Loaded
from cryoemmae_plugin.run.preparation import EARLIER_NOTES, NOTE_FILE, Preparation, diameter_account, read_preparation
from cryoemmae_plugin.run.store import Existing, ResultStore, RunRecord
from cryoemmae_plugin.settings import PickerSettings, RequestedSettings
from cryoemmae_plugin.types import Micrograph

AUTO = RequestedSettings(diameter_A="auto")
Reading = Callable[[Micrograph], Loaded]


def micrographs(count: int) -> list[Micrograph]:
    return [Micrograph(Path(f"m{i:02d}.mrc"), 2.0, f"m{i:02d}") for i in range(count)]


class Reader:
    """Reads noise, and remembers of which micrographs; those in `broken` cannot be read."""

    def __init__(self, broken: tuple[str, ...] = ()) -> None:
        self.read: list[str] = []
        self._broken = broken

    def __call__(self, micrograph: Micrograph) -> Loaded:
        if micrograph.uid in self._broken:
            raise ImageError(f"{micrograph.path}: the file is empty; copy it again")
        self.read.append(micrograph.uid)
        noise = np.random.default_rng(len(self.read)).normal(size=(80, 80)).astype(np.float32)
        return Loaded(noise, 2.0, 1, 0.0)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the micrographs say, instead of what they show; the last one asked for."""
    answers = [187.4]
    curve = ((100.0, 0.2), (150.0, 0.6), (175.0, 1.0), (300.0, 0.1))
    monkeypatch.setattr(
        module,
        "estimate_diameter",
        lambda scans: DiameterEstimate(answers[-1], 0.09, 321, curve),
    )
    return answers


class Listener(Observer):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def stage(self, text: str) -> None:
        self.told.append(text)


def settle(
    folder: Path,
    asked: RequestedSettings = AUTO,
    count: int = 20,
    existing: Existing = Existing.CONTINUE,
    *,
    reader: Reader | None = None,
    observer: Observer | None = None,
) -> tuple[float, Reader]:
    reader = reader or Reader()
    preparation = Preparation(folder, existing, Hooks(observer or Observer(), reader))
    return preparation.settle_diameter(asked, micrographs(count)).diameter_A, reader


def test_a_number_is_used_as_it_is_and_nothing_is_read(tmp_path: Path) -> None:
    diameter, reader = settle(tmp_path, RequestedSettings(diameter_A=143.5))
    assert diameter == 143.5
    assert reader.read == []
    assert diameter_account(tmp_path, 143.5) == {"estimated": False}


def test_eight_micrographs_evenly_over_the_list_are_looked_at(tmp_path: Path, answer: list[float]) -> None:
    diameter, reader = settle(tmp_path, count=100)
    assert diameter == 187.0
    sample = [m.uid for m in evenly_spread(micrographs(100), SAMPLE)]
    assert reader.read == sample  # once, though each is looked at four times
    assert (sample[0], sample[-1], len(sample)) == ("m00", "m99", SAMPLE)
    assert [m.uid for m in evenly_spread(micrographs(3), SAMPLE)] == ["m00", "m01", "m02"]


def test_the_middle_of_a_large_micrograph_is_looked_at_again_without_being_read_again(
    tmp_path: Path, answer: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_PX", 50)
    shapes: list[tuple[int, ...]] = []

    def look(image: NDArray[np.float32], *_: object, **__: object) -> LikelyParticles:
        shapes.append(image.shape)
        return LikelyParticles(np.zeros((9, 49, 49), np.float32), 100.0)

    monkeypatch.setattr(module, "likely_particles", look)
    settle(tmp_path, count=2)
    assert shapes == [(50, 50)] * 6


@pytest.mark.parametrize(("seen", "found"), [((50, 42, 40), 260.0), ((50, 50, 30), 220.0), ((50, 30, 0), 187.0)])
def test_a_measured_diameter_at_which_particles_are_lost_is_dropped(
    seen: tuple[int, ...], found: float, tmp_path: Path, answer: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, measured = iter(seen), iter([220.0, 240.0, 260.0])
    monkeypatch.setattr(
        module,
        "likely_particles",
        lambda *_, **__: LikelyParticles(np.zeros((next(counts), 49, 49), np.float32), 100.0),
    )
    monkeypatch.setattr(
        "cryoemmae_plugin.core.diameter.refine_diameter",
        lambda estimate, patches: replace(estimate, diameter_A=next(measured)),
    )
    assert settle(tmp_path, count=1)[0] == found


def test_what_was_found_is_said_and_kept_with_the_files_it_comes_from(tmp_path: Path, answer: list[float]) -> None:
    listener = Listener()
    settle(tmp_path, count=4, observer=listener, reader=Reader(broken=("m02",)))
    _, told = listener.told
    assert "187 Å, give or take 9%" in told
    assert "321 particles of this size stand out in 3 micrographs" in told
    assert "from 150 to 175 Å" in told
    account = diameter_account(tmp_path, 187.0)
    assert account["estimated"] is True
    assert account["micrographs"] == ["m00.mrc", "m01.mrc", "m03.mrc"]
    assert account["left_out"] == ["m02.mrc: the file is empty; copy it again"]
    assert diameter_account(tmp_path, 200.0) == {"estimated": False}


def test_a_later_run_in_the_folder_keeps_the_number_also_when_other_micrographs_have_come(
    tmp_path: Path, answer: list[float]
) -> None:
    settle(tmp_path, count=4)
    answer.append(250.0)
    diameter, reader = settle(tmp_path, count=50)
    assert diameter == 187.0
    assert reader.read == []


def test_the_number_that_results_were_made_with_goes_before_an_estimate(tmp_path: Path, answer: list[float]) -> None:
    picked_with(tmp_path, 160.0)
    assert settle(tmp_path)[0] == 160.0
    other = RequestedSettings(diameter_A="auto", contrast="bright")
    assert settle(tmp_path, other)[0] == 160.0  # the store is going to refuse
    assert settle(tmp_path, other, existing=Existing.RENEW)[0] == 187.0  # it is going to throw the results away
    assert settle(tmp_path, existing=Existing.RENEW)[0] == 160.0


def picked_with(folder: Path, diameter_A: float) -> None:
    """Leave a result of another run in a folder."""
    record = RunRecord(version="0", model_name="m", model_sha256="0", settings=PickerSettings(diameter_A=diameter_A))
    with ResultStore.create(folder, record) as store:
        store.path_of("m00").parent.mkdir()
        store.path_of("m00").touch()


def test_results_of_something_else_do_not_count(tmp_path: Path, answer: list[float]) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mine.star").write_text("data_mine\n")
    assert settle(tmp_path)[0] == 187.0


def test_settings_of_a_run_that_has_picked_nothing_do_not_count(tmp_path: Path, answer: list[float]) -> None:
    picked_with(tmp_path, 160.0)
    (tmp_path / "results" / "m00.star").unlink()
    assert settle(tmp_path)[0] == 187.0


def test_the_estimate_is_made_anew_on_request_or_when_contrast_or_pixel_size_are_others(
    tmp_path: Path, answer: list[float]
) -> None:
    settle(tmp_path)
    answer.append(250.0)
    assert settle(tmp_path, RequestedSettings(diameter_A="auto", contrast="bright"))[0] == 250.0
    answer.append(300.0)
    assert settle(tmp_path, RequestedSettings(diameter_A="auto", contrast="bright", pixel_size_A=3.0))[0] == 300.0
    answer.append(350.0)
    assert settle(tmp_path, existing=Existing.REPLACE)[0] == 350.0
    settle(tmp_path, RequestedSettings(diameter_A=99), existing=Existing.REPLACE)
    assert not (tmp_path / NOTE_FILE).exists()


def test_micrographs_that_cannot_be_read_are_no_reason_to_guess(tmp_path: Path) -> None:
    with pytest.raises(CannotTellError, match=r"none of 2 micrographs.*m00\.mrc: the file is empty"):
        settle(tmp_path, count=2, reader=Reader(broken=("m00", "m01")))
    assert not (tmp_path / NOTE_FILE).exists()


def test_noise_is_told_from_particles_and_the_way_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotTellError, match="diameter_A"):
        settle(tmp_path, count=3)


def test_a_broken_note_says_so(tmp_path: Path) -> None:
    for name, content in ((EARLIER_NOTES[0], {"diameter_A": "large"}), (NOTE_FILE, {"diameter": "large"})):
        (tmp_path / name).write_text(json.dumps(content))
        with pytest.raises(StoreError, match=name):
            read_preparation(tmp_path)


def test_starting_over_estimates_again_also_where_there_are_results(tmp_path: Path, answer: list[float]) -> None:
    picked_with(tmp_path, 160.0)
    assert settle(tmp_path, existing=Existing.REPLACE)[0] == 187.0


def test_notes_of_the_release_before_hold_and_are_replaced_by_the_one_note(tmp_path: Path, answer: list[float]) -> None:
    settle(tmp_path)
    note = json.loads((tmp_path / NOTE_FILE).read_text())
    (tmp_path / NOTE_FILE).unlink()
    (tmp_path / EARLIER_NOTES[0]).write_text(json.dumps(note["diameter"] | {"diameter_A": 123.0}))
    assert settle(tmp_path)[0] == 123.0
    assert settle(tmp_path, RequestedSettings(diameter_A="auto", contrast="bright"))[0] == 187.0
    assert [path.name for path in tmp_path.iterdir()] == [NOTE_FILE]


def test_pick_auto_resumes_with_the_number_of_before_and_tells_in_the_summary_where_it_comes_from(
    cryoemmae: Callable[..., int],
    folder_of_six: Path,
    tmp_path: Path,
    answer: list[float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    answer.append(41.0)
    assert cryoemmae("pick", folder_of_six, "--diameter", "auto", "--out", out) == 0
    assert "Estimated diameter: 41 Å" in capsys.readouterr().out
    told = json.loads((out / "summary.json").read_text())
    assert told["settings"]["diameter_A"] == 41.0
    assert told["diameter"]["estimated"] is True
    assert len(told["diameter"]["micrographs"]) == 6
    answer.append(77.0)
    assert cryoemmae("pick", folder_of_six, "--diameter", "auto", "--out", out) == 0
    said = capsys.readouterr().out
    assert "Diameter: 41 Å" in said
    assert "6 were done before and are skipped" in said
    assert cryoemmae("pick", folder_of_six, "--diameter", 41, "--out", out) == 0
    assert cryoemmae("pick", folder_of_six, "--diameter", 77, "--out", out) == 1, "other results are not mixed in"


def test_pick_auto_ends_as_wrong_usage_where_nothing_can_be_told(
    cryoemmae: Callable[..., int], folder_of_six: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cryoemmae("pick", folder_of_six, "--diameter", "auto", "--out", tmp_path / "out") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "no particles stand out in 6 micrographs" in error
    assert "--diameter" in error


def test_a_wrong_diameter_is_refused_with_both_ways_to_give_it(
    cryoemmae: Callable[..., int], folder_of_six: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cryoemmae("pick", folder_of_six, "--diameter", "-5", "--out", tmp_path / "out") == 2
    assert "must be greater than 0, or 'auto'" in " ".join(capsys.readouterr().err.split())
