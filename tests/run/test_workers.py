"""Picking on workers that are real processes: equal results, death, poison, mixed versions, Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from cryoemmae_plugin.cli import main
from cryoemmae_plugin.errors import ClusterError, CryoemmaeError, DeviceError, OutputError
from cryoemmae_plugin.run.inputs import find_micrographs
from cryoemmae_plugin.run.store import ResultStore, RunRecord
from cryoemmae_plugin.run.stream import MicrographResult, pick_micrographs
from cryoemmae_plugin.run.workers import cluster, engine
from cryoemmae_plugin.run.workers.engine import WorkerEngine
from cryoemmae_plugin.run.workers.monitor import LOCAL_PATIENCE
from cryoemmae_plugin.settings import ExecutorOptions

pytestmark = pytest.mark.slow
distributed = pytest.importorskip("distributed", reason="dask is not installed")
HELPERS = Path(__file__).with_name("helpers")
sys.path.insert(0, str(HELPERS))

from slurm import NoSlurm, slurm  # noqa: E402
from worker_pickers import BAD_IMAGE, DEADLY, DISK_FULL, NO_GPU_MEMORY, WorkerPicker, make_worker_picker  # noqa: E402

MakeMicrograph = Callable[..., Path]
HIDDEN = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Dask scheduler with two workers, whose present folder is not ours; its address."""
    here = Path.cwd()
    quiet = {"dashboard": False, "host": "127.0.0.1", "silence_logs": logging.CRITICAL}
    options = {"nthreads": 1, "memory_limit": 0, "config": cluster._NO_PROFILE, **quiet}
    nanny = {"cls": distributed.Nanny, "options": options}
    boss = {"cls": distributed.Scheduler, "options": HIDDEN | {"host": "127.0.0.1", "port": 0}}
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    try:
        with cluster._quiet(), distributed.SpecCluster(workers={0: nanny, 1: nanny}, scheduler=boss) as started:
            os.chdir(here)
            yield started.scheduler_address
    finally:
        os.chdir(here)


def engine_at(address: str) -> WorkerEngine:
    options = ExecutorOptions(executor="dask", scheduler=address)
    return WorkerEngine(options, [], "cpu", 1, "fake", "fake", "f" * 64, make_worker_picker)


@pytest.fixture
def pick(scheduler: str, record: RunRecord) -> Callable[..., Iterator[MicrographResult]]:
    """Pick a folder into another with the two workers."""

    def pick(folder: Path, out: Path) -> Iterator[MicrographResult]:
        with ResultStore.create(out, record) as store:
            yield from engine_at(scheduler).pick(store.pending(find_micrographs([folder])), store)

    return pick


def results(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "results").glob("*")}


def picked_here(folder: Path, out: Path, record: RunRecord) -> dict[str, bytes]:
    """What one process makes of a folder."""
    with ResultStore.create(out, record) as store:
        list(pick_micrographs(find_micrographs([folder]), WorkerPicker(), store))
    return results(out)


def slow(path: Path, seconds: float) -> None:
    """Let the stand-in take its time over a micrograph."""
    with path.open("r+b") as file:
        file.seek(1024 + 4)
        file.write(np.float32(seconds).tobytes())


def wait_for_worker(scheduler: str, name: str, there: bool) -> None:
    """Until a scheduler has the worker of a name, or has it no longer; the others may be on their way back."""

    def names(dask_scheduler: Any) -> list[str]:
        return [worker.name for worker in dask_scheduler.workers.values()]

    with distributed.Client(scheduler, set_as_default=False) as client:
        deadline = time.monotonic() + 120
        while (name in client.run_on_scheduler(names)) is not there:
            assert time.monotonic() < deadline, f"the worker {name} does not {'arrive' if there else 'leave'}"
            time.sleep(0.1)


