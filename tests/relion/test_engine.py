"""The picker in a job: the real one, in one process and in two."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("light")


@pytest.mark.slow
def test_a_job_on_two_workers_leaves_the_files_of_one(
    three_micrographs: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed", reason="dask is not installed")
    from relion_wrapper.__main__ import main

    def coordinates(job: str, *words: str) -> dict[str, bytes]:
        asked = ["--in_mics", str(three_micrographs), "--diameter", "60", "--mode", "paper", "--model", str(tiny_model)]
        asked += ["--gpu", "--pipeline_control", job]
        assert main(["--o", job, *asked, *words]) == 0, capsys.readouterr().err
        assert [path.name for path in Path(job).glob("RELION_JOB_*")] == ["RELION_JOB_EXIT_SUCCESS"]
        return {path.name: path.read_bytes() for path in Path(job, "Movies").iterdir()}

    one = coordinates("External/job010/", "--j", "1")
    assert sorted(one) == [f"mic_{index}_autopick.star" for index in range(3)]
    assert one == coordinates("External/job011/", "--j", "2", "--workers", "2")
    assert "2 workers (the CPU, 1 threads each)" in capsys.readouterr().out


@pytest.mark.slow
def test_an_abort_is_heeded_while_a_job_waits_for_workers(
    three_micrographs: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    from relion_wrapper.__main__ import main

    job = Path("External/job010/")
    hidden = {"dashboard": False, "dashboard_address": "127.0.0.1:0", "host": "127.0.0.1", "port": 0}
    with distributed.SpecCluster(scheduler={"cls": distributed.Scheduler, "options": hidden}) as nobody:
        abort = threading.Timer(3.0, (job / "RELION_JOB_ABORT_NOW").touch)
        abort.start()
        words = ["--in_mics", str(three_micrographs), "--diameter", "60", "--model", str(tiny_model), "--gpu"]
        asked = ["--executor", "dask", "--scheduler", nobody.scheduler_address]
        assert main(["--o", str(job), *words, *asked]) == 143
        abort.join()
    assert [path.name for path in job.glob("RELION_JOB_*")] == ["RELION_JOB_EXIT_ABORTED"]
    assert "Continue the job" in capsys.readouterr().out
