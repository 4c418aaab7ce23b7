"""However a job ends here, it does not stay running there, and is completed only when it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stub
from ask import pick, request
from testserver.state import Refusal

from cryosparc_job.create import begin
from cryosparc_job.errors import ServerGone
from cryosparc_job.job import cut

pytestmark = pytest.mark.filterwarnings(r"ignore:\*\*\* API client")

DRIVER = Path(__file__).resolve().parent / "helpers" / "driver.py"


class Happening(stub.StubEngines):
    """Picks, and lets something happen when it has come to a micrograph."""

    def __init__(self, at: int, happens: Callable[[], None]) -> None:
        super().__init__()
        self._at, self._happens = at, happens

    def __call__(self, *arguments: Any) -> Any:
        engine = super().__call__(*arguments)
        inner, pick_one = engine.picker, engine.picker.pick

        def pick_and_wait(*details: Any, **more: Any) -> Any:
            if inner.picked == self._at:
                self._happens()
            return pick_one(*details, **more)

        inner.pick = pick_and_wait
        return engine


def send(number: int) -> Callable[..., None]:
    """A signal to this process."""
    return lambda *ignored: os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_picking_ends_the_job_as_failed_with_its_picks(world: Any, number: int) -> None:
    world.few(6)
    report, job = pick(world, engines=Happening(2, send(number)))
    assert (report.status, report.signal, job.status, job.statuses) == (
        "failed",
        number,
        "failed",
        ["running", "failed"],
    )
    assert report.micrographs == 3, "the micrograph in the works is finished"
    assert len(world.saved(job.uid)) == report.picks == 9
    assert {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "terminal"}[
        signal.Signals(number)
    ] in job.error
    assert "3 of 6 micrographs are saved" in job.error
    assert f"resume --project P3 --job {job.uid}" in job.error
    assert signal.getsignal(number) is not None


@pytest.mark.parametrize(
    "operation", ["jobs.add_checkpoint", "jobs.add_event_log", "jobs.add_image_log", "assets.upload"]
)
def test_a_signal_at_any_other_moment_ends_the_job_as_failed(world: Any, operation: str) -> None:
    world.few(3)
    world.state.hooks[operation] = lambda state: (state.hooks.clear(), send(signal.SIGTERM)())
    report, job = pick(world)
    assert (report.status, job.status) == ("failed", "failed")


def test_a_signal_in_the_last_moment_does_not_undo_what_is_done(world: Any) -> None:
    world.few(1)
    world.state.hooks["jobs.mark_completed"] = send(signal.SIGINT)
    report, job = pick(world)
    assert (report.status, job.status) == ("completed", "completed")


def test_two_signals_end_the_job_as_failed_too(world: Any) -> None:
    def twice() -> None:
        send(signal.SIGINT)()
        send(signal.SIGINT)()
        time.sleep(0.5)

    world.few(4)
    report, job = pick(world, engines=Happening(1, twice))
    assert (report.status, job.status) == ("failed", "failed")
    assert report.picks == 3


def test_a_kill_in_the_interface_is_noticed_and_left_as_it_is(world: Any) -> None:
    world.few(20)
    engines = Happening(2, lambda: (world.state.jobs["P3", "J3"].set_status("killed"), time.sleep(0.5)))  # type: ignore[func-returns-value,arg-type]
    report, job = pick(world, engines=engines)
    assert (report.status, job.status) == ("killed", "killed")
    assert "killed in CryoSPARC" in report.reason
    assert engines.picked < 20


def test_a_killed_job_keeps_the_picks_saved_on_the_way(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryosparc_job.particles.FIRST_SAVE_S", 0.0)
    world.few(20)  # more than may wait to be stored when the kill comes
    engines = Happening(12, lambda: (world.state.jobs["P3", "J3"].set_status("killed"), time.sleep(0.5)))  # type: ignore[func-returns-value,arg-type]
    _, job = pick(world, engines=engines)
    assert job.saves[0] == 3
    assert 0 < len(world.saved(job.uid)) <= 39


def test_a_deleted_job_ends_the_run(world: Any) -> None:
    def delete() -> None:
        del world.state.jobs["P3", "J3"]
        time.sleep(0.5)

    world.few(6)
    job = begin(world.connect(), request(), Happening(2, delete))
    report = job.run()
    assert report.status == "killed"
    assert "gone from CryoSPARC" in report.reason


def test_an_unexpected_error_ends_the_job_as_failed_with_the_reason(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("no luck " * 2000)

    monkeypatch.setattr("cryosparc_job.picking.PickJob._finish", fail)
    world.few(1)
    with pytest.raises(RuntimeError):
        pick(world)
    job = world.state.jobs["P3", "J3"]
    assert job.status == "failed"
    assert job.error.startswith("unexpected RuntimeError: no luck")
    assert "resume --project P3 --job J3" in job.error, "the end of a long text is kept"
    assert world.state.longest_url < 4000


@pytest.mark.slow
def test_a_server_that_comes_back_gets_everything(world: Any) -> None:
    def restart() -> None:
        world.stop()
        threading.Timer(1.5, world.start).start()

    world.few(12)
    report, job = pick(world, engines=Happening(3, restart))
    assert (report.status, report.micrographs, job.status) == ("completed", 12, "completed")
    assert len(world.saved(job.uid)) == 36
    assert "Ready to pick" in job.texts


@pytest.mark.slow
def test_a_server_that_does_not_come_back_leaves_what_can_be_resumed(world: Any) -> None:
    world.few(4)
    instance = world.connect(patience_s=1.0)
    job = begin(instance, request(), Happening(2, world.stop))
    with pytest.raises(ServerGone, match="does not answer"):
        job.run()
    results = list((job.folder / "picks" / "results").glob("*.star"))
    assert len(results) == 4, "picking goes on without the server"


def test_a_log_that_is_refused_does_not_end_the_run(world: Any) -> None:
    def refuse(state: Any) -> None:
        raise Refusal(422, "no logs today")

    world.few(2)
    for operation in ("jobs.add_event_log", "jobs.add_image_log", "jobs.set_tile_image", "jobs.add_checkpoint"):
        world.state.hooks[operation] = refuse
    report, _ = pick(world)
    assert (report.status, report.picks) == ("completed", 6)


@pytest.mark.parametrize("most", [60, 400])
def test_long_texts_keep_their_ends(most: int) -> None:
    from urllib.parse import quote

    text = "begin " + "ü" * 3000 + " end"
    short = cut(text, most)
    assert len(quote(short)) <= most
    assert "[…]" in short
    assert short.endswith("end")
    assert cut("brief", most) == "brief"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_line_ends_its_job_when_it_is_stopped(world: Any, number: int, status: int, tmp_path: Path) -> None:
    world.few(200)
    options = ["--project", "P3", "--workspace", "W1", "--exposures", "J2.exposures", "--diameter", "30"]
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, str(DRIVER), "pick", *options],
            env=world.environment(STUB_DELAY_S="0.2"),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        wait_for(
            lambda: world.state.jobs.get(("P3", "J3")) and "Picking" in world.state.jobs["P3", "J3"].texts, process
        )
        process.send_signal(number)
        assert process.wait(200) == status
        log.seek(0)
        said = log.read()
    job = world.state.jobs["P3", "J3"]
    assert job.status == "failed"
    assert "resume --project P3 --job J3" in said
    assert len(world.saved("J3")) > 0


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[Any]) -> None:
    until = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, "the program has ended"
        assert time.monotonic() < until, "too slow"
        time.sleep(0.05)
