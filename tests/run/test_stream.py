"""Micrographs one after the other: in order, with bounded memory, and past those that fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cryoemmae_plugin.errors import DeviceError, Interrupted
from cryoemmae_plugin.run.inputs import find_micrographs
from cryoemmae_plugin.run.store import ResultStore, RunRecord
from cryoemmae_plugin.run.stream import Loaded, pick_micrographs
from cryoemmae_plugin.types import Micrograph, Picks


@pytest.fixture
def store(tmp_path: Path, record: RunRecord) -> ResultStore:
    return ResultStore.create(tmp_path / "out", record)


def listed(n: int) -> list[Micrograph]:
    return [Micrograph(Path(f"m{i}.mrc"), None, f"m{i}") for i in range(n)]


@pytest.mark.parametrize("jobs", [1, 3, 16])
def test_results_come_in_order_whatever_the_number_of_readers(
    store: ResultStore, fake_engine: ModuleType, jobs: int
) -> None:
    rng = np.random.default_rng(jobs)

    def loader(micrograph: Micrograph) -> Loaded:
        time.sleep(float(rng.random()) * 0.01)
        return Loaded(np.full((4, 4), int(micrograph.uid[1:]), np.float32), 1.0, 1, 0.0)

    outcomes = list(pick_micrographs(listed(12), fake_engine.FakePicker(), store, jobs=jobs, loader=loader))
    assert [o.micrograph.uid for o in outcomes] == [f"m{i}" for i in range(12)]
    assert [len(o.result.picks) for o in outcomes if o.result] == list(range(12))
    assert set(outcomes[0].seconds) == {"read", "fake", "write", "wait"}


def test_reading_ahead_is_bounded(store: ResultStore, fake_engine: ModuleType) -> None:
    jobs, alive, most = 3, 0, 0
    lock = threading.Lock()

    class Counted(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            if getattr(self, "counted", False):
                with lock:
                    alive -= 1

    def loader(micrograph: Micrograph) -> Loaded:
        nonlocal alive, most
        image = np.zeros((4, 4), np.float32).view(Counted)
        image.counted = True  # type: ignore[attr-defined]
        with lock:
            alive += 1
            most = max(most, alive)
        return Loaded(image, 1.0, 1, 0.0)

    for _ in pick_micrographs(listed(30), fake_engine.FakePicker(0.002), store, jobs=jobs, loader=loader):
        pass
    assert 2 <= most <= jobs + 1
    assert alive == 0


def test_each_bad_file_is_named_and_the_rest_goes_on(
    store: ResultStore, fake_engine: ModuleType, make_micrograph: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "mics"
    make_micrograph(folder / "a_good.mrc", 3)
    whole = make_micrograph(folder / "b_short.mrc").read_bytes()
    (folder / "b_short.mrc").write_bytes(whole[:-100])
    (folder / "c_empty.mrc").touch()
    (folder / "d_text.mrc").write_text("hello " * 1000)
    make_micrograph(folder / "e_bug.mrc", 666)
    make_micrograph(folder / "f_big.mrc", 999)
    make_micrograph(folder / "g_unset.mrc", 3, pixel_size_A=1.0)
    make_micrograph(folder / "h_good.mrc", 4)
    micrographs = [*find_micrographs([folder]), *find_micrographs([folder / "i_gone.mrc"])]
    outcomes = list(pick_micrographs(micrographs, fake_engine.FakePicker(), store))
    assert [o.micrograph.uid[0] for o in outcomes if o.result] == ["a", "h"]
    reasons = {o.micrograph.uid[0]: o.reason for o in outcomes if o.reason}
    assert list(reasons) == list("bcdefgi")
    for outcome in outcomes:
        assert outcome.reason is None or str(outcome.micrograph.path) in outcome.reason
    assert "ZeroDivisionError" in reasons["e"]
    assert "not enough memory" in reasons["f"]
    assert "--pixel-size" in reasons["g"]
    assert store.pending(micrographs) == [o.micrograph for o in outcomes if o.reason]


def test_what_is_wrong_with_all_micrographs_ends_the_run(store: ResultStore) -> None:
    class Broken:
        def pick(self, image: object, pixel_size_A: float, timer: object = None) -> Picks:
            raise DeviceError("cuda:0 is gone")

    with pytest.raises(DeviceError):
        list(
            pick_micrographs(
                listed(2), Broken(), store, loader=lambda m: Loaded(np.zeros((4, 4), np.float32), 1.0, 1, 0.0)
            )
        )


def test_a_stop_is_heeded_between_two_micrographs(store: ResultStore, fake_engine: ModuleType) -> None:
    picker = fake_engine.FakePicker()
    stream = pick_micrographs(
        listed(9),
        picker,
        store,
        should_stop=lambda: len(picker.seen) == 2,
        loader=lambda m: Loaded(np.zeros((4, 4), np.float32), 1.0, 1, 0.0),
    )
    with pytest.raises(Interrupted):
        list(stream)
    assert store.path_of("m1").exists()
    assert not store.path_of("m2").exists()
