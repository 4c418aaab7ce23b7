"""Micrographs one after the other: in order, with bounded memory, and past those that fail."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from cryoemmae_plugin.errors import DeviceError, Interrupted, OutputError
from cryoemmae_plugin.run.inputs import find_micrographs
from cryoemmae_plugin.run.prefetch import Loaded
from cryoemmae_plugin.run.record import Result
from cryoemmae_plugin.run.store import ResultStore, RunRecord
from cryoemmae_plugin.run.stream import UNWRITTEN, pick_micrographs
from cryoemmae_plugin.types import Micrograph, Picks

TELLING_STREAM = Path(__file__).with_name("helpers") / "telling_stream.py"


@pytest.fixture
def store(tmp_path: Path, record: RunRecord) -> ResultStore:
    return ResultStore.create(tmp_path / "out", record)


def listed(n: int) -> list[Micrograph]:
    return [Micrograph(Path(f"m{i}.mrc"), None, f"m{i}") for i in range(n)]


def blank(micrograph: Micrograph) -> Loaded:
    return Loaded(np.zeros((4, 4), np.float32), 1.0, 1, 0.0)


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
    line_break = make_micrograph(folder / "j\n.mrc")
    micrographs.append(Micrograph(line_break, None, "j"))
    outcomes = list(pick_micrographs(micrographs, fake_engine.FakePicker(), store))
    assert [o.micrograph.uid[0] for o in outcomes if o.result] == ["a", "h"]
    reasons = {o.micrograph.uid[0]: o.reason for o in outcomes if o.reason}
    assert list(reasons) == list("bcdefgij")
    for outcome in outcomes:
        assert outcome.reason is None or str(outcome.micrograph.path) in outcome.reason
    assert "ZeroDivisionError" in reasons["e"]
    assert "not enough memory" in reasons["f"]
    assert "$pixel_size_A" in reasons["g"]
    assert "a name with a line break" in reasons["j"]
    assert store.pending(micrographs) == [o.micrograph for o in outcomes if o.reason]


def test_what_is_yielded_is_on_the_disk(store: ResultStore, fake_engine: ModuleType) -> None:
    yielded = 0
    for outcome in pick_micrographs(listed(20), fake_engine.FakePicker(), store, loader=blank):
        assert outcome.result is not None
        assert store.load(outcome.micrograph.uid).micrograph == outcome.result.micrograph
        yielded += 1
    assert yielded == 20


def test_slow_runs_report_a_micrograph_before_the_next_one_is_picked(
    store: ResultStore, fake_engine: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryoemmae_plugin.run.stream.PATIENCE", 1200.0)  # as long as any disk takes
    picker = fake_engine.FakePicker(0.05)
    stream = pick_micrographs(listed(3), picker, store, loader=blank)
    next(stream)
    assert len(picker.seen) == 1
    stream.close()


@pytest.mark.slow
@pytest.mark.parametrize("kill_after", [1, 23])
def test_killed_while_results_wait_nothing_that_was_told_is_lost(
    tmp_path: Path, kill_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(TELLING_STREAM.parent))
    telling = importlib.import_module("telling_stream")
    env = os.environ | {"PYTHONPATH": str(TELLING_STREAM.parents[3])}
    words = [sys.executable, str(TELLING_STREAM), str(tmp_path / "killed")]
    with subprocess.Popen(words, env=env, text=True, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        told = [run.stdout.readline().strip() for _ in range(kill_after)]
        run.kill()
        told += run.stdout.read().split()
    assert run.returncode == -signal.SIGKILL
    micrographs = telling.listed(60)
    with ResultStore.create(tmp_path / "killed", telling.RECORD) as store:
        before = {path: path.stat().st_mtime_ns for path in (store.folder / "results").iterdir()}
        pending = store.pending(micrographs)
        assert not set(told) & {m.uid for m in pending}
        assert len(before) == 60 - len(pending)  # whole ones, and nothing else
        list(pick_micrographs(pending, telling.FakePicker(), store, loader=telling.load))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with ResultStore.create(tmp_path / "whole", telling.RECORD) as store:
        list(pick_micrographs(micrographs, telling.FakePicker(), store, loader=telling.load))
    for micrograph in micrographs:
        name = f"results/{micrograph.uid}.star"
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


class GatedStore:
    """A store whose disk stands still until the gate opens."""

    def __init__(self, store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = threading.Event()
        save = store.save

        def wait_and_save(*args: object) -> Result:
            assert self.gate.wait(60)
            return save(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(store, "save", wait_and_save)


def test_results_that_wait_for_the_disk_are_bounded(
    store: ResultStore, fake_engine: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, picker = GatedStore(store, monkeypatch), fake_engine.FakePicker()
    outcomes: list[str] = []

    def run() -> None:
        stream = pick_micrographs(listed(30), picker, store, loader=blank)
        outcomes.extend(outcome.micrograph.uid for outcome in stream)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 60
    while len(picker.seen) < UNWRITTEN and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)  # time enough for one too many
    assert len(picker.seen) == UNWRITTEN
    assert outcomes == []
    disk.gate.set()
    thread.join()
    assert outcomes == [f"m{i}" for i in range(30)]


def test_a_disk_that_is_full_ends_the_run_and_loses_nothing_else(
    store: ResultStore, fake_engine: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    picker, save, yielded = fake_engine.FakePicker(), store.save, []

    def full(micrograph: Micrograph, *args: object) -> Result:
        if micrograph.uid == "m5":
            raise OutputError("m5.star: no space left")
        return save(micrograph, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "save", full)
    stream = pick_micrographs(listed(100), picker, store, loader=blank)
    with pytest.raises(OutputError, match="no space left"):
        yielded.extend(outcome.micrograph.uid for outcome in stream)
    stored = {path.stem for path in (store.folder / "results").iterdir()}
    assert len(picker.seen) <= 6 + UNWRITTEN
    assert stored == {f"m{i}" for i in range(len(picker.seen))} - {"m5"}


def test_a_run_that_nobody_follows_any_more_keeps_what_it_has_picked(
    store: ResultStore, fake_engine: ModuleType
) -> None:
    picker = fake_engine.FakePicker()
    stream = pick_micrographs(listed(20), picker, store, loader=blank)
    next(stream)
    stream.close()
    assert {path.stem for path in (store.folder / "results").iterdir()} == {f"m{i}" for i in range(len(picker.seen))}


def test_waiting_for_the_reader_and_for_the_disk_is_booked(
    store: ResultStore, fake_engine: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(micrograph: Micrograph) -> Loaded:
        time.sleep(0.05)
        return blank(micrograph)

    reading = pick_micrographs(listed(4), fake_engine.FakePicker(), store, jobs=1, loader=slow)
    assert sum(outcome.seconds["wait"] for outcome in reading) > 0.15
    disk = GatedStore(store, monkeypatch)
    picker = fake_engine.FakePicker()

    def let_go() -> None:
        deadline = time.monotonic() + 60
        while len(picker.seen) < UNWRITTEN and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(1.0)  # while it waits for the disk
        disk.gate.set()

    threading.Thread(target=let_go).start()
    writing = pick_micrographs(listed(UNWRITTEN + 2), picker, store, loader=blank)
    assert sum(outcome.seconds["wait"] for outcome in writing) > 0.1


class CountingTransfer:
    """Stands in for the way to a GPU; counts the images on it, and notes what happens in which order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.staged: set[int] = set()
        self.alive = self.most = 0

    def stage(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        self.staged.add(int(image[0, 0]))
        return image + 0

    def send(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        self.events.append(f"send {image[0, 0]:.0f}")
        return self._copy(image)

    def receive(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        self.events.append(f"receive {image[0, 0]:.0f}")
        return image if isinstance(image, OnDevice) else self._copy(image)

    def _copy(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        copy = image.copy().view(OnDevice)
        copy.transfer = self
        self.alive += 1
        self.most = max(self.most, self.alive)
        return copy


class OnDevice(np.ndarray):
    transfer: CountingTransfer | None = None

    def __del__(self) -> None:
        if self.transfer is not None:
            self.transfer.alive -= 1


def test_the_next_image_is_on_its_way_to_the_device_while_one_is_picked_but_no_more_than_that(
    store: ResultStore, fake_engine: ModuleType
) -> None:
    transfer = CountingTransfer()
    micrographs = [Micrograph(Path(f"m{i}.mrc"), None, f"m{i}") for i in range(8)]

    class Picker:
        def pick(self, image: NDArray[np.float32], pixel_size_A: float, timer: object = None) -> Picks:
            assert isinstance(image, OnDevice)
            transfer.events.append(f"pick {image[0, 0]:.0f}")
            deadline = time.monotonic() + 60
            while int(image[0, 0]) + 2 not in {*transfer.staged, 8, 9} and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.05)  # from read to handed over
            return Picks.none((4, 4))

    def loader(micrograph: Micrograph) -> Loaded:
        return Loaded(np.full((4, 4), int(micrograph.uid[1:]), np.float32), 1.0, 1, 0.0)

    list(pick_micrographs(micrographs, Picker(), store, jobs=4, loader=loader, transfer=transfer))
    assert [event for event in transfer.events if event.startswith("pick")] == [f"pick {i}" for i in range(8)]
    for index in range(2, 8):
        assert transfer.events.index(f"send {index}") < transfer.events.index(f"pick {index - 1}")
        assert transfer.events.index(f"send {index}") > transfer.events.index(f"receive {index - 1}")
    assert transfer.most == 2
    assert transfer.alive == 0


def test_what_is_wrong_with_all_micrographs_ends_the_run(store: ResultStore) -> None:
    class Broken:
        def pick(self, image: object, pixel_size_A: float, timer: object = None) -> Picks:
            raise DeviceError("cuda:0 is gone")

    with pytest.raises(DeviceError):
        list(pick_micrographs(listed(2), Broken(), store, loader=blank))


def test_what_was_picked_before_a_device_broke_is_stored_and_yielded(
    store: ResultStore, fake_engine: ModuleType
) -> None:
    class Breaking:
        def __init__(self) -> None:
            self.left = 7

        def pick(self, image: object, pixel_size_A: float, timer: object = None) -> Picks:
            if not self.left:
                raise DeviceError("cuda:0 is gone")
            self.left -= 1
            return Picks.none((4, 4))

    yielded: list[str] = []
    with pytest.raises(DeviceError):
        yielded.extend(o.micrograph.uid for o in pick_micrographs(listed(20), Breaking(), store, loader=blank))
    assert {path.stem for path in (store.folder / "results").iterdir()} == {f"m{i}" for i in range(7)}


def test_a_stop_is_heeded_between_two_micrographs(store: ResultStore, fake_engine: ModuleType) -> None:
    picker = fake_engine.FakePicker()
    stream = pick_micrographs(
        listed(9),
        picker,
        store,
        should_stop=lambda: len(picker.seen) == 2,
        loader=blank,
    )
    with pytest.raises(Interrupted):
        list(stream)
    assert store.path_of("m1").exists()
    assert not store.path_of("m2").exists()
