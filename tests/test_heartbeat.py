"""No command is silent for long: a line in a log, a turning wheel on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cryoemmae_plugin.terminal.console import Reporter, Stages
from cryoemmae_plugin.terminal.heartbeat import Heartbeat
from relion_wrapper.observer import RelionObserver


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence of a twentieth of a second is long."""
    monkeypatch.setattr(Heartbeat.__init__, "__defaults__", (0.05,))


def wait_until(said: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not said():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_beats_in_silence_only_and_ends_with_its_block() -> None:
    beats: list[float] = []
    with Heartbeat(beats.append, every_s=0.05) as heart:
        heart.task()
        wait_until(lambda: len(beats) >= 2)
        assert 0.04 < beats[0] < beats[1]
        heart.told()
    count = len(beats)
    time.sleep(0.12)
    assert len(beats) == count
    with Heartbeat(beats.append, every_s=100) as heart:
        heart.told()
    assert len(beats) == count


@pytest.mark.usefixtures("quick")
def test_a_log_says_what_goes_on_while_a_step_takes_long(capfd: pytest.CaptureFixture[str]) -> None:
    said = ""

    def has(text: str) -> bool:
        nonlocal said
        said += capfd.readouterr().out
        return re.search(text, said) is not None

    reporter = Reporter(interactive=False)
    with Stages(reporter) as stages:
        reporter.say("Estimating the diameter")
        wait_until(lambda: has(r"Estimating the diameter … still working, 0:00:0\d so far"))
        stages.show("Reading micrographs", 1, 5)
        wait_until(lambda: has("1/5  Reading micrographs … still working"))


TURNING = """
import time
from cryoemmae_plugin.terminal.console import Reporter, Stages
with Stages(Reporter()) as stages:
    stages.show("Reading micrographs", 1, 5)
    time.sleep(0.7)
"""


def test_on_a_terminal_a_wheel_turns_while_a_step_takes_long(tmp_path: Path) -> None:
    """The bar is drawn again and again, each time with another wheel."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen([sys.executable, "-c", TURNING], stdout=theirs, stderr=theirs, env=environment) as run:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
        assert run.wait(60) == 0
    os.close(ours)
    wheels = re.findall(r"(.) (?:\x1b\[[\d;]*m)?Reading micrographs", re.sub(r"\x1b\[[\d;]*m", "", shown.decode()))
    assert len(set(wheels)) >= 3, shown


@pytest.mark.usefixtures("quick")
def test_run_out_of_a_job_moves_too(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with RelionObserver(tmp_path) as observer:
        said = ""

        def count(text: str) -> int:
            nonlocal said
            said += capfd.readouterr().out
            return said.count(text)

        wait_until(lambda: count("... still working, 0 sec so far") > 0)
        observer.progress("Training", 1, 5)
        wait_until(lambda: count("\r  0/  0 sec ............~~(,_,") >= 3)


EVERYTHING = [
    ["pick", "nowhere.mrc", "--diameter", "9"],
    ["train", "nowhere.mrc", "--diameter", "9", "--name", "x"],
    ["rethreshold", "nowhere", "--threshold", "0.5"],
    ["evaluate", "nowhere.csv", "nowhere.star"],
    ["report", "nowhere"],
    ["apply", "nowhere", "nothing.json"],
    ["demo", "--device", "cuda:99"],
    ["models", "verify", "nowhere"],
    ["models", "import-upstream", "nowhere.pth", "--mean", "0.5", "--std", "0.1", "--name", "x"],
    ["benchmark", "speed", "nowhere.mrc", "--diameter", "9"],
]
FIRST_LINES = f"""
import sys
from cryoemmae_plugin.cli import main
from cryoemmae_plugin.terminal.console import Reporter

heavy = [name for name in ("torch", "cv2", "scipy") if name in sys.modules]
assert not heavy, heavy


class Said(Exception):
    pass


def say(self, text):
    loaded = [name for name in ("torch", "cv2", "scipy") if name in sys.modules]
    print(words[0], loaded, file=sys.__stdout__)
    raise Said


Reporter.say, Reporter.error = say, lambda self, text: None
for words in {EVERYTHING}:
    main(words)
"""


def test_every_command_says_something_before_it_loads_what_takes_seconds(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_LINES], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.splitlines() == [f"{words[0]} []" for words in EVERYTHING], done.stderr
