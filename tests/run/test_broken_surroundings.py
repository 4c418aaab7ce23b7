"""One bad thing does not end a run: a file that crashes its decoder, broken leftovers, nobody who reads the output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cryoemmae_plugin.images import decoding
from cryoemmae_plugin.run.store import ResultStore

FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")
Command = Callable[..., int]

QUICK = ("--no-adapt", "--report", "none", "--overlays", "none")

CRASH = """
import ctypes, tifffile
whole = tifffile.TiffFile
tifffile.TiffFile = lambda path: ctypes.string_at(0) if 'bad' in path else whole(path)
serve()"""
"""Reading a file whose name says bad is a violation of memory, as damaged LZW data have caused in decoders."""


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that some files crash."""
    monkeypatch.setattr(decoding, "_START", decoding._START.replace("serve()", CRASH))
    decoding._end_helpers()


@pytest.fixture
def tiffs(tmp_path: Path) -> Path:
    """Four compressed micrographs with five candidates each; the second one is bad."""
    folder = tmp_path / "mics"
    folder.mkdir()
    image = np.random.default_rng(0).integers(100, 200, (40, 60), "uint16")
    image[0, 0] = 5
    for name in ("a", "bad", "c", "d"):
        tifffile.imwrite(folder / f"{name}.tif", image, compression="lzw")
    return folder


@pytest.mark.usefixtures("crashing")
def test_a_file_that_crashes_its_decoder_is_named_and_the_others_are_picked(
    cryoemmae: Command, tiffs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for skipped in (0, 3):  # the second time, only that file is tried again
        assert cryoemmae("pick", tiffs, "--diameter", 20, "--pixel-size", 2, "--out", out, *QUICK) == 3
        told = json.loads((out / "summary.json").read_text())
        assert told["run"]["failed"] == 1
        assert told["run"]["skipped"] == skipped
        assert "bad.tif: its compressed data are damaged" in told["failed"][0]["reason"]
        assert "bad.tif: its compressed data are damaged" in capsys.readouterr().err
        assert {path.stem for path in (out / "results").iterdir()} == {"a", "c", "d"}


def test_a_report_that_cannot_be_written_is_not_worth_a_run(
    cryoemmae: Command, folder_of_six: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "report").touch()
    assert cryoemmae("pick", folder_of_six, "--diameter", 20, "--out", out, "--no-adapt", "--report", 1) == 0
    assert f"No report: {out / 'report'}: cannot be written" in (said := capsys.readouterr().err)
    assert "with --out" in said


def _garbage(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\xff" * 40)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _infinite(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    lines[-2] = "1e39 3.0 inf 1.0\n"
    path.write_text("".join(lines))


def _size_zero(path: Path) -> None:
    path.write_text(path.read_text().replace("_cryoemmaeRows 40", "_cryoemmaeRows 0"))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


LEFTOVERS = {
    "overlays/mic_0.png": _garbage,
    "overlays/mic_1.png": _pipe,
    "overlays/mic_2.png": _empty,
    "results/mic_1.star": _garbage,
    "results/mic_2.star": _pipe,
    "results/mic_3.star": _empty,
    "results/mic_4.star": _infinite,
    "results/mic_5.star": _size_zero,
    "summary.csv": _garbage,
    "report/data/run.js": _garbage,
}


@pytest.mark.parametrize("how", [_garbage, _pipe, _empty])
def test_broken_leftovers_are_made_again(
    cryoemmae: Command, folder_of_six: Path, tmp_path: Path, how: Callable[[Path], None]
) -> None:
    out = tmp_path / "out"
    command = ("pick", folder_of_six, "--diameter", 20, "--out", out, "--no-adapt")
    command += ("--report", "2") if how is _garbage else ("--report", "none", "--overlays", "none")
    cryoemmae(*command)
    kept = [*(out / "results").iterdir(), *(out / "overlays").glob("*"), out / "picks.star"]
    before = {path: path.read_bytes() for path in kept}
    how(out / "summary.json")
    for name, spoil in LEFTOVERS.items() if how is _garbage else ():
        spoil(out / name)
    assert cryoemmae(*command) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert json.loads((out / "summary.json").read_text())["status"] == "done"
    assert len(list(ResultStore.open(out))) == 6


@pytest.mark.parametrize(("name", "content"), [("settings.json", "[" * 5000), ("preparation.json", "")])
def test_broken_notes_name_the_way_out_and_it_leads_out(
    cryoemmae: Command, folder_of_six: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    out = tmp_path / "out"
    command = ("pick", folder_of_six, "--diameter", 20, "--out", out, *QUICK[1:])
    cryoemmae(*command, "--no-adapt")
    (out / name).write_text(content)
    assert cryoemmae(*command) == 1
    err = capsys.readouterr().err
    assert f"{out / name}: cannot be read" in err
    assert "--overwrite" in err
    assert "Traceback" not in err
    assert cryoemmae(*command, "--overwrite", "--no-adapt") == 0


@pytest.mark.slow
@pytest.mark.parametrize("sink", ["| head -1", "> /dev/full"])
def test_a_run_goes_on_when_nobody_takes_its_output(folder_of_six: Path, tmp_path: Path, sink: str) -> None:
    out = tmp_path / "out"
    words = f"'{sys.executable}' '{FAKE_ENGINE}' pick '{folder_of_six}' --diameter 20 --no-adapt --report none"
    shell = f"{words} --overlays none --out '{out}' {sink}; exit ${{PIPESTATUS[0]}}"
    environment = os.environ | {"PYTHONPATH": str(FAKE_ENGINE.parents[2])}
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((out / "summary.json").read_text())["status"] == "done"
    assert (out / "picks.star").exists()
