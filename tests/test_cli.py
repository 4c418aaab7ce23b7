"""The command line outside of `pick`: help, messages, evaluate, models, doctor."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryoemmae_plugin.cli import main
from cryoemmae_plugin.errors import ImageError, ModelError
from cryoemmae_plugin.run.store import alone_in
from cryoemmae_plugin.settings import RequestedSettings
from cryoemmae_plugin.terminal.app import message_of
from cryoemmae_plugin.terminal.console import Reporter
from cryoemmae_plugin.terminal.options import OPTIONS

COMMANDS = ("pick", "rethreshold", "refine", "evaluate", "train", "models", "demo", "doctor", "benchmark")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("CRYOEMMAE_DEBUG", raising=False)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    places = [said.index(f"│ {command} ") for command in COMMANDS]
    assert places == sorted(places)
    assert max(map(len, said.splitlines())) <= 80


def test_every_setting_is_an_option_of_pick_with_its_help(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # so wide that no option's name is broken
    assert main(["pick", "--help"]) == 0
    said = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    for name, field in RequestedSettings.model_fields.items():
        assert f"--{name.removesuffix('_A').replace('_', '-')} " in said
        assert field.description is not None
        assert " ".join(field.description.split()) in said
    assert "--diameter-a" not in said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "Usage: cryoemmae" in capsys.readouterr().out


def test_version_is_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.match(r"\d+\.\d+", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pick", "mic.mrc"], "--diameter"),
        (["pick", "mic.mrc", "--diameter", "0"], "--diameter is '0': must be greater than 0"),
        (["pick", "mic.mrc", "--diameter", "9", "--mode", "x"], "'default' or 'paper'"),
        (["pick", "mic.mrc", "--diameter", "9", "--threshold", "2"], "--threshold"),
        (["frobnicate"], "frobnicate"),
        (["rethreshold", "x", "--threshold", "7"], "--threshold"),
        (["train", "mic.mrc", "--diameter", "9", "--name", "../x"], "--name"),
        (["train", "mic.mrc", "--diameter", "9", "--name", "x", "--epochs", "0"], "--epochs"),
    ],
)
def test_wrong_usage_is_one_message_and_status_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("Error: ")
    assert message in err
    assert "Traceback" not in err
    assert "pydantic" not in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pick", "nowhere", "--diameter", "9"], "nowhere: no such file or folder"),
        (["pick", "mic.mrc", "--diameter", "9", "--model", "nonesuch"], "no model 'nonesuch'"),
        (["pick", "mic.mrc", "--diameter", "9", "--device", "cuda:99"], "cuda:99"),
        (["rethreshold", "nowhere", "--threshold", "0.5"], "nowhere: no such folder; give the output folder"),
        (["models", "show", "nonesuch"], "no model 'nonesuch'"),
        (["evaluate", "nowhere.csv", "x.star"], "nowhere.csv"),
    ],
)
def test_what_cannot_be_done_is_one_message_and_status_1(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    err = capsys.readouterr().err
    assert f"\n{err}".count("\nError: ") == 1
    assert message in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_first_try_without_pixel_size_does_not_bar_the_next(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mrcfile.new(tmp_path / "mic.mrc") as mrc:
        mrc.set_data(np.random.default_rng(0).normal(size=(240, 300)).astype(np.float32))
    words = ["pick", str(tmp_path / "mic.mrc"), "--diameter", "60", "--model", str(tiny_model)]
    words += ["--out", str(tmp_path / "out")]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "--pixel-size" in said
    assert "Fix the problems below" in said
    assert main([*words, "--pixel-size", "2"]) == 0
    assert main([*words, "--pixel-size", "3"]) == 1  # now there is a result
    assert "--pixel-size was 2.0, is 3.0" in capsys.readouterr().err


def test_starting_over_in_a_folder_where_a_run_works_takes_nothing_from_it(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mic.mrc").touch()
    out = tmp_path / "out"
    (out / "model").mkdir(parents=True)
    kept = {out / name: name.encode() for name in ("adapted.json", "model/card.toml", "diameter.json")}
    for path, content in kept.items():
        path.write_bytes(content)
    words = ["pick", str(tmp_path / "mic.mrc"), "--diameter", "60", "--model", str(tiny_model), "--out", str(out)]
    with alone_in(out):
        assert main([*words, "--overwrite"]) == 1
    assert "another run is working in it" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_file_that_may_not_be_read_is_said_without_a_riddle() -> None:
    err = PermissionError(13, "Permission denied", "closed/m.mrc")
    assert message_of(err, OPTIONS) == "closed/m.mrc: Permission denied; check the path and its permissions"


def test_debug_shows_where_an_error_comes_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["models", "show", "nonesuch", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("CRYOEMMAE_DEBUG", "1")
    assert main(["models", "show", "nonesuch"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_help_comes_without_waiting_for_the_network_library() -> None:
    code = (
        "import sys; from cryoemmae_plugin.cli import main; main(['pick', '--help']); "
        "print([name for name in ('torch', 'cv2', 'pandas') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


REFERENCE = "micrograph,x,y,diameter\na.mrc,10,10,20\na.mrc,90,90,20\nempty.mrc,,,20\n"
PICKS = """data_particles