def test_a_worker_killed_in_the_middle_costs_nothing(
    pick: Any, scheduler: str, folder_of_six: Path, tmp_path: Path, record: RunRecord
) -> None:
    for path in folder_of_six.iterdir():
        slow(path, 0.3)
    stream = pick(folder_of_six, tmp_path / "out")
    first = next(stream)
    with distributed.Client(scheduler, set_as_default=False) as client:
        victim = next(iter(client.run(os.getpid).values()))
    os.kill(victim, signal.SIGKILL)
    outcomes = [first, *stream]
    assert [outcome.micrograph.uid for outcome in outcomes] == [f"mic_{index}" for index in range(6)]
    assert [outcome.reason for outcome in outcomes] == [None] * 6
    assert results(tmp_path / "out") == picked_here(folder_of_six, tmp_path / "here", record)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".lock", "results", "settings.json"]


def test_a_micrograph_that_kills_its_worker_is_given_up_and_the_others_are_done(
    pick: Any, folder_of_six: Path, make_micrograph: MakeMicrograph, tmp_path: Path, record: RunRecord
) -> None:
    make_micrograph(folder_of_six / "mic_2.mrc", DEADLY)
    make_micrograph(folder_of_six / "mic_4.mrc", BAD_IMAGE)
    reasons = [outcome.reason or "" for outcome in pick(folder_of_six, tmp_path / "out")]
    assert [bool(reason) for reason in reasons] == [False, False, True, False, True, False]
    assert "mic_2.mrc: given up after 3 attempts" in reasons[2]
    assert "ZeroDivisionError" in reasons[4]
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").iterdir()}
    for index in (2, 4):
        make_micrograph(folder_of_six / f"mic_{index}.mrc", 10 * index)
    again = list(pick(folder_of_six, tmp_path / "out"))
    assert [outcome.micrograph.uid for outcome in again] == ["mic_2", "mic_4"]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert results(tmp_path / "out") == picked_here(folder_of_six, tmp_path / "here", record)


@pytest.mark.parametrize(("fate", "kind"), [(NO_GPU_MEMORY, DeviceError), (DISK_FULL, OutputError)])
def test_what_a_worker_cannot_help_ends_the_run_with_its_host(
    pick: Any, folder_of_six: Path, make_micrograph: MakeMicrograph, tmp_path: Path, fate: int, kind: type[Exception]
) -> None:
    make_micrograph(folder_of_six / "mic_3.mrc", fate)
    with pytest.raises(kind, match="worker on "):
        list(pick(folder_of_six, tmp_path / "out"))


def test_mixed_versions_are_refused_naming_worker_and_version(
    pick: Any, scheduler: str, folder_of_six: Path, tmp_path: Path
) -> None:
    other = tmp_path / "site" / "cryoemmae-9.9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: cryoemmae\nVersion: 9.9.9\n")
    command = [sys.executable, "-m", "distributed.cli.dask_worker", scheduler, "--no-nanny", "--no-dashboard"]
    command += ["--name", "of-another-version"]
    env = os.environ | {"PYTHONPATH": str(other.parent)}
    worker = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_worker(scheduler, "of-another-version", there=True)
        with pytest.raises(ClusterError, match=r"tcp://\S+ has 9\.9\.9"):
            list(pick(folder_of_six, tmp_path / "out"))
    finally:
        worker.terminate()
        worker.wait(30)
    wait_for_worker(scheduler, "of-another-version", there=False)


def test_a_scheduler_that_is_not_there_is_said_and_nothing_is_lost(
    folder_of_six: Path, tmp_path: Path, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 1)
    with (
        ResultStore.create(tmp_path / "out", record) as store,
        pytest.raises(ClusterError, match="no Dask scheduler answers there"),
    ):
        list(engine_at("tcp://127.0.0.1:9").pick(find_micrographs([folder_of_six]), store))


