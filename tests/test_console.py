"""What a command says does not decide whether it goes on."""

from __future__ import annotations

import logging
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cryoemmae_plugin.cli.app import main
from cryoemmae_plugin.log import library_log
from cryoemmae_plugin.terminal.console import Reporter
from cryoemmae_plugin.terminal.streams import write_if_possible

SAY = (
    "import sys\nfrom cryoemmae_plugin.terminal.console import Reporter\nreporter = Reporter()\n"
    "for i in range(20000): reporter.say('line')\nopen(sys.argv[1], 'w').write('done')\n"
)


def test_a_command_goes_on_when_nobody_reads_what_it_says(tmp_path: Path) -> None:
    script, end = tmp_path / "say.py", tmp_path / "end"
    script.write_text(SAY)
    shell = f"'{sys.executable}' '{script}' '{end}' | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "line\n", "")
    assert end.read_text() == "done"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_command_goes_on_when_its_log_cannot_be_written(tmp_path: Path) -> None:
    script, end = tmp_path / "say.py", tmp_path / "end"
    script.write_text(SAY)
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run([sys.executable, script, end], stdout=full, stderr=subprocess.PIPE, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    assert end.read_text() == "done"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_job_goes_on_when_run_out_cannot_be_written() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        write_if_possible(full, "Picking")
        write_if_possible(full, "Done")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["pick", "--help"], ["models", "list"], ["evaluate", "ref.csv", "picks.csv"]])
def test_what_a_command_is_asked_for_and_cannot_be_written_is_an_error(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ref.csv", "picks.csv"):
        Path(name).write_text("micrograph,x,y,diameter\na.mrc,10,10,5\n")
    with open("/dev/full", "w") as full:  # noqa: PTH123
        monkeypatch.setattr("sys.stdout", full)
        assert main(words) == 1
        with suppress(OSError):
            full.close()
    assert "Error: no space left for what this command says" in capsys.readouterr().err


def test_a_name_that_is_not_utf8_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter().say("mic\udcff.mrc: picked")
    Reporter().error("mic\udcff.mrc: damaged")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("mic?.mrc: picked\n", "Error: mic?.mrc: damaged\n")


def test_what_is_odd_about_a_file_is_shown_once_and_of_few_files() -> None:
    shown: list[str] = []
    with library_log(shown.append):
        for name in ["a.mrc", str(Path("a.mrc").absolute()), *map(str, range(30)), "a.mrc"]:
            logging.getLogger("cryoemmae_plugin.images.mrc").warning("%s: surplus bytes", name)
        for _ in range(2):
            logging.getLogger("cryoemmae_plugin.run").warning("waiting for workers")
    assert shown[:2] == ["a.mrc: surplus bytes", "0: surplus bytes"]
    assert shown[10].startswith("More files are odd")
    assert shown[11:] == ["waiting for workers"] * 2
