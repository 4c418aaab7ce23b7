"""A picking job with the particles of a Select job as its second input: what they teach, and where the rest are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cryoemmae_plugin.core.picker import load_head
from cryoemmae_plugin.run import class_selection
from cryoemmae_plugin.run.preparation import read_preparation
from cryoemmae_plugin.training import refine as training
from cryoemmae_plugin.weights import read_card
from relion_wrapper.refining import all_classified

pytestmark = pytest.mark.slow

Job = Callable[..., int]
FIRST, SECOND = "External/job010/", "External/job020/"
SELECT, CLASSES = Path("Select/job015"), Path("Class2D/job014/run_it025")


def coordinates(job: str) -> dict[str, NDArray[np.float64]]:
    """What a job has picked, by the name of the micrograph."""
    found = {}
    for path in sorted(Path(job).glob("Movies/*_autopick.star")):
        rows = [line.split()[:2] for line in path.read_text().splitlines() if line[:1] == " "]
        name = f"MotionCorr/job002/Movies/{path.name.removesuffix('_autopick.star')}.mrc"
        found[name] = np.array(rows, float).reshape(-1, 2)
    return found


def write_particles(path: Path, picks: Sequence[tuple[str, float, float]]) -> None:
    """Particles as RELION 3.1 writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = "\n".join(f"{name} {x:.6f} {y:.6f} 1 1" for name, x, y in picks)
    path.write_text(
        "\n# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnMicrographOriginalPixelSize #2\n"
        "_rlnImagePixelSize #3\n1 3.0 6.0\n\n\n# version 30001\n\ndata_particles\n\nloop_\n_rlnMicrographName #1\n"
        f"_rlnCoordinateX #2\n_rlnCoordinateY #3\n_rlnClassNumber #4\n_rlnOpticsGroup #5\n{rows}\n\n"
    )


def write_select_job(value: str) -> None:
    (SELECT / "job.star").write_text(
        "\n# version 30001\n\ndata_job\n\n_rlnJobType 7\n\n\ndata_joboptions_values\n\nloop_\n"
        f'_rlnJobOptionVariable #1\n_rlnJobOptionValue #2\nfn_data ""\nfn_model {value}\n\n'
    )


@pytest.fixture
def selected(relion_job: Job, three_micrographs: Path) -> Path:
    """Five of eight picks of a first job, as a Select job has kept them; its STAR."""
    assert relion_job("--o", FIRST, "--in_mics", three_micrographs, "--diameter", 60) == 0
    picks = [(name, x, y) for name, xy in coordinates(FIRST).items() for x, y in xy]
    assert len(picks) == 8
    write_particles(Path(f"{CLASSES}_data.star"), picks)
    write_particles(SELECT / "particles.star", picks[:5])
    write_select_job(f"{CLASSES}_model.star")
    return SELECT / "particles.star"


def test_what_the_select_job_has_kept_refines_the_model_of_a_second_job(
    relion_job: Job,
    three_micrographs: Path,
    selected: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(class_selection, "LEAST_KEPT", 3)
    shown: list[tuple[int, int]] = []

    def refine(model: object, head: object, judged: Sequence[training.JudgedMicrograph], **_: object) -> object:
        shown.extend((len(one.kept), len(one.dropped)) for one in judged)
        return load_head(model)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "refine_head", refine)
    words = ("--in_mics", three_micrographs, "--in_parts", selected, "--diameter", 60, "--model", tiny_model)
    assert relion_job("--o", SECOND, *words) == 0
    assert shown == [(3, 0), (2, 3)]
    work = Path(SECOND, "cryoemmae")
    assert read_card(work / "model").name == "tiny-refined"
    assert read_preparation(work).refinement is not None
    assert coordinates(SECOND).keys() == coordinates(FIRST).keys()
    assert "5 kept particles are few" in capfd.readouterr().err


def test_the_dropped_particles_are_found_in_every_version(selected: Path) -> None:
    assert all_classified(selected) == Path(f"{CLASSES}_data.star")
    write_select_job(f"{CLASSES}_optimiser.star")  # RELION 4 and 5
    assert all_classified(selected) == Path(f"{CLASSES}_data.star")
    write_select_job('""')
    assert all_classified(selected) is None


def test_the_diameter_must_be_given(
    relion_job: Job, three_micrographs: Path, selected: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("--in_mics", three_micrographs, "--in_parts", selected)
    assert relion_job("--o", SECOND, *words, "--diameter", "auto") == 2
    assert "give the one diameter in" in capfd.readouterr().err
