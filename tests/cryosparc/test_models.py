"""Real models in the job: a small one that picks, and one that the job trains for itself."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stub
from ask import pick, request

from cryoemmae_plugin.errors import ImageError, ModelError
from cryoemmae_plugin.run.engine import build_engine
from cryosparc_job.create import begin


@pytest.mark.slow
def test_a_real_model_picks(world: Any, tiny_model: Path) -> None:
    exposures = world.exposures()
    noise = np.random.default_rng(0).standard_normal((256, 320)).astype(np.float32)
    exposures.add(noise, pixel_size_A=4.0)
    world.state.add_output("P3", "J2", "exposures", exposures.dataset())
    settings = {"model": str(tiny_model), "mode": "paper"}
    report, job = pick(world, engines=build_engine, diameter_A=120.0, settings=settings, gpu="none")
    assert (report.status, report.micrographs, report.failed) == ("completed", 1, ())
    assert "tiny" in job.texts
    assert len(world.saved(job.uid)) == report.picks


def test_a_missing_model_is_told_before_a_job_is_made(world: Any) -> None:
    world.few(1)
    with pytest.raises(ModelError, match="no-such-model"):
        pick(world, engines=build_engine, settings={"model": "no-such-model"})
    assert "jobs.create" not in world.state.calls


@pytest.mark.slow
def test_train_on_trains_on_exposures_from_all_over_and_picks_with_the_result(
    world: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Any] = []

    def train_model(micrographs: Any, folder: Path, name: str, *, progress: Any, **more: Any) -> Path:
        assert all(micrograph.path.is_file() for micrograph in micrographs)
        trained.append((micrographs, name, more))
        progress(10, 10, 0.5)
        return Path(shutil.copytree(tiny_model, folder))

    monkeypatch.setattr("cryoemmae_plugin.training.train.train_model", train_model)
    world.few(9)
    engines = stub.StubEngines()
    seen: list[Any] = []

    def build(settings: Any, request: Any) -> Any:
        seen.append(settings)
        return engines(settings, request)

    report, job = pick(world, engines=build, train_on=3)
    (micrographs, name, more), *rest = trained
    assert not rest
    assert [micrograph.path.stem for micrograph in micrographs] == ["mic_0000", "mic_0004", "mic_0008"]
    assert (name, more["mode"], micrographs[0].diameter_A) == (f"P3-{job.uid}", "default", 30.0)
    assert seen[-1].model == str(report.folder / "model")
    assert re.search(r"Training on 3 micrographs, .*  \[####", job.texts)
    assert report.status == "completed"


def test_training_that_fails_ends_the_job_as_failed(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def train_model(*arguments: Any, **more: Any) -> Path:
        raise ImageError("no micrograph to train on")

    monkeypatch.setattr("cryoemmae_plugin.training.train.train_model", train_model)
    world.few(2)
    job = begin(world.connect(), request(train_on=1), stub.StubEngines())
    with pytest.raises(ImageError):
        job.run()
    assert world.state.jobs["P3", job.job.uid].status == "failed"
    assert "no micrograph to train on" in world.state.jobs["P3", job.job.uid].error
