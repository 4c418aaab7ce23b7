"""A job that ended early goes on: nothing that is done is done again."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import stub
from ask import pick, request

from cryoemmae_plugin.errors import InputError
from cryosparc_job.create import begin
from cryosparc_job.errors import Refused
from cryosparc_job.resuming import resume_job


def interrupted(world: Any, at: int, work: Path | None = None) -> Any:
    """A job that was stopped by Ctrl-C after some micrographs."""

    class Stopping(stub.StubPicker):
        def pick(self, *details: Any, **more: Any) -> Any:
            if self.picked == at - 1:
                os.kill(os.getpid(), signal.SIGINT)
            return super().pick(*details, **more)

    class Engines(stub.StubEngines):
        def __call__(self, *arguments: Any) -> Any:
            engine = super().__call__(*arguments)
            return type(engine)(Stopping(), engine.model_name, engine.model_sha256, engine.device)

    report, _ = pick(world, engines=Engines(), work=work)
    assert (report.status, report.micrographs) == ("failed", at)
    return report


def test_resume_goes_on_in_the_same_job(world: Any) -> None:
    world.few(6)
    before = interrupted(world, 2)
    engines = stub.StubEngines()
    report = resume_job(world.connect(), "P3", before.job, engines)
    job = world.state.jobs["P3", before.job]
    assert (report.job, report.status, report.micrographs) == (before.job, "completed", 6)
    assert job.statuses == ["running", "failed", "running", "completed"]
    assert engines.picked == 4
    assert len(world.saved(before.job)) == 18
    assert "2 micrographs were picked before" in job.texts


@pytest.mark.slow
def test_resumed_picks_are_those_of_a_run_without_interruption(world: Any) -> None:
    world.few(5)
    before = interrupted(world, 3)
    resume_job(world.connect(), "P3", before.job, stub.StubEngines())
    whole, _ = pick(world)
    columns = [name for name in world.saved(whole.job).fields() if name != "uid"]
    for name in columns:
        assert (world.saved(before.job)[name] == world.saved(whole.job)[name]).all(), name


@pytest.mark.slow
def test_a_resumed_job_keeps_the_threshold_that_rethreshold_has_chosen(world: Any) -> None:
    from cryoemmae_plugin.cli import main

    world.few(4)
    before = interrupted(world, 2)
    assert main(["rethreshold", str(before.folder / "picks"), "--threshold", "1"]) == 0
    resume_job(world.connect(), "P3", before.job, stub.StubEngines())
    assert "Threshold 1, as chosen with rethreshold" in world.state.jobs["P3", before.job].texts
    assert len(world.saved(before.job)) < 12


@pytest.mark.slow
def test_where_a_job_cannot_run_again_a_new_one_takes_over(world: Any) -> None:
    world.few(6)
    before = interrupted(world, 2)
    world.state.may_restart = False
    engines, said = stub.StubEngines(), []
    report = resume_job(world.connect(), "P3", before.job, engines, tell=said.append)
    assert (report.job, report.status, engines.picked) == ("J4", "completed", 4)
    assert len(world.saved("J4")) == 18
    assert world.state.jobs["P3", before.job].status == "failed"
    assert f"results of {before.job}" in world.state.jobs["P3", "J4"].texts
    assert any("a new job" in line for line in said)


def test_a_process_that_was_killed_leaves_what_can_be_resumed(world: Any) -> None:
    world.few(3)
    job = begin(world.connect(), request(), stub.StubEngines())
    world.state.jobs["P3", job.job.uid].set_status("running")  # and nobody is there any more
    report = resume_job(world.connect(), "P3", job.job.uid, stub.StubEngines())
    assert (report.status, report.picks) == ("completed", 9)


@pytest.mark.slow
def test_results_outside_of_the_project_are_found_again(world: Any, tmp_path: Path) -> None:
    world.few(3)
    world.state.advertised["P3"] = Path("/nowhere/on/this/host")
    before = interrupted(world, 1)
    assert resume_job(world.connect(), "P3", before.job, stub.StubEngines()).picks == 9
    before = interrupted(world, 1, work=tmp_path / "work")
    with pytest.raises(InputError, match="with work"):
        resume_job(world.connect(), "P3", before.job, stub.StubEngines())
    report = resume_job(world.connect(), "P3", before.job, stub.StubEngines(), work=tmp_path / "work")
    assert report.picks == 9


def test_what_cannot_be_resumed_is_told(world: Any) -> None:
    world.few(1)
    report, _ = pick(world)
    with pytest.raises(Refused, match="has completed"):
        resume_job(world.connect(), "P3", report.job, stub.StubEngines())
    with pytest.raises(InputError, match="no results here"):
        resume_job(world.connect(), "P3", "J2", stub.StubEngines())
    with pytest.raises(Refused, match="J77"):
        resume_job(world.connect(), "P3", "J77", stub.StubEngines())
