"""A picking job whose diameter RELION's user has left to the micrographs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cryoemmae_plugin.core.diameter import DiameterEstimate
from cryoemmae_plugin.run import diameter as module
from cryoemmae_plugin.run.store import ResultStore
from relion_wrapper.commands import make_job

Job = Callable[..., int]
JOB = "External/job010/"


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the micrographs say; the last one counts."""
    answers = [61.0]
    estimate = lambda scans: DiameterEstimate(answers[-1], 0.09, 8, ((55.0, 1.0),))  # noqa: E731
    monkeypatch.setattr(module, "estimate_diameter", estimate)
    return answers


def picked_with(job: str = JOB) -> float:
    return ResultStore.open(Path(job, "cryoemmae")).record.settings.diameter_A


@pytest.mark.slow
def test_the_first_pass_estimates_and_later_passes_keep_the_number(
    relion_job: Job, three_micrographs: Path, answer: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--o", JOB, "--in_mics", three_micrographs, "--diameter", "auto")
    assert relion_job(*words) == 0
    assert picked_with() == 61
    said = capsys.readouterr().out
    assert "Estimated diameter: 61 Angstrom" in said
    assert said.isascii()
    answer.append(90.0)
    assert relion_job(*words) == 0
    assert picked_with() == 61
    assert "3 of 3 micrographs are done already" in capsys.readouterr().out


@pytest.mark.slow
def test_a_job_that_cannot_tell_fails_and_says_what_to_do(
    relion_job: Job, three_micrographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert relion_job("--o", JOB, "--in_mics", three_micrographs, "--diameter", "auto") != 0
    assert Path(JOB, "RELION_JOB_EXIT_FAILURE").exists()
    assert "diameter" in capsys.readouterr().err


def test_make_job_writes_a_job_that_estimates(tmp_path: Path) -> None:
    out = tmp_path / "pick.job.star"
    make_job(in_mics="mics.star", diameter="auto", out=out)
    assert "auto" in out.read_text().split("diameter", 1)[1][:200]
