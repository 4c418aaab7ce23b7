"""``--diameter auto``: which micrographs are asked, what is kept, and when a number is used as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cryoemmae_plugin.core.diameter import DiameterEstimate
from cryoemmae_plugin.errors import CannotTellError, ImageError, StoreError
from cryoemmae_plugin.run import diameter as module
from cryoemmae_plugin.run.diameter import NOTE_FILE, SAMPLE, account_for, evenly_spread, read_note, settle_diameter
from cryoemmae_plugin.run.prefetch import Loaded
from cryoemmae_plugin.run.store import ResultStore, RunRecord
from cryoemmae_plugin.settings import RequestedSettings, make_settings, request_settings
from cryoemmae_plugin.types import Micrograph

AUTO = request_settings(diameter_A="auto")
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


def settle(folder: Path, asked: RequestedSettings = AUTO, count: int = 20, **options: object) -> tuple[float, Reader]:
    reader = options.pop("loader", None) or Reader()
    settings = settle_diameter(asked, micrographs(count), folder, loader=reader, **options)  # type: ignore[arg-type]
    return settings.diameter_A, reader  # type: ignore[return-value]


def test_a_number_is_used_as_it_is_and_nothing_is_read(tmp_path: Path) -> None:
    diameter, reader = settle(tmp_path, request_settings(diameter_A=143.5))
    assert diameter == 143.5
    assert reader.read == []
    assert account_for(tmp_path, 143.5) == {"estimated": False}


def test_eight_micrographs_evenly_over_the_list_are_looked_at(tmp_path: Path, answer: list[float]) -> None:
    diameter, reader = settle(tmp_path, count=100)
    assert diameter == 187.0
    sample = [m.uid for m in evenly_spread(micrographs(100), SAMPLE)]
    assert reader.read == 2 * sample  # for the scan, then for the averages
    assert (sample[0], sample[-1], len(sample)) == ("m00", "m99", SAMPLE)
    assert [m.uid for m in evenly_spread(micrographs(3), SAMPLE)] == ["m00", "m01", "m02"]


def test_what_was_found_is_said_and_kept_with_the_files_it_comes_from(tmp_path: Path, answer: list[float]) -> None:
    told: list[str] = []
    settle(tmp_path, count=4, tell=told.append, loader=Reader(broken=("m02",)))
    assert "187 Å, give or take 9%" in told[0]
    assert (
        "321 particles of this size stand out in 3 micrographs; seen half as well or better from 150 to 175" in told[0]
    )
    assert "--diameter" in told[0]
    account = account_for(tmp_path, 187.0)
    assert account["estimated"] is True
    assert account["micrographs"] == ["m00.mrc", "m01.mrc", "m03.mrc"]
    assert account["left_out"] == ["m02.mrc: the file is empty; copy it again"]
    assert account_for(tmp_path, 200.0) == {"estimated": False}


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
    other = request_settings(diameter_A="auto", contrast="bright")
    assert settle(tmp_path, other)[0] == 160.0  # the store is going to refuse
    assert settle(tmp_path, other, renew=True)[0] == 187.0  # it is going to throw the results away
    assert settle(tmp_path, renew=True)[0] == 160.0


def picked_with(folder: Path, diameter_A: float) -> None:
    """Leave a result of another run in a folder."""
    record = RunRecord(version="0", model_name="m", model_sha256="0", settings=make_settings(diameter_A=diameter_A))
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
    assert settle(tmp_path, request_settings(diameter_A="auto", contrast="bright"))[0] == 250.0
    answer.append(300.0)
    assert settle(tmp_path, request_settings(diameter_A="auto", contrast="bright", pixel_size_A=3.0))[0] == 300.0
    answer.append(350.0)
    assert settle(tmp_path, anew=True)[0] == 350.0
    settle(tmp_path, request_settings(diameter_A=99), anew=True)
    assert not (tmp_path / NOTE_FILE).exists()


def test_micrographs_that_cannot_be_read_are_no_reason_to_guess(tmp_path: Path) -> None:
    with pytest.raises(CannotTellError, match=r"none of 2 micrographs.*m00\.mrc: the file is empty"):
        settle(tmp_path, count=2, loader=Reader(broken=("m00", "m01")))
    assert not (tmp_path / NOTE_FILE).exists()


def test_noise_is_told_from_particles_and_the_way_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotTellError, match="--diameter"):
        settle(tmp_path, count=3)


def test_a_broken_note_says_so(tmp_path: Path) -> None:
    (tmp_path / NOTE_FILE).write_text(json.dumps({"diameter_A": "large"}))
    with pytest.raises(StoreError, match=NOTE_FILE):
        read_note(tmp_path)


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
    assert "with --diameter" in error


def test_a_wrong_diameter_is_refused_with_both_ways_to_give_it(
    cryoemmae: Callable[..., int], folder_of_six: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cryoemmae("pick", folder_of_six, "--diameter", "-5", "--out", tmp_path / "out") == 2
    assert "must be greater than 0, or 'auto'" in " ".join(capsys.readouterr().err.split())
