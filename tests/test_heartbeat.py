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


def test_a_block_inside_another_does_not_end_its_signs_of_life(capfd: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(interactive=False)
    with reporter.alive():
        with reporter.alive():
            pass
        assert reporter._heart is not None
    assert reporter._heart is None
    assert not capfd.readouterr().out


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
        stages.close()
        wait_until(lambda: has("Reading micrographs: done … still working"))


TURNING = """
import time
from cryoemmae_plugin.terminal.console import Reporter, Stages
with Stages(Reporter()) as stages:
    stages.show("Reading micrographs", 1, 5)
    time.sleep(120)  # until the wheel was seen to turn
"""
WHEEL = r"(.) (?:\x1b\[[\d;]*m)?Reading micrographs"


def test_on_a_terminal_a_wheel_turns_while_a_step_takes_long(tmp_path: Path) -> None:
    """The bar is drawn again and again, each time with another wheel."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen([sys.executable, "-c", TURNING], stdout=theirs, stderr=theirs, env=environment) as run:
        os.close(theirs)
        shown, wheels = b"", set[str]()
        try:
            while len(wheels) < 3:
                shown += os.read(ours, 4096)  # fails where the program ends before
                wheels = set(re.findall(WHEEL, re.sub(r"\x1b\[[\d;]*m", "", shown.decode(errors="replace"))))
        finally:
            run.kill()
    os.close(ours)


@pytest.mark.usefixtures("quick")
def test_run_out_of_a_job_moves_too(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with RelionObserver(tmp_path) as observer:
        said = ""

        def count(pattern: str) -> int:
            nonlocal said
            said += capfd.readouterr().out
            return len(re.findall(pattern, said))

        wait_until(lambda: count(r"\.{3} still working, \d+ sec so far") > 0)
        observer.progress("Training", 1, 5)
        wait_until(lambda: count(r"\r +\d+/ +\d+ sec \.{12}~~\(,_,") >= 3)


EVERYTHING = {
    "cryoemmae": [
        "pick nowhere.mrc --diameter 9",
        "rethreshold nowhere --threshold 0.5",
        "refine nowhere --particles nowhere.star",
        "view nowhere",
        "report nowhere",
        "apply nowhere nothing.json",
        "evaluate nowhere.csv nowhere.star",
        "convert nowhere.star --out nowhere.csv",
        "merge nowhere.star nothing.star --out nowhere.csv",
        "dedup nowhere.star --out nowhere.csv",
        "train nowhere.mrc --diameter 9 --name x",
        "models list",
        "models show nowhere",
        "models verify nowhere",
        "models import-upstream nowhere.pth --mean 0.5 --std 0.1 --name x",
        "demo --device cuda:99",
        "doctor",
        "benchmark speed nowhere.mrc --diameter 9",
    ],
    "cryoemmae-relion": [
        "make-job --in-mics nowhere.star --diameter 9",
        "install-scheme . --pixel-size 1 --diameter 9 --relion-version 5",
        "repick nowhere",
    ],
    "cryoemmae-cryosparc": [
        "pick --project P1 --workspace W1 --exposures J1.exposures --diameter 9",
        "follow --project P1 --workspace W1 --exposures J1.exposures --diameter 9",
        "resume --project P1 --job J2",
        "repick --plan nowhere.toml",
        "refine --project P1 --particles J3.particles_selected",
        "doctor --project P1",
    ],
}
"""A command line for each command of each program."""
FIRST_LINES = f"""
import sys
from importlib import import_module

from cryoemmae_plugin.terminal.console import Reporter

PROGRAMS = {{
    "cryoemmae": ("cryoemmae_plugin.cli.app", "cryoemmae_plugin.cli"),
    "cryoemmae-relion": ("relion_wrapper.commands", "relion_wrapper.__main__"),
    "cryoemmae-cryosparc": ("cryosparc_job.cli", "cryosparc_job.__main__"),
}}


class Said(Exception):
    pass


def say(*_):
    loaded = [name for name in ("torch", "cv2", "scipy", "cryosparc") if name in sys.modules]
    print(program, words, loaded, file=sys.__stdout__)
    raise Said


def commands(app, before=()):
    names = [name for name in app if not name.startswith("-")]
    return [one for name in names for one in commands(app[name], (*before, name))] or [" ".join(before)]


Reporter.say, Reporter.error, Reporter.warn = say, lambda *_: None, lambda *_: None
import relion_wrapper.commands
relion_wrapper.commands._tell = say
for program, lines in {EVERYTHING}.items():
    app, main = map(import_module, PROGRAMS[program])
    for command in commands(app.build_app()):
        if not any(words.startswith(command) for words in lines):
            print(program, command, "is missing in this test", file=sys.__stdout__)
    for words in lines:
        main.main(words.split())
"""


def test_every_command_says_something_before_it_loads_what_takes_seconds(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_LINES], capture_output=True, text=True, cwd=tmp_path, check=True)
    expected = [f"{program} {words} []" for program, lines in EVERYTHING.items() for words in lines]
    assert done.stdout.splitlines() == expected, done.stderr
