"""The External job as RELION starts it: what it leaves behind, and when."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import starfile
import tifffile

from relion_wrapper.dialect import DIALECTS

Job = Callable[..., int]
Process = Callable[..., "subprocess.Popen[str]"]
JOB = "External/job010/"


def exits(job: str = JOB) -> list[str]:
    return sorted(path.name for path in Path(job).glob("RELION_JOB_*"))


@pytest.mark.parametrize(
    ("version", "list_name", "column", "types"),
    [
        pytest.param("3.1", "coords_suffix_autopick.star", "rlnPipeLineNodeType", ["2", "13"], marks=pytest.mark.slow),
        pytest.param(
            "4",
            "autopick.star",
            "rlnPipeLineNodeTypeLabel",
            ["MicrographsCoords.star.relion.autopick", "LogFile.pdf.relion.autopick"],
            marks=pytest.mark.slow,
        ),
        (
            "5",
            "autopick.star",
            "rlnPipeLineNodeTypeLabel",
            ["MicrographCoordsGroup.star.relion.autopick", "LogFile.pdf.relion.autopick"],
        ),
    ],
)
def test_a_job_leaves_what_each_version_of_relion_reads(
    whole_job: Job, three_micrographs: Path, version: str, list_name: str, column: str, types: list[str]
) -> None:
    assert whole_job("--o", JOB, "--in_mics", three_micrographs, "--diameter", 60, "--relion_version", version) == 0
    assert exits() == ["RELION_JOB_EXIT_SUCCESS"]
    nodes = starfile.read(JOB + "RELION_OUTPUT_NODES.star", always_dict=True)
    assert list(nodes) == ["output_nodes"]
    assert list(nodes["output_nodes"]["rlnPipeLineNodeName"]) == [JOB + list_name, JOB + "logfile.pdf"]
    assert [str(kind) for kind in nodes["output_nodes"][column]] == types
    listed = Path(JOB, list_name).read_text()
    if version == "3.1":
        assert listed == f"{three_micrographs}\n"
    else:
        table = starfile.read(JOB + list_name, always_dict=True)["coordinate_files"]
        assert list(table["rlnMicrographName"]) == [f"MotionCorr/job002/Movies/mic_{i}.mrc" for i in range(3)]
        assert list(table["rlnMicrographCoordinates"]) == [f"{JOB}Movies/mic_{i}_autopick.star" for i in range(3)]
    counts = []
    for index in range(3):
        text = Path(f"{JOB}Movies/mic_{index}_autopick.star").read_text()
        assert text.lstrip().startswith("data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n")
        assert "_rlnAutopickFigureOfMerit #3\n_rlnClassNumber #4\n_rlnAnglePsi #5\n" in text
        rows = np.array([line.split() for line in text.splitlines() if line[:1] == " "], float).reshape(-1, 5)
        assert (rows[:, :2] == np.round(rows[:, :2])).all()
        counts.append(len(rows))
    assert counts == [3, 0, 5]
    assert Path(JOB, "logfile.pdf").read_bytes().startswith(b"%PDF")
    options = starfile.read(".gui_manualpickjob.star")["joboptions_values"]
    settings = dict(zip(options["rlnJobOptionVariable"], options["rlnJobOptionValue"], strict=True))
    assert (str(settings["diameter"]), str(settings["angpix"])) == ("60", "3")


def test_every_version_is_known() -> None:
    assert list(DIALECTS) == ["3.1", "4", "5"]


def run(relion_job: Job, star: Path, *words: object, job: str = JOB) -> int:
    return relion_job("--o", job, "--in_mics", star, "--diameter", 60, *words)


def contents(job: str = JOB) -> dict[str, bytes]:
    """All that RELION or a user reads of a job."""
    finals = [path for path in Path(job).rglob("*") if path.is_file() and "cryoemmae" not in path.parts]
    results = Path(job, "cryoemmae", "results").rglob("*.star")
    return {str(path.relative_to(job)): path.read_bytes() for path in [*finals, *results]}


def wait_for(happened: Callable[[], bool], seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def xy_of(path: str) -> np.ndarray:
    rows = [line.split()[:2] for line in Path(path).read_text().splitlines() if line[:1] == " "]
    return np.array(rows, float).reshape(-1, 2)


@pytest.mark.slow
def test_the_version_of_relion_is_told_by_the_projects_pipeline(relion_job: Job, three_micrographs: Path) -> None:
    columns = {
        "3.1": ("rlnPipeLineNodeType", "1"),
        "4": ("rlnPipeLineNodeTypeLabel", "MicrographsData.star.relion.motioncorr"),
        "5": ("rlnPipeLineNodeTypeLabel", "MicrographGroupMetadata.star.relion.motioncorr"),
    }
    for version, (column, kind) in columns.items():
        job = f"External/job{int(float(version)):03d}/"
        Path(job).mkdir(parents=True)
        nodes = f"data_pipeline_nodes\n\nloop_\n_rlnPipeLineNodeName #1\n_{column} #2\n{three_micrographs} {kind}\n"
        Path(job, "job_pipeline.star").write_text(f"\n# version 30001\n\n{nodes}\n")
        assert run(relion_job, three_micrographs, job=job) == 0
        assert Path(job, DIALECTS[version].list_name).exists()
        assert DIALECTS[version].coordinates_type in Path(job, "RELION_OUTPUT_NODES.star").read_text()


def test_progress_in_run_out_looks_like_relions(
    relion_job: Job, three_micrographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(relion_job, three_micrographs) == 0
    said = capsys.readouterr()
    assert "000/??? sec" in said.out or "0/??? sec" in said.out
    picking, drawing = said.out.split("Drawing the report")
    assert picking.count("[oo]") == drawing.count("[oo]") == 4
    assert "Total number of particles from 3 micrographs is 8" in said.out
    assert said.err == ""


def test_run_out_names_the_report_which_has_as_many_pictures_as_asked_for(
    relion_job: Job, three_micrographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Path(JOB, "cryoemmae", "report")
    assert run(relion_job, three_micrographs, "--report", "none") == 0
    assert not report.exists()
    assert "in a browser" not in capsys.readouterr().out
    assert run(relion_job, three_micrographs, "--report", 2) == 0
    assert f"Report, to open in a browser: {report / 'index.html'}" in capsys.readouterr().out
    assert len(list(report.glob("pictures/*-small.jpg"))) == 2


@pytest.mark.slow
def test_continuing_picks_only_what_is_new(
    relion_job: Job, three_micrographs: Path, phantoms: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(relion_job, three_micrographs) == 0
    before = {path: path.stat().st_mtime_ns for path in Path(JOB).rglob("*.star")}
    names = [f"MotionCorr/job002/Movies/mic_{i}.mrc" for i in range(4)]
    phantoms.write_mrc(Path(names[3]), phantoms.noisy((160, 200), 9))
    three_micrographs.write_text(phantoms.micrographs_star(names))
    capsys.readouterr()
    assert run(relion_job, three_micrographs) == 0
    said = capsys.readouterr().out
    assert "3 of 4 micrographs are done already" in said
    assert "Autopicking 1 micrographs" in said
    after = {path: path.stat().st_mtime_ns for path in before}
    changed = [path.name for path in before if after[path] != before[path]]
    assert sorted(changed) == ["autopick.star", "summary.star"]
    assert len(starfile.read(JOB + "autopick.star")) == 4


@pytest.mark.slow
def test_continuing_with_nothing_new_changes_no_file_but_the_marker(relion_job: Job, three_micrographs: Path) -> None:
    assert run(relion_job, three_micrographs) == 0
    before = {path: path.stat().st_mtime_ns for path in Path(JOB).rglob("*") if path.is_file()}
    assert run(relion_job, three_micrographs) == 0
    after = {path: path.stat().st_mtime_ns for path in Path(JOB).rglob("*") if path.is_file()}
    moved = {path.name for path in after if after[path] != before.get(path)}
    assert moved <= {"RELION_JOB_EXIT_SUCCESS", ".lock", "summary.json", "summary.star", "summary.csv", "run.js"}


@pytest.mark.slow
def test_another_threshold_needs_no_picking_and_another_diameter_does(
    relion_job: Job, three_micrographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(relion_job, three_micrographs) == 0
    capsys.readouterr()
    assert run(relion_job, three_micrographs, "--threshold", "1.0") == 0
    assert "No new micrographs" in capsys.readouterr().out
    assert len(xy_of(f"{JOB}Movies/mic_2_autopick.star")) < 5
    assert relion_job("--o", JOB, "--in_mics", three_micrographs, "--diameter", 66) == 0
    assert "Autopicking 3 micrographs" in capsys.readouterr().out
    assert len(xy_of(f"{JOB}Movies/mic_2_autopick.star")) == 5


@pytest.mark.slow
def test_continue_keeps_the_threshold_that_rethreshold_has_chosen(
    relion_job: Job, three_micrographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cryoemmae_plugin.cli import main

    assert run(relion_job, three_micrographs) == 0
    assert main(["rethreshold", JOB + "cryoemmae", "--threshold", "1.0"]) == 0
    capsys.readouterr()
    assert run(relion_job, three_micrographs) == 0
    assert "Threshold 1, as chosen with rethreshold. For another one, give threshold" in capsys.readouterr().out
    assert len(xy_of(f"{JOB}Movies/mic_2_autopick.star")) < 5


@pytest.mark.slow
def test_a_wrong_size_is_said_in_run_out_at_the_end_and_in_run_err(
    whole_job: Job,
    project: Path,
    phantoms: ModuleType,
    particles_of_40_px: np.ndarray,
    capsys: pytest.CaptureFixture[str],
) -> None:
    phantoms.write_mrc(project / "m.mrc", particles_of_40_px, 4.0)
    Path("m.star").write_text(phantoms.micrographs_star(["m.mrc"], [4.0]))
    assert whole_job("--o", JOB, "--in_mics", "m.star", "--diameter", 320, "--adapt", "no") == 0
    out, err = capsys.readouterr()
    for text in (out, err):
        assert text.count("The particles seem to be smaller than 320") == 1
        assert "pixel_size, diameter, contrast" in text
    assert exits() == ["RELION_JOB_EXIT_SUCCESS"]


@pytest.mark.slow
def test_a_file_that_crashes_its_decoder_is_named_and_the_job_ends(
    relion_job: Job, project: Path, phantoms: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from cryoemmae_plugin.images import decoding

    image = (phantoms.noisy((160, 200), 1) * 100 + 1000).astype("uint16")
    for name in ("a.tif", "bad.tif"):
        tifffile.imwrite(name, image, compression="lzw")
    Path("m.star").write_text(phantoms.micrographs_star(["a.tif", "bad.tif"]))
    crash = "\nimport os, tifffile\nwhole = tifffile.TiffFile\n"
    crash += "tifffile.TiffFile = lambda path: os.abort() if 'bad' in path else whole(path)\nserve()"
    monkeypatch.setattr(decoding, "_START", decoding._START.replace("serve()", crash))
    decoding._end_helpers()
    for _ in range(2):
        assert run(relion_job, Path("m.star")) == 0
        assert exits() == ["RELION_JOB_EXIT_SUCCESS"]
        assert "bad.tif: its compressed data are damaged" in capsys.readouterr().err
    assert len(list(Path(JOB, "cryoemmae/results").rglob("*.star"))) == 1


def test_a_micrograph_whose_time_lies_in_the_future_has_coordinates(relion_job: Job, three_micrographs: Path) -> None:
    future = time.time() + 10 * 365 * 86400
    os.utime("MotionCorr/job002/Movies/mic_2.mrc", (future, future))
    for _ in range(2):
        assert run(relion_job, three_micrographs) == 0
        assert len(xy_of(f"{JOB}Movies/mic_2_autopick.star")) == 5


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "data_pipeline_nodes\n\nloop_\n_rlnSomethingElse #1\nx\n", "\0" * 99])
def test_a_pipeline_that_says_nothing_does_not_stop_a_job(
    relion_job: Job, three_micrographs: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("default_pipeline.star").write_text(content)
    assert run(relion_job, three_micrographs) == 0
    assert exits() == ["RELION_JOB_EXIT_SUCCESS"]
    from relion_wrapper.__main__ import main

    assert main(["repick", ".", "--diameter", "60", "--dry-run"]) == 1
    said = capsys.readouterr().out
    assert "default_pipeline.star" in said or "no finished job with micrographs" in said


def test_an_abort_ends_the_job_before_the_next_micrograph(
    relion_job: Job, three_micrographs: Path, monkeypatch: pytest.MonkeyPatch, stand_in: ModuleType
) -> None:
    original = stand_in.TemplatePicker.pick

    def pick_and_abort(self: object, image: np.ndarray, pixel_size_A: float, timer: object = None) -> object:
        Path(JOB, "RELION_JOB_ABORT_NOW").touch()
        return original(self, image, pixel_size_A, timer)

    monkeypatch.setattr(stand_in.TemplatePicker, "pick", pick_and_abort)
    assert run(relion_job, three_micrographs) == 143
    assert exits() == ["RELION_JOB_EXIT_ABORTED"]
    assert len(list(Path(JOB, "cryoemmae/results").rglob("*.star"))) == 1
    assert not Path(JOB, "autopick.star").exists()
    monkeypatch.setattr(stand_in.TemplatePicker, "pick", original)
    assert run(relion_job, three_micrographs) == 0
    assert exits() == ["RELION_JOB_EXIT_SUCCESS"]


def test_an_abort_while_the_job_waited_in_a_queue_is_heeded(relion_job: Job, three_micrographs: Path) -> None:
    Path(JOB).mkdir(parents=True)
    Path(JOB, "RELION_JOB_ABORT_NOW").touch()
    assert run(relion_job, three_micrographs) == 143
    assert exits() == ["RELION_JOB_EXIT_ABORTED"]


@pytest.mark.slow
def test_a_signal_ends_the_job_as_aborted(job_process: Process, three_micrographs: Path) -> None:
    process = job_process("--o", JOB, "--in_mics", three_micrographs, "--diameter", 60, seconds=60)
    wait_for(lambda: Path(JOB, "cryoemmae", "settings.json").exists())
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 128 + signal.SIGTERM
    assert exits() == ["RELION_JOB_EXIT_ABORTED"]
    assert "Continue the job" in out


def test_ctrl_c_ends_the_job_as_aborted(
    relion_job: Job,
    three_micrographs: Path,
    monkeypatch: pytest.MonkeyPatch,
    stand_in: ModuleType,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pick = stand_in.TemplatePicker.pick

    def pick_and_signal(*details: Any, **more: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return pick(*details, **more)

    monkeypatch.setattr(stand_in.TemplatePicker, "pick", pick_and_signal)
    assert run(relion_job, three_micrographs) == 128 + signal.SIGINT
    assert exits() == ["RELION_JOB_EXIT_ABORTED"]
    assert "Continue the job" in capsys.readouterr().out


@pytest.mark.slow
def test_killed_in_the_middle_and_run_again_gives_the_same_bytes(
    job_process: Process, relion_job: Job, three_micrographs: Path
) -> None:
    assert run(relion_job, three_micrographs) == 0
    whole = contents()
    shutil.rmtree(JOB)
    process = job_process("--o", JOB, "--in_mics", three_micrographs, "--diameter", 60, seconds=1.5)
    wait_for(lambda: any(Path(JOB, "cryoemmae").rglob("mic_0.star")))
    process.kill()
    process.communicate()
    assert exits() == []
    assert len(list(Path(JOB, "cryoemmae/results").rglob("*.star"))) < 3
    assert run(relion_job, three_micrographs) == 0
    assert contents() == whole


@pytest.mark.slow
def test_a_bad_micrograph_is_named_and_skipped(
    relion_job: Job, three_micrographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = Path("MotionCorr/job002/Movies/mic_1.mrc")
    bad.write_bytes(bad.read_bytes()[:-100])
    assert run(relion_job, three_micrographs) == 0
    said = capsys.readouterr()
    assert "WARNING: skipped MotionCorr/job002/Movies/mic_1.mrc" in said.err
    assert exits() == ["RELION_JOB_EXIT_SUCCESS"]
    assert len(starfile.read(JOB + "autopick.star")) == 2
    assert not Path(f"{JOB}Movies/mic_1_autopick.star").exists()


def test_a_job_of_which_every_micrograph_fails_has_failed(
    relion_job: Job, three_micrographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in Path("MotionCorr/job002/Movies").iterdir():
        path.write_bytes(b"not an image")
    assert run(relion_job, three_micrographs) == 1
    assert "all 3 micrographs failed" in capsys.readouterr().err
    assert exits() == ["RELION_JOB_EXIT_FAILURE"]
    assert not Path(JOB, "autopick.star").exists()


def test_what_nobody_foresaw_ends_the_job_as_failed_with_a_traceback(
    relion_job: Job, three_micrographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*words: object) -> None:
        raise ZeroDivisionError("no such luck")

    monkeypatch.setattr("relion_wrapper.job.publish_coordinates", broken)
    assert run(relion_job, three_micrographs) == 1
    assert exits() == ["RELION_JOB_EXIT_FAILURE"]
    said = capsys.readouterr().err
    assert "unexpected ZeroDivisionError" in said
    assert "Traceback" in said


def test_the_marker_comes_after_everything_else(
    relion_job: Job, three_micrographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    replace, touch = os.replace, Path.touch
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(Path(b).name), replace(a, b))[1])
    monkeypatch.setattr(Path, "touch", lambda self, *a, **k: (order.append(self.name), touch(self, *a, **k))[1])
    assert run(relion_job, three_micrographs) == 0
    seen = [name for name in order if name.endswith(("_autopick.star", "autopick.star", "NODES.star", "SUCCESS"))]
    coordinates = [f"mic_{i}_autopick.star" for i in range(3)]
    assert seen == [*coordinates, "autopick.star", "RELION_OUTPUT_NODES.star", "RELION_JOB_EXIT_SUCCESS"]


def test_rows_of_a_tiff_are_counted_as_relion_does(relion_job: Job, project: Path, phantoms: ModuleType) -> None:
    image = phantoms.noisy((120, 160), 0) * 0.1
    phantoms.draw_phantom(image, 50.0, 30.0)
    phantoms.write_mrc(Path("Micrographs/b.mrc"), image.astype(np.float16))
    tifffile.imwrite("Micrographs/a.tif", image)
    star = Path("mics.star")
    star.write_text(phantoms.micrographs_star(["Micrographs/a.tif", "Micrographs/b.mrc"]))
    assert run(relion_job, star) == 0
    assert xy_of(f"{JOB}Micrographs/a_autopick.star")[0].tolist() == [50, 120 - 1 - 30]
    assert xy_of(f"{JOB}Micrographs/b_autopick.star")[0].tolist() == [50, 30]


@pytest.mark.slow
def test_a_model_trained_by_the_job_is_kept_for_every_continue(
    three_micrographs: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from relion_wrapper.__main__ import main

    def train(used: list[Any], folder: Path, name: str, **options: Any) -> Path:
        trained.append([str(micrograph.path) for micrograph in used])
        options["progress"](1, 1, 0.5)
        shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
        return folder

    trained: list[list[str]] = []
    monkeypatch.setattr("cryoemmae_plugin.training.train.train_model", train)
    words = ["--o", JOB, "--in_mics", str(three_micrographs), "--diameter", "60", "--mode", "paper", "--train_on", "2"]
    assert main(words) == 0, capsys.readouterr().err
    assert main([*words, "--threshold", "0.1"]) == 0
    assert trained == [["MotionCorr/job002/Movies/mic_0.mrc", "MotionCorr/job002/Movies/mic_2.mrc"]]
    assert "Using the model that this job has trained" in capsys.readouterr().out


def test_a_job_picks_with_the_model_that_was_adapted_in_its_folder(
    relion_job: Job,
    three_micrographs: Path,
    tiny_model: Path,
    stand_in: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Path] = []
    engines: list[str] = []

    def settle(self: Any, settings: Any, micrographs: Any) -> Any:
        asked.extend(micrograph.path for micrograph in micrographs)
        return settings.model_copy(update={"model": "External/job010/cryoemmae/model"})

    def build(settings: Any, request: Any) -> Any:
        engines.append(settings.model_name)
        return stand_in.build_engine(settings, request)

    monkeypatch.setattr("cryoemmae_plugin.run.preparation.Preparation.settle_model", settle)
    monkeypatch.setattr("cryoemmae_plugin.run.engine.build_engine", build)
    assert run(relion_job, three_micrographs, "--model", tiny_model) == 0
    assert engines == [str(tiny_model), "External/job010/cryoemmae/model"]
    assert len(asked) == 3


@pytest.mark.slow
def test_a_first_pass_over_few_micrographs_says_that_it_does_not_adapt(
    relion_job: Job, three_micrographs: Path
) -> None:
    note = Path(JOB, "cryoemmae", "preparation.json")
    assert run(relion_job, three_micrographs, "--adapt", "no") == 0
    assert not note.exists()
    assert run(relion_job, three_micrographs, job="External/job011/") == 0
    assert "3 micrographs, fewer than 5" in Path("External/job011/cryoemmae/preparation.json").read_text()
