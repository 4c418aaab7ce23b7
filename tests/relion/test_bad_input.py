"""What a user may get wrong: a message in run.err, a failure marker, nothing half-written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.picks.relion_coordinates import root_of
from relion_wrapper.micrographs import read_job_micrographs

Job = Callable[..., int]
JOB = "External/job010/"
OLD = (
    "\ndata_\n\nloop_\n_rlnMicrographName #1\n_rlnMagnification #2\n_rlnDetectorPixelSize #3\n_rlnVoltage #4\n"
    "Micrographs/a.mrc 50000 7.0 300\nMicrographs/b.mrc 50000 7.0 300\n"
)
NO_PIXEL_SIZE = "\ndata_\n\nloop_\n_rlnMicrographName #1\n_rlnVoltage #2\nMicrographs/a.mrc 300\n"
ORIGINAL_ONLY = (
    "\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnMicrographOriginalPixelSize #2\n1 0.8\n\n"
    "data_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\nMicrographs/a.mrc 1\n"
)


@pytest.fixture
def two_files(project: Path, phantoms: ModuleType) -> Path:
    for name in "ab":
        phantoms.write_mrc(project / f"Micrographs/{name}.mrc", phantoms.noisy((60, 80), ord(name)))
    return project


def test_pixel_sizes_come_by_optics_group_and_in_all_generations(two_files: Path, phantoms: ModuleType) -> None:
    star = Path("mics.star")

    def sizes(text: str, **options: float) -> list[float]:
        star.write_text(text)
        return [micrograph.pixel_size_A for micrograph in read_job_micrographs(star, **options)]

    names = ["Micrographs/a.mrc", "Micrographs/b.mrc"]
    assert sizes(phantoms.micrographs_star(names, (1.5, 2.5))) == [1.5, 2.5]
    assert sizes(OLD) == pytest.approx([1.4, 1.4])
    assert sizes(ORIGINAL_ONLY) == [0.8]
    assert sizes(NO_PIXEL_SIZE, pixel_size_A=2.0) == [2.0]


@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("MotionCorr/job030/Micrographs/mic_001.mrc", "Micrographs/mic_001"),
        ("MotionCorr/job030/mic.x.mrc", "mic.x"),
        ("Micrographs/deep/mic_001.mrc", "Micrographs/deep/mic_001"),
        ("MotionCorr/job1030/Movies/a.mrc", "Movies/a"),
        ("job003/a.mrc", "job003/a"),
        ("/data/set/a.mrc", "data/set/a"),
        ("MotionCorr/job002/job003/a.mrc", "job003/a"),
    ],
)
def test_coordinates_lie_where_relion_looks_for_them(name: str, root: str) -> None:
    assert root_of(name) == root


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("", "the file is empty"),
        ("\ndata_movies\n\nloop_\n_rlnMicrographMovieName #1\nMovies/a.tif\n", "run motion correction first"),
        (NO_PIXEL_SIZE, "no pixel size of Micrographs/a.mrc"),
        (OLD.replace("50000", "0"), "the pixel size of Micrographs/a.mrc"),
        (OLD.replace("Micrographs/", "Elsewhere/"), "none of its 2 micrographs exists, Elsewhere/a.mrc"),
        (
            OLD.replace("Micrographs/a", "A/job001/x/a").replace("Micrographs/b", "B/job002/x/a"),
            "A/job001/x/a.mrc and B/job002/x/a.mrc would both have the coordinate file x/a_autopick.star",
        ),
        (OLD.replace("Micrographs/a", "../a"), "a path with '..'"),
        (OLD.replace("Micrographs/a", "a" * 245), "the name of its coordinate file would have 259 bytes"),
    ],
)
def test_a_star_that_cannot_be_picked_fails_the_job_with_a_reason(
    relion_job: Job, two_files: Path, text: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        Path("mics.star").write_text(text)
    assert relion_job("--o", JOB, "--in_mics", "mics.star", "--diameter", 60) == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in Path(JOB).iterdir()] == ["RELION_JOB_EXIT_FAILURE"]


def test_a_missing_diameter_fails_the_job_and_says_where_it_goes(
    relion_job: Job, two_files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(JOB).mkdir(parents=True)
    Path(JOB, "RELION_JOB_EXIT_SUCCESS").touch()
    assert relion_job("--o", JOB, "--in_mics", "mics.star") == 2
    assert "Param1" in capsys.readouterr().err
    assert [path.name for path in Path(JOB).iterdir()] == ["RELION_JOB_EXIT_FAILURE"]


def test_a_folder_that_cannot_be_written_is_named(
    relion_job: Job, two_files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mics.star").write_text(OLD)
    Path(JOB).mkdir(parents=True)
    Path(JOB).chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        assert relion_job("--o", JOB, "--in_mics", "mics.star", "--diameter", 60) == 1
    finally:
        if root:
            os.seteuid(0)
    assert f"{JOB.rstrip('/')}: the job's folder cannot be written (Permission denied)" in capsys.readouterr().err
    assert list(Path(JOB).iterdir()) == []


def test_a_job_folder_that_is_a_file_is_named(
    relion_job: Job, two_files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("External").mkdir()
    Path("External/job010").touch()
    assert relion_job("--o", JOB, "--in_mics", "mics.star", "--diameter", 60) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_no_job_folder_at_all_is_an_error(relion_job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert relion_job("--in_mics", "mics.star") == 2
    assert "--o" in capsys.readouterr().err


def test_two_micrographs_of_one_name_are_one(two_files: Path) -> None:
    Path("mics.star").write_text(OLD.replace("Micrographs/b", "Micrographs/a"))
    assert [micrograph.root for micrograph in read_job_micrographs(Path("mics.star"))] == ["Micrographs/a"]


def test_an_optics_group_that_is_not_there_is_named(two_files: Path, phantoms: ModuleType) -> None:
    text = phantoms.micrographs_star(["Micrographs/a.mrc", "Micrographs/b.mrc"], (1.5, 2.5))
    Path("mics.star").write_text(text.replace("group2 2 ", "group2 7 "))
    with pytest.raises(InputError, match="optics group 2"):
        read_job_micrographs(Path("mics.star"))


def test_each_micrograph_is_picked_at_its_own_pixel_size(
    relion_job: Job, two_files: Path, phantoms: ModuleType, monkeypatch: pytest.MonkeyPatch, stand_in: ModuleType
) -> None:
    seen: list[float] = []
    original = stand_in.TemplatePicker.pick

    def note(self: object, image: np.ndarray, pixel_size_A: float, timer: object = None) -> object:
        seen.append(pixel_size_A)
        return original(self, image, pixel_size_A, timer)

    monkeypatch.setattr(stand_in.TemplatePicker, "pick", note)
    Path("mics.star").write_text(phantoms.micrographs_star(["Micrographs/a.mrc", "Micrographs/b.mrc"], (1.5, 2.5)))
    assert relion_job("--o", JOB, "--in_mics", "mics.star", "--diameter", 60) == 0
    assert seen == [1.5, 2.5]
