"""The picker in a job: the real one, in one process and in two."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.parametrize("mode", ["paper"])
def test_a_job_picks_with_a_real_model(
    three_micrographs: Path, tiny_model: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from relion_wrapper.__main__ import main

    words = ["--o", "External/job010/", "--in_mics", str(three_micrographs), "--diameter", "60", "--mode", mode]
    status = main([*words, "--model", str(tiny_model), "--gpu", "--j", "1", "--pipeline_control", "External/job010/"])
    assert status == 0, capsys.readouterr().err
    assert len(list(Path("External/job010/Movies").glob("*_autopick.star"))) == 3
