"""An exposures output that grows is followed: batch after batch, stopped and resumed, each exposure picked once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import stub
from ask import request

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.run.adapting import SAMPLE
from cryosparc_job.create import begin
from cryosparc_job.errors import Refused
from cryosparc_job.follow import wait_for_exposures
from cryosparc_job.options import FollowOptions
from cryosparc_job.resuming import resume_job
from cryosparc_job.sources import source_of

FAST = FollowOptions(every=0.05, least=2)


class Microscope:
    """Makes exposures in batches: a batch more whenever the job says that it waits; then its job completes."""

    def __init__(self, world: Any, batches: list[int]) -> None:
        self.world, self.batches, self.said = world, batches, []
        self.exposures = world.exposures()
        self.deliver()

    def deliver(self) -> None:
        for _ in range(self.batches.pop(0)):
            number = len(self.exposures.rows)
            self.exposures.add(stub.stub_image(number), f"J1/imported/mic_{number:04d}.mrc")
        job = self.world.state.add_output("P3", "J2", "exposures", self.exposures.dataset())
        job.set_status("running" if self.batches else "completed")

    def __call__(self, text: str) -> None:
        self.said.append(text)
        if "waiting for" in text and self.batches:
            self.deliver()


def follow(world: Any, microscope: Callable[[str], None], engines: Any, options: FollowOptions = FAST) -> Any:
    asked = request(follow=options)
    instance = world.connect()
    wait_for_exposures(source_of(instance, asked), options, microscope)
    return begin(instance, asked, engines, tell=microscope).run()


def check_all_are_there_once(world: Any, job: str, exposures: int) -> None:
    saved = world.saved(job)
    uids, counts = np.unique(saved["location/micrograph_uid"], return_counts=True)
    assert len(uids) == exposures
    assert set(counts) == {3}
    places = np.stack([saved["location/center_x_frac"], saved["location/center_y_frac"]], axis=1)
    assert len(np.unique(np.column_stack([saved["location/micrograph_uid"] % 1000, places]), axis=0)) == len(saved)


@pytest.mark.slow
def test_batches_are_picked_as_they_come_and_each_exposure_once(world: Any) -> None:
    microscope, engines = Microscope(world, [1, 3, 2, 4]), stub.StubEngines()
    report = follow(world, microscope, engines)
    assert (report.status, report.micrographs, report.picks) == ("completed", 10, 30)
    assert engines.picked == 10
    check_all_are_there_once(world, report.job, 10)
    told = [line for line in microscope.said if "waiting for more" in line]
    assert [line.split()[0] for line in told] == ["12", "18", "30"]  # the output has grown with them
    assert "No more exposures are to come" in world.state.jobs["P3", report.job].texts


class _StopsAt(stub.StubEngines):
    """Is stopped by Ctrl-C after so many micrographs."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def __call__(self, *arguments: Any) -> Any:
        engine = super().__call__(*arguments)
        pick_one = engine.picker.pick

        def stop_and_pick(*details: Any, **more: Any) -> Any:
            if self.picked == self._at - 1:
                os.kill(os.getpid(), signal.SIGINT)
            return pick_one(*details, **more)

        engine.picker.pick = stop_and_pick
        return engine


@pytest.mark.slow
def test_a_stopped_job_goes_on_following_and_repeats_nothing(world: Any) -> None:
    microscope, engines = Microscope(world, [3, 3, 3]), _StopsAt(5)
    before = follow(world, microscope, engines)
    assert (before.status, before.micrographs, before.signal) == ("failed", 5, signal.SIGINT)
    check_all_are_there_once(world, before.job, 5)
    again = stub.StubEngines()
    report = resume_job(world.connect(), "P3", before.job, again, tell=microscope)
    assert (report.job, report.status, report.micrographs) == (before.job, "completed", 9)
    assert (engines.picked, again.picked) == (5, 4)
    check_all_are_there_once(world, report.job, 9)


@pytest.mark.slow
def test_a_job_that_was_killed_while_it_waited_goes_on(world: Any) -> None:
    microscope = Microscope(world, [3, 2])
    job = begin(world.connect(), request(follow=FAST), stub.StubEngines(), tell=microscope)
    world.state.jobs["P3", job.job.uid].set_status("running")  # and nobody is there any more
    report = resume_job(world.connect(), "P3", job.job.uid, stub.StubEngines(), tell=microscope)
    assert (report.status, report.micrographs) == ("completed", 5)


@pytest.mark.slow
def test_it_ends_when_nothing_comes_any_more(world: Any) -> None:
    microscope = Microscope(world, [3, 0])
    microscope.batches = [0] * 99  # the job goes on, but makes nothing
    report = follow(world, microscope, stub.StubEngines(), FollowOptions(every=0.02, idle=0.01, least=2))
    assert (report.status, report.micrographs) == ("completed", 3)
    assert "No new exposure for 0.01 minutes" in world.state.jobs["P3", report.job].texts


def test_a_job_that_ended_without_exposures_is_refused(world: Any) -> None:
    world.state.add_output("P3", "J2", "exposures", world.exposures().dataset())
    with pytest.raises(InputError, match="is empty"):
        wait_for_exposures(source_of(world.connect(), request(follow=FAST)), FAST, print)


def test_it_begins_with_as_many_as_adapting_takes() -> None:
    assert FollowOptions().least == SAMPLE


@dataclass
class LiveSession:
    """A Live session that gets a batch more whenever the job says that it waits; then it completes."""

    exposures: Any
    batches: list[int]
    project: str = "P3"
    uid: str = "S1"
    status: str = "running"

    def deliver(self) -> None:
        for _ in range(self.batches.pop(0)):
            number = len(self.exposures.rows)
            self.exposures.add(stub.stub_image(number), f"S1/motioncorrected/mic_{number:04d}.mrc")
        self.status = "running" if self.batches else "completed"

    def __call__(self, text: str) -> None:
        if "waiting for" in text and self.batches:
            self.deliver()


@pytest.mark.slow
def test_a_live_session_is_exported_whenever_more_is_ready(world: Any) -> None:
    session = LiveSession(world.exposures(), [1, 2, 3])
    world.state.sessions["P3", "S1"] = session
    session.deliver()
    options, instance = FollowOptions(every=0.05, least=2, session="S1"), world.connect()
    asked = request(follow=options)
    source = source_of(instance, asked)
    wait_for_exposures(source, options, session)
    engines = stub.StubEngines()
    report = begin(instance, source.newest(asked, lambda: False), engines, tell=session).run()
    assert (report.status, report.micrographs, engines.picked) == ("completed", 6, 6)
    check_all_are_there_once(world, report.job, 6)
    exports = [job for job in world.state.jobs.values() if job.type == "live_exp_export"]
    assert len(exports) <= 4
    with pytest.raises(Refused, match="session S7"):
        source_of(instance, request(follow=FollowOptions(session="S7"))).ended()


def test_cryosparc_4_has_no_export_of_a_session() -> None:
    class Four:
        major = 4

    with pytest.raises(Refused, match="in its interface only"):
        source_of(Four(), request(follow=FollowOptions(session="S1")))  # type: ignore[arg-type]
