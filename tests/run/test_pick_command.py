"""``cryoemmae pick`` as a user meets it: files, messages, exit statuses, and what happens when it is stopped."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import starfile
from PIL import Image

FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")
Command = Callable[..., int]
MakeMicrograph = Callable[..., Path]
FINAL = ("picks.star", "picks.csv")
PLAIN = ("--no-adapt", "--report", "none")
QUICK = (*PLAIN, "--overlays", "none")


def summary(out: Path) -> dict[str, dict[str, object]]:
    loaded: dict[str, dict[str, object]] = json.loads((out / "summary.json").read_text())
    return loaded


def content(out: Path) -> dict[str, bytes]:
    """Everything in a result folder that must not depend on how the run went."""
    files = [*(out / "results").glob("**/*"), *(out / name for name in FINAL)]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def test_a_run_leaves_everything_behind_and_ends_with_0(
    cryoemmae: Command, folder_of_six: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", out, "--box") == 0
    table = starfile.read(out / "picks.star")
    assert (table["rlnAutopickFigureOfMerit"] >= 0.5).all()
    assert set(table["rlnMicrographName"]) == {str(folder_of_six / f"mic_{i}.mrc") for i in range(1, 6)}
    assert len(starfile.read(out / "results" / "mic_5.star")["candidates"]) == 50
    told = summary(out)
    assert told["status"] == "done"
    assert told["run"] == {"micrographs": 6, "skipped": 0, "picked": 5, "empty": 1, "failed": 0, "remaining": 0}
    assert told["total"] == {"picked": 5, "empty": 1, "picks": len(table)}
    assert set(told["timings"]["per_micrograph_by_step_s"]) == {"read", "fake", "write", "wait"}  # type: ignore[arg-type]
    assert told["peak_memory_MB"] > 10  # type: ignore[operator]
    assert sorted(path.name for path in (out / "overlays").iterdir()) == [f"mic_{i}.png" for i in range(3)]
    assert len(list((out / "boxes").glob("*.box"))) == 6
    said = capsys.readouterr()
    assert said.err == ""
    assert "6 of 6 micrographs are done." in said.out
    each = f"{len(table) / 6:.0f} each; 1 have no picks"
    assert f"Wrote {len(table)} picks from 6 micrographs ({each}) to {out / 'picks.star'}" in said.out
    assert f"look at {out / 'report' / 'index.html'}" in said.out


def test_a_second_run_picks_what_was_added_and_says_what_it_skipped(
    cryoemmae: Command,
    folder_of_six: Path,
    tmp_path: Path,
    make_micrograph: MakeMicrograph,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", out, *QUICK)
    before = {path: path.stat().st_mtime_ns for path in (out / "results").iterdir()}
    make_micrograph(folder_of_six / "mic_9.mrc", 8)
    capsys.readouterr()
    assert cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", out, *QUICK) == 0
    assert "7 micrographs: 6 were done before and are skipped, 1 to pick" in capsys.readouterr().out
    assert summary(out)["run"]["skipped"] == 6
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (out / "results" / "mic_9.star").exists()


def test_a_run_ends_with_where_the_time_went_and_one_without_work_keeps_what_the_last_one_said(
    cryoemmae: Command, folder_of_six: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", out, *QUICK)
    assert re.search(
        r"micrographs per second. Time per step: fake \d+%, waiting \d+% \(in parallel: reading \d+%, writing \d+%\)",
        capsys.readouterr().out,
    )
    timings: Any = summary(out)["timings"]
    assert timings["micrographs"] == 6
    assert timings["share_by_step"]["fake"] + timings["share_by_step"]["waiting"] == pytest.approx(1, abs=1e-3)
    cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", out, *QUICK)
    assert summary(out)["run"]["skipped"] == 6
    assert summary(out)["timings"] == timings
    assert "micrographs per second" not in capsys.readouterr().out


@pytest.mark.slow
def test_changed_settings_or_model_never_mix(
    cryoemmae: Command,
    folder_of_six: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", out, *QUICK)
    before = content(out)
    assert cryoemmae("pick", folder_of_six, "--diameter", 21, "--out", out, *QUICK) == 1
    assert "--diameter was 20.0, is 21.0" in capsys.readouterr().err
    monkeypatch.setenv("FAKE_SHA256", "0" * 64)
    assert cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", out, *QUICK) == 1
    assert "model weights" in capsys.readouterr().err
    assert content(out) == before
    assert cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", out, *QUICK, "--overwrite") == 0


@pytest.mark.slow
def test_rethreshold_is_the_same_as_picking_at_that_threshold(
    cryoemmae: Command, folder_of_six: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", one, "--threshold", 0.8, "--box", *PLAIN)
    cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", two, "--box", *PLAIN)
    overlay = (two / "overlays" / "mic_2.png").read_bytes()
    assert cryoemmae("rethreshold", two, "--threshold", 0.8) == 0
    assert content(one) == content(two)
    assert (one / "boxes" / "mic_5.box").read_bytes() == (two / "boxes" / "mic_5.box").read_bytes()
    assert (one / "overlays" / "mic_2.png").read_bytes() == (two / "overlays" / "mic_2.png").read_bytes() != overlay
    assert summary(two)["settings"]["threshold"] == 0.8
    assert summary(two)["total"] == summary(one)["total"]


def test_a_later_run_keeps_the_threshold_that_rethreshold_has_chosen(
    cryoemmae: Command,
    folder_of_six: Path,
    tmp_path: Path,
    make_micrograph: MakeMicrograph,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    command = ("pick", folder_of_six, "--diameter", 20, "--out", out, *QUICK)
    cryoemmae(*command)
    cryoemmae("rethreshold", out, "--threshold", 0.8, "--edge-distance", 0, "--box")
    before = content(out)
    capsys.readouterr()
    assert cryoemmae(*command) == 0
    assert "Threshold 0.8, as chosen with rethreshold. For another one, give --threshold" in capsys.readouterr().out
    assert content(out) == before
    make_micrograph(folder_of_six / "mic_9.mrc", 30)
    cryoemmae(*command)
    assert summary(out)["settings"]["threshold"] == 0.8
    assert summary(out)["settings"]["edge_distance"] == 0
    assert starfile.read(out / "picks.star")["rlnAutopickFigureOfMerit"].min() >= 0.8
    capsys.readouterr()
    cryoemmae(*command, "--threshold", 0.3)
    assert f"Threshold 0.3; the picks in {out} had 0.8 until now" in capsys.readouterr().out
    assert summary(out)["settings"]["threshold"] == 0.3
    boxes = sum(len(path.read_text().splitlines()) for path in (out / "boxes").glob("*.box"))
    assert boxes == summary(out)["total"]["picks"]
    cryoemmae(*command)
    assert f"Threshold 0.5; the picks in {out} had 0.3 until now" in capsys.readouterr().out


def test_bad_files_are_listed_and_the_status_is_3(
    cryoemmae: Command, folder_of_six: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (folder_of_six / "mic_2.mrc").write_text("not an image at all")
    assert cryoemmae("pick", folder_of_six, folder_of_six / "gone.mrc", "--diameter", 20, "--out", out, *QUICK) == 3
    failed = [entry["micrograph"] for entry in summary(out)["failed"]]  # type: ignore[index]
    assert failed == [str(folder_of_six / "mic_2.mrc"), str(folder_of_six / "gone.mrc")]
    err = capsys.readouterr().err
    assert "mic_2.mrc" in err
    assert "Traceback" not in err
    assert summary(out)["run"]["picked"] == 4


def test_nothing_done_is_status_1(cryoemmae: Command, tmp_path: Path) -> None:
    (tmp_path / "a.mrc").touch()
    assert cryoemmae("pick", tmp_path / "a.mrc", "--diameter", 20, "--out", tmp_path / "out") == 1
    assert summary(tmp_path / "out")["run"]["failed"] == 1


def test_namesakes_in_two_folders_are_kept_apart(
    cryoemmae: Command, make_micrograph: MakeMicrograph, tmp_path: Path
) -> None:
    make_micrograph(tmp_path / "a" / "mic.mrc", 10)
    out = tmp_path / "out"
    options = ("--diameter", 20, "--out", out, *QUICK, "--threshold", 0, "--edge-distance", 0, "--min-distance", 0)
    cryoemmae("pick", tmp_path / "a", *options)
    make_micrograph(tmp_path / "b" / "mic.mrc", 20)
    assert cryoemmae("pick", tmp_path / "a", tmp_path / "b", *options) == 0
    assert summary(out)["run"]["skipped"] == 1
    assert summary(out)["total"] == {"picked": 2, "empty": 0, "picks": 30}
    names = starfile.read(out / "picks.star")["rlnMicrographName"]
    assert names.value_counts().to_dict() == {
        str(tmp_path / "a" / "mic.mrc"): 10,
        str(tmp_path / "b" / "mic.mrc"): 20,
    }


@pytest.mark.slow
def test_results_do_not_depend_on_order_and_readers(cryoemmae: Command, folder_of_six: Path, tmp_path: Path) -> None:
    files = sorted(folder_of_six.iterdir())
    cryoemmae("pick", *files, "--diameter", 20, "--out", tmp_path / "one", "--jobs", 1, *QUICK)
    cryoemmae("pick", *reversed(files), "--diameter", 20, "--out", tmp_path / "two", "--jobs", 4, *QUICK)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_disk_full_stops_with_a_message_and_keeps_what_is_done(
    cryoemmae: Command,
    folder_of_six: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, replace = tmp_path / "out", os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == "mic_3.star":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", out, *QUICK) == 1
    err = capsys.readouterr().err
    assert "mic_3.star: no space left" in err
    assert "Traceback" not in err
    assert summary(out)["status"] == "failed"
    stored = {path.name for path in (out / "results").iterdir()}
    assert {f"mic_{i}.star" for i in range(3)} <= stored
    assert "mic_3.star" not in stored
    monkeypatch.setattr(os, "replace", replace)
    assert cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", out, *QUICK) == 0
    assert summary(out)["run"]["skipped"] == len(stored)


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_picked(
    cryoemmae: Command, folder_of_six: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):  # root may write everywhere, but not into a file
        locked.chmod(0o700)
        locked.rmdir()
        locked.touch()
    assert cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", locked / "out") == 1
    err = capsys.readouterr().err
    assert err.startswith("Error: ")
    assert "--out" in err


@pytest.mark.parametrize(
    "words",
    [
        ["--overlays", "some"],
        ["--jobs", "0"],
        ["--diameter", "0"],
        ["--gpu-memory", "0"],
        ["--precision", "8"],
        ["--nonsense"],
    ],
)
def test_wrong_usage_is_status_2(
    cryoemmae: Command, folder_of_six: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cryoemmae("pick", folder_of_six, "--diameter", 20, *words) == 2
    assert words[0] in capsys.readouterr().err


def test_overlays_can_be_all_or_none(cryoemmae: Command, folder_of_six: Path, tmp_path: Path) -> None:
    cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", tmp_path / "none", *QUICK)
    assert not (tmp_path / "none" / "overlays").exists()
    cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", tmp_path / "none", *PLAIN, "--overlays", "all")
    pictures = sorted((tmp_path / "none" / "overlays").iterdir())
    assert len(pictures) == 6
    with Image.open(pictures[5]) as picture:
        assert picture.size[0] == 60


def start(folder: Path, out: Path, seconds: float) -> subprocess.Popen[str]:
    """A run in a process of its own, which takes so many seconds for a micrograph."""
    words = [sys.executable, str(FAKE_ENGINE), "pick", str(folder), "--diameter", "20", "--out", str(out), *QUICK]
    env = os.environ | {"FAKE_SECONDS": str(seconds), "PYTHONPATH": str(FAKE_ENGINE.parents[2])}
    return subprocess.Popen(words, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_for_results(run: subprocess.Popen[str], out: Path, n: int) -> None:
    deadline = time.monotonic() + 300  # for a machine that is busy with other things
    while len(list((out / "results").glob("*.star"))) < n:
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_in_the_middle_and_run_again_is_as_if_never_killed(
    cryoemmae: Command, folder_of_six: Path, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", whole, *QUICK)
    run = start(folder_of_six, killed, 0.3)
    wait_for_results(run, killed, 2)
    run.kill()
    run.communicate()
    assert summary(killed)["status"] == "running"
    assert not (killed / "picks.star").exists()
    (killed / "results" / ".mic_3.star.partial").write_text("half a result")
    finished = {path: path.stat().st_mtime_ns for path in (killed / "results").glob("*.star")}
    assert 2 <= len(finished) < 6
    assert cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", killed, *QUICK) == 0
    assert summary(killed)["run"]["skipped"] == len(finished)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert content(killed) == content(whole)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_runs_say_so_and_keep_what_is_done(
    cryoemmae: Command,
    fake_engine: ModuleType,
    folder_of_six: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    status: int,
) -> None:
    out, whole, pick = tmp_path / "out", tmp_path / "whole", fake_engine.FakePicker.pick

    def pick_and_signal(self: Any, *args: Any, **options: Any) -> Any:
        if len(self.seen) == 2:
            os.kill(os.getpid(), number)
        return pick(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(fake_engine.FakePicker, "pick", pick_and_signal)
        assert cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", out, "--no-adapt") == status
    said = capsys.readouterr()
    assert "3 of 6 micrographs are done, 3 remain" in said.out
    assert "To resume, run the same command again" in said.err
    assert summary(out)["status"] == "interrupted"
    assert summary(out)["run"]["remaining"] == 3
    assert set(starfile.read(out / "picks.star")["rlnMicrographName"]) == {
        str(folder_of_six / f"mic_{i}.mrc") for i in (1, 2)
    }
    assert cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", out, *QUICK) == 0
    assert summary(out)["status"] == "done"
    cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", whole, *QUICK)
    assert content(out) == content(whole)