def test_no_worker_within_the_wait_is_said(
    folder_of_six: Path, tmp_path: Path, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryoemmae_plugin.run.workers.monitor.LOOK_S", 0.1)
    boss = {"cls": distributed.Scheduler, "options": HIDDEN | {"host": "127.0.0.1", "port": 0}}
    with cluster._quiet(), distributed.SpecCluster(scheduler=boss) as started:
        options = ExecutorOptions(executor="dask", scheduler=started.scheduler_address, worker_wait=0.01)
        engine = WorkerEngine(options, [], "cpu", 1, "fake", "fake", "f" * 64, make_worker_picker)
        with ResultStore.create(tmp_path / "out", record) as store, pytest.raises(ClusterError, match="no worker for"):
            list(engine.pick(find_micrographs([folder_of_six]), store))


def test_a_worker_that_is_killed_while_it_starts_is_started_again(
    folder_of_six: Path, tmp_path: Path, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying(distributed.Nanny):  # type: ignore[name-defined, misc]
        """Its first process is killed at once."""

        killed = False

        async def instantiate(self) -> Any:
            if Dying.killed:
                return await super().instantiate()
            Dying.killed = True
            starting = asyncio.ensure_future(super().instantiate())
            while self.process is None or self.process.pid is None:
                await asyncio.sleep(0.01)
            os.kill(self.process.pid, signal.SIGKILL)
            return await starting

    monkeypatch.setattr(distributed, "Nanny", Dying)
    with ResultStore.create(tmp_path / "out", record) as store:
        outcomes = list(local_engine(1).pick(find_micrographs([folder_of_six]), store))
    assert Dying.killed
    assert [outcome.reason for outcome in outcomes] == [None] * 6


def local_engine(workers: int) -> WorkerEngine:
    options = ExecutorOptions(workers=workers)
    return WorkerEngine(options, [None] * workers, "cpu", 1, "fake", "fake", "f" * 64, make_worker_picker)


@pytest.mark.parametrize("always", [False, True])
def test_workers_that_die_again_while_they_are_replaced_are_waited_for_or_end_the_run(
    folder_of_six: Path, tmp_path: Path, record: RunRecord, monkeypatch: pytest.MonkeyPatch, always: bool
) -> None:
    class Unlucky(distributed.Nanny):  # type: ignore[name-defined, misc]
        """Its replacements are killed while they start: three of them, or all."""

        pids: ClassVar[list[int]] = []

        async def instantiate(self) -> Any:
            starting = asyncio.ensure_future(super().instantiate())
            while self.process is None or self.process.pid in (None, *Unlucky.pids):
                await asyncio.sleep(0.01)
            Unlucky.pids.append(self.process.pid)
            if len(Unlucky.pids) > 1 and (always or len(Unlucky.pids) <= 4):
                os.kill(self.process.pid, signal.SIGKILL)
            return await starting

    monkeypatch.setattr(distributed, "Nanny", Unlucky)
    monkeypatch.setattr("cryoemmae_plugin.run.workers.monitor.LOOK_S", 0.1)
    if always:
        monkeypatch.setattr(engine, "LOCAL_PATIENCE", replace(LOCAL_PATIENCE, seconds=2.0))
    for path in folder_of_six.iterdir():
        slow(path, 0.5)
    with ResultStore.create(tmp_path / "out", record) as store:
        stream = local_engine(1).pick(find_micrographs([folder_of_six]), store)
        next(stream)
        os.kill(Unlucky.pids[0], signal.SIGKILL)
        if always:
            with pytest.raises(ClusterError, match=r"no worker for .* minutes") as caught:
                list(stream)
            assert "to resume" in str(caught.value)
            assert store.holds(find_micrographs([folder_of_six])[0])
        else:
            assert [outcome.reason for outcome in stream] == [None] * 5
    assert len(Unlucky.pids) > 4


def test_workers_of_this_machine_are_not_profiled_which_can_lock_them() -> None:
    def profiled(dask_worker: Any) -> bool:
        return "profile" in dask_worker.periodic_callbacks

    with cluster.local_workers([None], None) as client:
        assert list(client.run(profiled).values()) == [False]


def test_workers_that_always_die_while_they_start_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dead(distributed.Nanny):  # type: ignore[name-defined, misc]
        async def instantiate(self) -> Any:
            return distributed.core.Status.stopped

    monkeypatch.setattr(distributed, "Nanny", Dead)
    with pytest.raises(ClusterError, match="die while they start"), cluster.local_workers([None], None):
        pass


@pytest.fixture
def noise(tmp_path: Path, make_micrograph: MakeMicrograph, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line that picks four micrographs with a real, tiny model; paths are relative."""
    monkeypatch.chdir(tmp_path)
    for index in range(4):
        make_micrograph(tmp_path / "mics" / f"mic_{index}.mrc", shape=(192, 256), pixel_size_A=4.0)
    return ["pick", "mics", "--diameter", "100", "--mode", "paper", "--threads", "1", "--device", "cpu"]


def everything(out: Path) -> dict[str, bytes]:
    """All of a result folder that must not depend on who picked."""
    return results(out) | {name: (out / name).read_bytes() for name in ("picks.star", "picks.csv")}


def test_one_process_two_processes_and_a_scheduler_make_the_same_files(
    noise: list[str], scheduler: str, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*noise, "--model", str(tiny_model), "--overlays", "1", "--out"]
    with Path("mics/mic_2.mrc").open("ab") as odd:
        odd.write(bytes(7))
    assert main([*command, "one"]) == 0
    assert main([*command, "two", "--workers", "2"]) == 0
    assert main([*command, "dask", "--executor", "dask", "--scheduler", scheduler]) == 0
    assert len(results(Path("one"))) == 4
    assert len(Path("one/picks.csv").read_text().splitlines()) > 10, "there is something to compare"
    assert everything(Path("one")) == everything(Path("two")) == everything(Path("dask"))
    said = capsys.readouterr()
    assert "on 2 workers (the CPU, 1 threads each)" in said.out
    assert f"on the workers of {scheduler}" in said.out
    doubts = said.err.splitlines()
    said_once = "mics/mic_2.mrc: 7 surplus bytes behind the image are ignored"
    assert doubts == [said_once] * 3, "once a run, whoever reads the file"
    assert json.loads(Path("two/summary.json").read_text())["run"]["picked"] == 4


def test_ctrl_c_ends_a_run_with_workers_as_interrupted(
    folder_of_six: Path, tmp_path: Path, tiny_model: Path, make_micrograph: MakeMicrograph
) -> None:
    for index in range(16):
        make_micrograph(tmp_path / "mics" / f"more_{index:02d}.mrc", shape=(800, 1000), pixel_size_A=4.0)
    out = tmp_path / "out"
    words = [
        "pick",
        str(tmp_path / "mics" / "more_*.mrc"),
        "--diameter",
        "100",
        "--out",
        str(out),
        "--overlays",
        "none",
        "--no-adapt",
    ]
    command = [sys.executable, "-m", "cryoemmae_plugin", *words, "--model", str(tiny_model), "--workers", "2"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    run = subprocess.Popen(
        command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while len(list((out / "results").glob("*.star"))) < 2:
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the workers too
    said, complained = run.communicate(timeout=300)
    assert run.returncode == 130, complained
    assert " remain" in said
    assert complained.endswith("To resume, run the same command again.\n")
    assert json.loads((out / "summary.json").read_text())["status"] == "interrupted"
    while _group_lives(run.pid):
        assert time.monotonic() < deadline, "workers outlive their run"
        time.sleep(0.1)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_jobs_of_a_real_slurm_make_the_same_files(
    noise: list[str], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    command = [*noise, "--model", str(tiny_model), "--overlays", "none", "--out"]
    assert main([*command, "one"]) == 0
    asked = ["--executor", "dask", "--scheduler", "slurm", "--workers", "2", "--worker-memory", "2GB"]
    try:
        with slurm(tmp_path / "slurm") as conf:
            monkeypatch.setenv("SLURM_CONF", str(conf))
            assert main([*command, "jobs", *asked, "--slurm-partition", "picking"]) == 0
            assert len(list(Path("jobs/slurm").glob("cryoemmae-*.err"))) >= 2
    except NoSlurm as err:
        pytest.skip(f"no SLURM to test with: {err}")
    assert everything(Path("one")) == everything(Path("jobs"))
    assert not [path for path in Path("jobs/slurm").iterdir() if path.suffix not in (".out", ".err")], "keys stay"


def test_a_folder_that_workers_cannot_reach_is_said(
    scheduler: str, folder_of_six: Path, tmp_path: Path, record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryoemmae_plugin.run.workers.engine.PROBE_FILE", ".another-probe")
    with ResultStore.create(tmp_path / "out", record) as store, pytest.raises(CryoemmaeError, match="does not see the"):
        list(engine_at(scheduler).pick(find_micrographs([folder_of_six]), store))
