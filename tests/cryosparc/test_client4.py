"""The same with the 4.7.1 client, in a virtual environment of its own that borrows the rest from this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testserver.state import PASSWORD, Refusal

pytestmark = pytest.mark.slow
CLIENT = "4.7.1"
HELPERS = Path(__file__).resolve().parent / "helpers"


@pytest.fixture(scope="session")
def python4(request: pytest.FixtureRequest) -> Path:
    """Python with cryosparc-tools 4.7.1; made once, and kept."""
    number = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = request.config.cache.mkdir("cryosparc-client") / f"{CLIENT}-python{number}"  # type: ignore[union-attr]
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, clear=True, with_pip=False)
        install = ["install", "--quiet", "--no-deps", "--only-binary", ":all:", f"cryosparc-tools=={CLIENT}"]
        pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
        done = subprocess.run([*pip, *install], capture_output=True, text=True, check=False, timeout=900)
        if done.returncode:
            pytest.skip(f"cryosparc-tools {CLIENT} cannot be installed: {done.stderr.strip()[-300:]}")
        site = next(folder.glob("lib/python*/site-packages"))
        main = sysconfig.get_path("purelib")
        (site / "borrowed.pth").write_text(f"import site; site.addsitedir({main!r})\n")
        (folder / "ready").touch()
    return python


def run(world: Any, python: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command line with the old client and the stub picker."""
    return subprocess.run(
        [python, HELPERS / "driver.py", *arguments],
        env=world.environment(**more),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


ANYWHERE = ("--edge-distance", "0", "--min-distance", "0")  # where the stand-in picks
PICK = ("pick", "--project", "P3", "--workspace", "W1", "--exposures", "J2.exposures", "--diameter", "30", *ANYWHERE)


@pytest.fixture
def world4(make_world: Callable[..., Any]) -> Any:
    return make_world("4.7.1")


def test_whole_job_doctor_and_an_unfitting_client(world4: Any, python4: Path, make_world: Callable[..., Any]) -> None:
    exposures = world4.few(3)
    done = run(world4, python4, *PICK, "--title", "old and good")
    assert done.returncode == 0, done.stderr
    job = world4.state.jobs["P3", "J3"]
    assert (job.title, job.statuses) == ("old and good", ["running", "completed"])
    particles = world4.saved("J3")
    assert len(particles) == 9
    assert sorted(set(particles["location/micrograph_uid"])) == [row["uid"] for row in exposures.rows]
    assert tuple(particles["location/micrograph_shape"][0]) == (48, 64)
    assert list(world4.saved("J3", "exposures_accepted")["uid"]) == [row["uid"] for row in exposures.rows]
    assert len(world4.saved("J3", "exposures_rejected")) == 0
    assert len(job.plots) == 3 + 3
    assert "Ready to pick" in job.texts
    assert "Done" in job.texts

    done = run(world4, python4, "doctor", "--project", "P3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cryosparc-tools 4.7.1 fits" in done.stdout
    assert "in sight" in done.stdout


def test_files_out_of_sight_a_bad_password_and_another_version(
    world4: Any, python4: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    world4.few(2)
    world4.state.advertised["P3"] = Path("/nowhere/on/this/host")
    done = run(world4, python4, *PICK, "--overlays", "0")
    assert done.returncode == 0, done.stderr
    assert len(world4.saved("J3")) == 6
    assert world4.state.calls.count("get_project_file") == 1 + 2  # the exposures themselves, and their images

    wrong = "not-" + PASSWORD
    done = run(world4, python4, *PICK, "--debug", CRYOSPARC_PASSWORD=wrong)
    assert done.returncode == 1
    assert "was refused" in done.stderr
    assert wrong not in done.stdout + done.stderr

    world4.state.version = "4.6.2"
    done = run(world4, python4, *PICK)
    assert done.returncode == 1
    assert "pip install cryosparc-tools~=4.6.0" in " ".join(done.stderr.split())


def test_signal_resume_and_refusal(world4: Any, python4: Path, tmp_path: Path) -> None:
    world4.few(120)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [python4, HELPERS / "driver.py", *PICK],
            env=world4.environment(STUB_DELAY_S="0.2"),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        until = time.monotonic() + 300
        while ("P3", "J3") not in world4.state.jobs or "Picking" not in world4.state.jobs["P3", "J3"].texts:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(200) == 128 + signal.SIGTERM
    job = world4.state.jobs["P3", "J3"]
    assert job.status == "failed"
    assert "resume --project P3 --job J3" in job.texts
    assert 0 < len(world4.saved("J3")) < 360

    done = run(world4, python4, "resume", "--project", "P3", "--job", "J3")
    assert done.returncode == 0, done.stderr
    assert job.statuses == ["running", "failed", "running", "completed"]
    assert len(world4.saved("J3")) == 360

    def refuse(state: Any) -> None:
        raise Refusal(422, "missing field ('location/micrograph_shape','<u4',(2,))")

    world4.state.hooks["save_output"] = refuse
    done = run(world4, python4, *PICK, "--limit", "1")
    assert done.returncode == 1
    assert "location/micrograph_shape" in done.stderr
    assert world4.state.jobs["P3", "J4"].status == "failed"
