"""The picking service as a front end sees it: what it is asked for, what it tells, and in which order it works."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from cryoemmae_plugin.errors import ImageError, InputError, Interrupted
from cryoemmae_plugin.run.inputs import find_micrographs
from cryoemmae_plugin.run.observer import Observer
from cryoemmae_plugin.run.outputs import Totals
from cryoemmae_plugin.run.prefetch import load
from cryoemmae_plugin.run.request import NO_OUTPUTS, Outputs, RunRequest
from cryoemmae_plugin.run.service import Run, run_picking
from cryoemmae_plugin.run.store import alone_in
from cryoemmae_plugin.run.stream import MicrographResult
from cryoemmae_plugin.settings import RequestedSettings
from cryoemmae_plugin.types import Micrograph

SETTINGS = RequestedSettings(diameter_A=20.0, adapt=False)


class Diary(Observer):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.picks: dict[str, int] = {}

    def ready(self, run: Run) -> None:
        self.heard.append(f"ready {len(run.pending)}")

    def micrograph(self, run: Run, outcome: MicrographResult, picks: int) -> None:
        self.heard.append(outcome.micrograph.uid)
        self.picks[outcome.micrograph.uid] = picks

    def done(self, run: Run) -> None:
        self.heard.append("done")


@pytest.fixture
def micrographs(folder_of_six: Path) -> list[Micrograph]:
    return find_micrographs([folder_of_six])


@pytest.fixture
def pick(fake_engine: ModuleType, tmp_path: Path) -> Callable[..., Run]:
    """A run with the stand-in for the network, into tmp_path/out."""

    def run(
        micrographs: list[Micrograph], observer: Observer | None = None, outputs: Outputs = NO_OUTPUTS, **more: object
    ) -> Run:
        request = RunRequest(SETTINGS, tmp_path / "out", outputs=outputs)
        factory = fake_engine.fake_build_engine
        return run_picking(request, micrographs, observer or Diary(), engine_factory=factory, **more)  # type: ignore[arg-type]

    return run


def summary(folder: Path) -> dict[str, object]:
    told: dict[str, object] = json.loads((folder / "out" / "summary.json").read_text())
    return told


def test_an_observer_hears_everything_in_order(
    pick: Callable[..., Run], micrographs: list[Micrograph], tmp_path: Path
) -> None:
    diary = Diary()
    run = pick(micrographs, diary)
    assert diary.heard == ["ready 6", *(f"mic_{i}" for i in range(6)), "done"]
    assert diary.picks["mic_0"] == 0
    assert sum(diary.picks.values()) == sum(len(run.selection.picks(result)) for result in run.store)
    assert (run.counts.picked, run.counts.empty) == (5, 1)
    again = Diary()
    pick(micrographs, again)
    assert again.heard == ["ready 0", "done"]


def test_a_front_end_with_files_of_its_own_gets_the_summary_and_no_tables(
    pick: Callable[..., Run], micrographs: list[Micrograph], tmp_path: Path
) -> None:
    def finish(run: Run) -> None:
        assert summary(tmp_path)["status"] == "running"
        with pytest.raises(Exception, match="another run"), alone_in(tmp_path / "out"):
            pass
        run.totals = Totals(picked=5, empty=1, picks=99)

    pick(micrographs, finishers=[finish])
    told = summary(tmp_path)
    assert told["status"] == "done"
    assert told["total"] == {"picked": 5, "empty": 1, "picks": 99}
    assert told["timings"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name != ".lock") == [
        "results",
        "settings.json",
        "summary.csv",
        "summary.json",
        "summary.star",
    ]


def test_a_finisher_that_fails_makes_the_run_a_failed_one(
    pick: Callable[..., Run], micrographs: list[Micrograph], tmp_path: Path
) -> None:
    def finish(run: Run) -> None:
        raise ImageError("all micrographs failed")

    with pytest.raises(ImageError):
        pick(micrographs, finishers=[finish])
    assert summary(tmp_path)["status"] == "failed"


def test_a_stop_keeps_what_is_done_and_calls_no_finisher(
    pick: Callable[..., Run], micrographs: list[Micrograph], tmp_path: Path
) -> None:
    diary, asked = Diary(), iter(range(100))
    with pytest.raises(Interrupted):
        pick(micrographs, diary, Outputs(), stop=lambda: next(asked) > 4, finishers=[lambda run: pytest.fail("called")])
    assert summary(tmp_path)["status"] == "interrupted"
    assert summary(tmp_path)["run"]["remaining"] > 0  # type: ignore[index]
    assert (tmp_path / "out" / "picks.star").exists()
    assert diary.heard[-1] == "done"


def test_a_stop_before_the_first_micrograph_leaves_no_folder(
    pick: Callable[..., Run], micrographs: list[Micrograph], tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        pick(micrographs, stop=lambda: True)
    assert not (tmp_path / "out").exists()


def test_workers_do_not_get_files_that_only_a_loader_can_bring(micrographs: list[Micrograph], tmp_path: Path) -> None:
    class Workers:
        model_name, model_sha256, device = "fake", "f" * 64, "2 workers"

        def pick(self, *arguments: object, **more: object) -> object:
            return iter(())

    elsewhere = [*micrographs, Micrograph(tmp_path / "elsewhere.mrc", 2.0, "elsewhere")]
    request = RunRequest(SETTINGS, tmp_path / "out", outputs=NO_OUTPUTS)
    with pytest.raises(InputError, match=r"elsewhere\.mrc: not in sight here \(1 of 7"):
        run_picking(
            request,
            elsewhere,
            Observer(),
            loader=lambda micrograph: load(micrograph),
            engine_factory=lambda settings, request: Workers(),  # type: ignore[arg-type,return-value]
        )