loop_
_rlnMicrographName #1
_rlnCoordinateX #2
_rlnCoordinateY #3
_rlnAutopickFigureOfMerit #4
x/a.mrc 11 10 0.9
x/a.mrc 50 50 0.8
x/empty.mrc 5 5 0.7
x/unknown.mrc 5 5 0.7
"""


@pytest.fixture
def scored(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "reference.csv").write_text(REFERENCE)
    (tmp_path / "picks.star").write_text(PICKS)
    return str(tmp_path / "reference.csv"), str(tmp_path / "picks.star")


def test_evaluate_prints_a_table_that_a_person_reads(
    scored: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *scored]) == 0
    said = capsys.readouterr().out
    assert re.search(r"mean .*0\.500.*0\.500", said)
    assert "1 micrographs without a particle: 1.0 picks each" in said
    assert "1 micrographs with picks are not in reference.csv" in said


def test_evaluate_does_not_cut_names_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "FoilHole_20000_Data_3000_3000_20240101_120000"
    (tmp_path / "r.csv").write_text(REFERENCE.replace("a.mrc", f"{name}.mrc"))
    (tmp_path / "p.star").write_text(PICKS.replace("x/a.mrc", f"x/{name}.mrc"))
    assert main(["evaluate", str(tmp_path / "r.csv"), str(tmp_path / "p.star")]) == 0
    assert f"\n{name}  " in capsys.readouterr().out


def test_evaluate_prints_json_that_a_program_reads(scored: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *scored, scored[1], "--json", "--min-score", "0.85"]) == 0  # twice counts once
    told = json.loads(capsys.readouterr().out)
    assert told["mean"]["half_d"] == {"recall": 0.5, "precision": 1.0, "f1": pytest.approx(2 / 3)}
    assert told["false_picks"] == 0


def test_models_are_shown_and_verified(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", str(tiny_model)]) == 0
    assert 'name = "tiny"' in capsys.readouterr().out
    assert main(["models", "verify", str(tiny_model)]) == 0
    assert "good" in capsys.readouterr().out


def test_a_damaged_model_is_found_by_verify(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    weights = broken / "encoder.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert main(["models", "verify", str(broken)]) == 1
    assert "sha256" in capsys.readouterr().err


def test_models_list_says_where_ones_own_go(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["models", "list"]) == 0
    assert str(tmp_path / "data") in capsys.readouterr().out


def test_doctor_tells_each_finding_and_goes_on_after_a_bad_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    doctor = importlib.import_module("cryoemmae_plugin.cli.doctor")

    def broken() -> list[str]:
        raise ImageError("the thing is broken")

    monkeypatch.setattr(doctor, "CHECKS", {"models": broken, "disk": doctor.check_disk})
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "WRONG: the thing is broken" in said
    assert "GB free" in said


@pytest.mark.slow
def test_doctor_finds_this_installation_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "All is well." in said
    assert "100% of 60 particles found in a simulated micrograph, 100% of the picks right" in said


@pytest.mark.slow
def test_doctor_says_what_a_model_that_picks_badly_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryoemmae_plugin.cli.run_demo.EXPECTED_F1", 1.01)
    with pytest.raises(ModelError, match="install the package again"):
        list(importlib.import_module("cryoemmae_plugin.cli.doctor").check_picking())


def test_a_log_gets_dated_lines_but_not_too_many(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("cryoemmae_plugin.terminal.console.time.monotonic", lambda: now)
    reporter = Reporter(interactive=False, dated=True)
    with reporter.progress(100, "Picking"):
        for index in range(100):
            now += 1.0
            reporter.advance(f"mic_{index}")
    lines = capsys.readouterr().out.splitlines()
    assert 10 <= len(lines) <= 12
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  1/100  mic_0  \(0:01:39 left\)", lines[0])
    assert "100/100" in lines[-1]
