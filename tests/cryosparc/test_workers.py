"""A job on several workers: the same particles, and an end in CryoSPARC whatever happens."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ask import pick, request

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.run.engine import build_engine
from cryoemmae_plugin.settings import ExecutorOptions
from cryosparc_job.request import load_request, save_request

pytestmark = pytest.mark.filterwarnings(r"ignore:\*\*\* API client")
distributed = pytest.importorskip("distributed", reason="dask is not installed")


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One CPU thread here and in each of two workers: sums of floats depend on how many share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr("cryoemmae_plugin.run.workers.engine.usable_cores", lambda: 2)
    yield
    torch.set_num_threads(before)


def noisy(world: Any, count: int) -> None:
    """J2.exposures of micrographs large enough for a real model."""
    import numpy as np

    exposures = world.exposures()
    for number in range(count):
        image = np.random.default_rng(number).standard_normal((192, 256)).astype(np.float32)
        exposures.add(image, f"J1/imported/mic_{number}.mrc")
    world.state.add_output("P3", "J2", "exposures", exposures.dataset())


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_two_workers_find_the_particles_of_one_process(world: Any, tiny_model: Path) -> None:
    noisy(world, 3)
    asked = {"diameter_A": 45.0, "settings": {"mode": "paper", "model": str(tiny_model)}, "engines": build_engine}
    alone, one = pick(world, gpu="none", **asked)
    shared, two = pick(world, gpu="none", workers=ExecutorOptions(workers=2), **asked)
    assert (alone.status, shared.status, one.status, two.status) == ("completed",) * 4
    assert shared.picks == alone.picks > 0
    first, second = world.saved(one.uid), world.saved(two.uid)
    for name in ("location/micrograph_uid", "location/center_x_frac", "location/center_y_frac", "pick_stats/ncc_score"):
        assert (first[name] == second[name]).all()


@pytest.mark.slow
def test_a_signal_while_waiting_for_workers_ends_the_job_as_failed(world: Any, tiny_model: Path) -> None:
    noisy(world, 1)
    hidden = {"dashboard": False, "dashboard_address": "127.0.0.1:0", "host": "127.0.0.1", "port": 0}
    with distributed.SpecCluster(scheduler={"cls": distributed.Scheduler, "options": hidden}) as nobody:
        workers = ExecutorOptions(executor="dask", scheduler=nobody.scheduler_address)
        world.state.hooks["jobs.add_checkpoint"] = lambda state: (
            state.hooks.clear(),
            threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start(),
        )
        report, job = pick(
            world, diameter_A=45.0, settings={"model": str(tiny_model)}, engines=build_engine, workers=workers
        )
    assert (report.status, job.status, report.signal) == ("failed", "failed", signal.SIGTERM)
    assert f"resume --project P3 --job {job.uid}" in job.error


def test_workers_need_files_in_sight(world: Any, tiny_model: Path) -> None:
    import stub

    exposures = world.few(2)
    exposures.add(stub.stub_image(9), "J1/imported/elsewhere.mrc", write=False)
    world.state.add_output("P3", "J3", "exposures", exposures.dataset())
    with pytest.raises(InputError, match=r"elsewhere\.mrc: not in sight here \(1 of 3"):
        pick(
            world,
            exposures="J3.exposures",
            settings={"model": str(tiny_model)},
            engines=build_engine,
            workers=ExecutorOptions(workers=2),
        )


def test_a_job_that_goes_on_does_so_on_its_workers(tmp_path: Path) -> None:
    asked = request(workers=ExecutorOptions(executor="dask", scheduler="slurm", workers=3), gpu="0,1")
    save_request(tmp_path, asked)
    assert load_request(tmp_path) == asked
    assert asked.run_request(Path()).device.device == "cuda:0,1"
