"""What may be asked about workers, and the answer to what may not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cryoemmae_plugin.cli import main
from cryoemmae_plugin.device import split_devices
from cryoemmae_plugin.errors import ClusterError, SettingsError, render
from cryoemmae_plugin.run.workers import cluster, engine
from cryoemmae_plugin.run.workers.batch_size import BATCH_S, MAX_BATCH, BatchSizer
from cryoemmae_plugin.run.workers.engine import build_worker_engine, needs_workers
from cryoemmae_plugin.settings import ONE_PROCESS, ExecutorOptions, PickerSettings
from cryoemmae_plugin.terminal.options import OPTIONS


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"workers": 0}, "--workers is 0"),
        ({"scheduler": "tcp://host:8786"}, "give --executor dask too"),
        ({"executor": "dask"}, "give the address of a --scheduler"),
        ({"executor": "dask", "scheduler": "host"}, "--scheduler is 'host'"),
        ({"executor": "dask", "scheduler": "slurm"}, "jobs to start with --workers"),
        (
            {"executor": "dask", "workers": 2, "slurm_partition": "gpu"},
            "is 'gpu'; give --executor dask and",
        ),
        ({"worker_memory": "lots"}, "--worker-memory is 'lots'"),
        ({"executor": "dask", "scheduler": "slurm", "workers": 1, "slurm_options": "-p gpu"}, "'-p'"),
        ({"executor": "spark"}, "--executor is 'spark'"),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        ExecutorOptions(**values)
    assert message in render(caught.value, OPTIONS)


def test_options_of_sbatch_are_written_with_and_without_dashes() -> None:
    words = "gres=gpu:1;--constraint=a100 exclusive"
    options = ExecutorOptions(executor="dask", scheduler="slurm", workers=2, slurm_options=words)
    assert options.sbatch_options() == ["--gres=gpu:1", "--constraint=a100", "--exclusive"]


def test_a_job_of_slurm_asks_for_what_was_asked_for(tmp_path: Path) -> None:
    dask = pytest.importorskip("dask", reason="dask is not installed")
    dask_jobqueue = pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    options = ExecutorOptions(
        executor="dask", scheduler="slurm", workers=2, worker_memory="8GB", slurm_partition="gpu", slurm_options="x=1"
    )
    with dask.config.set({"jobqueue.slurm.job-script-prologue": ["module load cuda"]}):
        job = cluster._slurm_job(options, 6, tmp_path)
    job.pop("scheduler_options")
    script = dask_jobqueue.slurm.SLURMJob(scheduler="tls://host:1", name="0", **job).job_script()
    lines = {line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")}
    assert {"-p gpu", "--cpus-per-task=6", "--mem=8G", "--x=1"} <= lines
    assert not any(line.startswith("-t ") for line in lines), "the partition's own time limit"
    assert "--nthreads 1" in script
    before = script.splitlines()
    assert before.index("module load cuda") < before.index("export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False")


@pytest.mark.parametrize(
    ("options", "device", "needed"),
    [
        ({}, "auto", False),
        ({"workers": 1}, "cuda:0", False),
        ({"workers": 2}, "cpu", True),
        ({}, "cuda:0,1", True),
        ({"executor": "dask", "workers": 1}, "cpu", True),
    ],
)
def test_workers_are_started_only_where_they_are_needed(options: dict[str, Any], device: str, needed: bool) -> None:
    assert needs_workers(ExecutorOptions(**options), device) is needed


def test_devices_are_split_into_single_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    assert split_devices("cuda:0,2,2") == ["cuda:0", "cuda:2"]
    assert split_devices("auto") == ["auto"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert split_devices("cuda") == ["cuda:0", "cuda:1", "cuda:2"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert split_devices("cuda") == ["cuda"]


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> PickerSettings:
    pytest.importorskip("distributed", reason="dask is not installed")
    monkeypatch.setattr(engine, "usable_cores", lambda: 8)
    return PickerSettings(diameter_A=20.0, model=str(tiny_model))


def test_local_workers_share_the_cores_unless_asked_otherwise(eight_cores: PickerSettings) -> None:
    def threads(workers: int, asked: int = 0) -> int:
        return build_worker_engine(eight_cores, "cpu", asked, ExecutorOptions(workers=workers)).threads

    assert [threads(2), threads(3), threads(20), threads(4, asked=5)] == [4, 2, 1, 5]


def test_workers_are_spread_over_the_gpus(eight_cores: PickerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)

    def gpus(device: str, **options: Any) -> list[int | None]:
        return list(build_worker_engine(eight_cores, device, 0, ExecutorOptions(**options)).gpus)

    assert gpus("cuda:1,3") == [1, 3]
    assert gpus("cuda:1,3", workers=5) == [1, 3, 1, 3, 1]
    assert gpus("auto", workers=4) == gpus("cuda") == [0, 1, 2, 3]
    assert gpus("cuda:2", workers=2) == [2, 2]
    assert gpus("cpu", workers=2) == [None, None]


def test_a_worker_sees_its_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert cluster._visible(1) == {"CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert cluster._visible(1) == {"CUDA_VISIBLE_DEVICES": "7"}
    assert cluster._visible(None) == {}


def test_without_dask_the_way_to_it_is_named(
    folder_of_six: Path,
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    words = ["--diameter", "20", "--workers", "2", "--model", str(tiny_model), "--out", str(tmp_path / "out")]
    assert main(["pick", str(folder_of_six), *words]) == 1
    assert "pip install 'cryoemmae[cluster]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_slurm_needs_sbatch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cluster.shutil, "which", lambda name: None)
    options = ExecutorOptions(executor="dask", scheduler="slurm", workers=1)
    with pytest.raises(ClusterError, match="no sbatch here"), cluster.slurm_workers(options, 1, tmp_path):
        pass


def test_batches_grow_with_speed_and_shrink_towards_the_end() -> None:
    def sizes(seconds_each: float) -> Callable[[int], int]:
        sizer = BatchSizer()
        assert sizer.next(1000, 2) == 1
        sizer.add(2, 2 * seconds_each)
        return lambda remaining: sizer.next(remaining, 2)

    assert sizes(BATCH_S)(1000) == sizes(100)(1000) == 1
    assert sizes(BATCH_S / 8)(1000) == 8
    assert sizes(0.001)(1000) == MAX_BATCH
    assert [sizes(0.001)(remaining) for remaining in (40, 12, 5, 1)] == [10, 3, 2, 1]


def test_the_default_is_this_process() -> None:
    assert ExecutorOptions() == ONE_PROCESS
    assert ONE_PROCESS.executor == "local"
