"""The job inside a real RELION: import, pick, extract, classify, with nobody laying a hand on anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import mrcfile
import numpy as np
import pytest
import scipy.ndimage
import starfile
from numpy.typing import NDArray

from cryoemmae_plugin.run.preparation import read_preparation
from cryoemmae_plugin.star import format_table
from cryoemmae_plugin.weights import read_card
from relion_wrapper.__main__ import main
from relion_wrapper.jobstar import external_job_star
from relion_wrapper.project import Job, Project

EMPTY_PIPELINE = "\n# version 30001\n\ndata_pipeline_general\n\n_rlnPipeLineJobCounter 1\n\n"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.relion,
    pytest.mark.skipif(shutil.which("relion_pipeliner") is None, reason="NO RELION ON THIS MACHINE: not tested"),
]

SHAPE = (300, 420)
BOX_PX = 36
PER_MICROGRAPH = 45
DIAMETER_A = 84  # two deviations beyond the outermost blobs: at less, the job warns that the particles seem larger
UPRIGHT = 1  # the micrograph in which every phantom stands upright
PIXEL_SIZE_A = 3.0


def job_star(kind: int, options: Mapping[str, object]) -> str:
    head = f"\n# version 30001\n\ndata_job\n\n_rlnJobType {kind}\n_rlnJobIsContinue 0\n\n\n# version 30001\n\n"
    columns = ("rlnJobOptionVariable", "rlnJobOptionValue")
    return head + format_table("joboptions_values", columns, [(key, value) for key, value in options.items()])


@dataclass
class Chain:
    """A project after import, picking, extraction and classification."""

    project: Project
    picked: Job
    extracted: Job
    classified: Job


def run(project: Project, text: str) -> Job:
    star = project.folder / "next.job.star"
    star.write_text(text)
    job = project.run(project.add(star))
    said = "".join((project.folder / job.name / name).read_text() for name in ("run.out", "run.err"))
    assert job.status == "Succeeded", f"{job}\n{said[-3000:]}"
    return job


@dataclass(frozen=True)
class Scheduled:
    """Starts RELION's scheduler in a project of its own, with three micrographs."""

    project: Path
    phantoms: ModuleType
    template_file: Path

    def install(self, stand_in: ModuleType, diameter_A: int, words: str) -> None:
        self.project.mkdir()
        (self.project / "default_pipeline.star").write_text(EMPTY_PIPELINE)
        for index in range(3):
            self.draw(index)
        given = f"--diameter {diameter_A} --pixel-size 3 --relion-version 3.1 --name otf --wait 1 --passes 2 --box 36"
        small = "--threads 1 --classes 1 --iterations 2 --psi-step 30 --threshold 0.6"
        program = ["--executable", f"{sys.executable} {stand_in.__file__}"]
        assert main(["install-scheme", str(self.project), *f"{given} {small} {words}".split(), *program]) == 0

    def draw(self, index: int) -> None:
        draw_micrograph(self.phantoms, self.project / f"Micrographs/mic_{index}.mrc", index, upright=True)

    def start(self, *words: str) -> subprocess.Popen[str]:
        environment = os.environ | {"STAND_IN_TEMPLATE": str(self.template_file)}
        command = ["relion_scheduler", "--schedule", "otf", *words]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, cwd=self.project, env=environment, text=True, **streams)  # type: ignore[call-overload, no-any-return]

    def run(self, *words: str) -> None:
        process = self.start(*words)
        try:
            said, _ = process.communicate(timeout=900)
        finally:
            process.kill()
        assert process.returncode == 0, said[-3000:]

    def pick_on_the_fly(self) -> dict[str, int]:
        """Give it two more micrographs once three are picked; the times of the coordinates of these three."""
        scheduler = self.start("--run")
        try:
            wait_for(lambda: (self.project / "External/job002/RELION_JOB_EXIT_SUCCESS").exists(), scheduler)
            first = coordinate_times(self.project)
            for index in (3, 4):
                self.draw(index)
            said, _ = scheduler.communicate(timeout=900)
        finally:
            scheduler.kill()
        assert scheduler.returncode == 0, said[-3000:]
        return first

    def refine_by_a_selection(self) -> list[Job]:
        """Keep the particles on the left once there are classes, and go on; the jobs before."""
        self.run("--run")
        here = Project(self.project)
        before = here.jobs()
        picked = f"{before[-1].name}run_it002_data.star"
        selected = run(here, job_star(7, select_options(picked, "rlnCoordinateX", 0, SHAPE[1] / 2)))
        self.run("--set_var", "selected", "--value", f"{selected.name}particles.star")
        self.run("--set_var", "passes", "--value", "0")
        self.run("--set_current_node", "WAIT")
        self.run("--run")
        return before


@dataclass(frozen=True)
class Schedules:
    """Projects whose schedules run in threads."""

    on_the_fly: Scheduled
    picked_first: Future[dict[str, int]]
    second_round: Scheduled
    before_selection: Future[list[Job]]


@pytest.fixture(scope="module", autouse=True)
def schedules(
    tmp_path_factory: pytest.TempPathFactory, phantoms: ModuleType, stand_in: ModuleType, template_file: Path
) -> Iterator[Schedules]:
    """Both begin before the first test: RELION sleeps most of the time, and the other tests compute meanwhile."""
    folder = tmp_path_factory.mktemp("scheduled")
    one, two = (Scheduled(folder / name, phantoms, template_file) for name in ("on-the-fly", "second-round"))
    enough = 3 * PER_MICROGRAPH + 1  # to classify, but only once the second batch is there
    one.install(stand_in, 54, f"--min-particles {enough}")
    two.install(stand_in, DIAMETER_A, "--min-particles 1 --second-round")
    with ThreadPoolExecutor() as pool:
        yield Schedules(one, pool.submit(one.pick_on_the_fly), two, pool.submit(two.refine_by_a_selection))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, phantoms: ModuleType, stand_in: ModuleType) -> Chain:
    """Seven micrographs, not square: in one all phantoms stand upright, in the others they are turned at random."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "default_pipeline.star").write_text(EMPTY_PIPELINE)
    for index in range(7):
        draw_micrograph(phantoms, folder / f"Micrographs/mic_{index}.mrc", index, upright=index == UPRIGHT)
    template = folder / "template.npy"
    np.save(template, all_views(phantoms))
    patch = pytest.MonkeyPatch()
    patch.setenv("STAND_IN_TEMPLATE", str(template))
    try:
        project = Project(folder)
        run(project, job_star(0, import_options()))
        executable = f"{sys.executable} {stand_in.__file__}"
        parameters = {"diameter": str(DIAMETER_A), "threshold": "0.6", "adapt": "no"}
        star = "Import/job001/micrographs.star"
        picked = run(project, external_job_star(star, parameters, threads=1, executable=executable))
        coordinates = f"{picked.name}coords_suffix_autopick.star"
        extracted = run(project, job_star(5, extract_options(star, coordinates)))
        classified = run(project, job_star(8, class_options(f"{extracted.name}particles.star")))
    finally:
        patch.undo()
    return Chain(project, picked, extracted, classified)


def import_options() -> dict[str, object]:
    raw = {"do_raw": "Yes", "fn_in_raw": "Micrographs/*.mrc", "is_multiframe": "No"}
    return raw | {"angpix": PIXEL_SIZE_A, "kV": 300, "Cs": 2.7, "Q0": 0.1, "do_other": "No"}


def extract_options(star: str, coordinates: str) -> dict[str, object]:
    options = {"star_mics": star, "coords_suffix": coordinates, "extract_size": BOX_PX, "nr_mpi": 1}
    return options | {"do_invert": "Yes", "do_norm": "Yes", "bg_diameter": -1}


def class_options(particles: str) -> dict[str, object]:
    options = {"fn_img": particles, "do_ctf_correction": "No", "nr_classes": 2, "nr_iter": 8, "tau_fudge": 2}
    compute = {"nr_mpi": 1, "nr_threads": 2, "do_parallel_discio": "Yes", "nr_pool": 30, "do_preread_images": "Yes"}
    search = {"particle_diameter": 90, "psi_sampling": 12, "offset_range": 3, "offset_step": 2}
    return options | compute | search | {"other_args": "--random_seed 1"}  # by the time of day otherwise


def draw_micrograph(phantoms: ModuleType, path: Path, seed: int, *, upright: bool) -> None:
    rng = np.random.default_rng(seed)
    image = phantoms.noisy(SHAPE, seed)
    for number, (x, y) in enumerate(phantoms.place(SHAPE, PER_MICROGRAPH, seed)):
        angle, side = (0.0, 0) if upright else (float(rng.uniform(0, 2 * np.pi)), number % 2)
        phantoms.draw_phantom(image, x, y, angle, side)
    phantoms.write_mrc(path, image)


def all_views(phantoms: ModuleType) -> NDArray[np.float32]:
    angles = np.deg2rad(np.arange(0, 360, 15))
    return np.array([phantoms.phantom(angle=angle, side=side) for angle in angles for side in (0, 1)])


def test_what_relion_extracts_is_centred_to_half_a_pixel(
    chain: Chain, phantoms: ModuleType, stand_in: ModuleType
) -> None:
    boxes = mrcfile.read(chain.project.folder / chain.extracted.name / f"Micrographs/mic_{UPRIGHT}.mrcs")
    assert len(boxes) == PER_MICROGRAPH
    expected = -phantoms.phantom(BOX_PX)  # Extract has inverted the contrast
    likeness = scipy.ndimage.correlate(boxes.mean(axis=0).astype(float), expected - expected.mean(), mode="constant")
    row, column = np.unravel_index(likeness.argmax(), likeness.shape)
    x, y = stand_in.refine(likeness, int(row), int(column))
    assert max(abs(x - BOX_PX // 2), abs(y - BOX_PX // 2)) <= 0.5


def test_relion_knows_what_the_job_has_made(chain: Chain) -> None:
    assert dict(chain.picked.outputs) == {
        f"{chain.picked.name}coords_suffix_autopick.star": "2",
        f"{chain.picked.name}logfile.pdf": "13",
    }
    folder = chain.project.folder / chain.picked.name
    assert (folder / "run.err").read_text() == ""
    assert f"Total number of particles from 7 micrographs is {7 * PER_MICROGRAPH}" in (folder / "run.out").read_text()


def test_class_averages_show_the_phantom(chain: Chain, phantoms: ModuleType) -> None:
    folder = chain.project.folder
    particles = starfile.read(folder / chain.extracted.name / "particles.star")["particles"]
    assert len(particles) == 7 * PER_MICROGRAPH
    averages = mrcfile.read(folder / chain.classified.name / "run_it008_classes.mrcs")
    likeness = np.array([[alike(average, phantoms, side) for side in (0, 1)] for average in averages])
    assert sorted(likeness.argmax(axis=1)) == [0, 1], likeness
    assert likeness.max(axis=1).min() >= 0.9, likeness


def alike(average: NDArray[np.float32], phantoms: ModuleType, side: int) -> float:
    """Correlation of a class average with the view of the phantom, turned and shifted to fit best."""
    row, column = np.mgrid[:BOX_PX, :BOX_PX] - BOX_PX // 2
    disc = np.hypot(row, column) < 14
    best = -1.0
    for angle in np.deg2rad(np.arange(0, 360, 5)):
        view = -phantoms.phantom(BOX_PX, angle, side)
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                moved = np.roll(view, (dy, dx), (0, 1))
                best = max(best, float(np.corrcoef(moved[disc], average[disc])[0, 1]))
    return best


def coordinate_times(project: Path) -> dict[str, int]:
    files = (project / "External/job002").rglob("*_autopick.star")
    return {path.name: path.stat().st_mtime_ns for path in files if path.name.startswith("mic_")}


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, "ended too early"
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.2)


def test_a_project_is_picked_anew_in_a_job_of_its_own(
    chain: Chain, stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = chain.project
    before = {path: path.stat().st_mtime_ns for path in (project.folder / chain.picked.name).rglob("*")}
    pipeline = (project.folder / "default_pipeline.star").read_bytes()
    words = ["repick", str(project.folder), "--executable", f"{sys.executable} {stand_in.__file__}"]
    words += ["--threshold", "0.65", "--threads", "1", "--job", "Import/job001"]

    assert main([*words, "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"new External would run 7 - - - Import/job001/micrographs.star, diameter {DIAMETER_A} Å" in said
    assert (project.folder / "default_pipeline.star").read_bytes() == pipeline

    monkeypatch.setenv("STAND_IN_TEMPLATE", "nowhere.npy")
    assert main(words) == 1  # a failed job is in the table, whatever RELION's exit status is
    assert "External/job005 Failed 7" in " ".join(capsys.readouterr().out.split())

    monkeypatch.setenv("STAND_IN_TEMPLATE", str(project.folder / "template.npy"))
    assert main([words[0], str(project.folder.parent), *words[1:]]) == 3
    said = capsys.readouterr().out
    assert "not a RELION project" in said
    row = next(line for line in said.splitlines() if "Succeeded" in line).split()
    assert row[1:3] == ["External/job005", "Succeeded"]
    micrographs, old, new = map(int, row[3:6])
    assert (micrographs, old) == (7, 7 * PER_MICROGRAPH)
    assert 0.95 * old <= new <= old
    assert float(row[6].rstrip("%")) >= 95

    assert main(words) == 0
    assert "External/job005/ is done already" in capsys.readouterr().out
    assert [job.kind for job in project.jobs()].count("External") == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before


def select_options(data: str, label: str, least: float, most: float) -> dict[str, object]:
    """The part of a Select job that needs no screen: particles of some classes, or of some values of another label."""
    options = {"fn_data": data, "fn_model": "", "fn_mic": "", "fn_coords": "", "do_select_values": "Yes"}
    return options | {"select_label": label, "select_minval": least, "select_maxval": most}


def count_particles(path: Path) -> int:
    return len(starfile.read(path)["particles"])


def refined_by(folder: Path) -> str:
    """What the model of a job was refined by."""
    note = read_preparation(folder / "cryoemmae").refinement
    assert note is not None
    return note.why


def test_what_relions_select_job_has_kept_refines_a_second_job(
    chain: Chain, stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = chain.project
    classified = f"{chain.classified.name}run_it008_data.star"
    selected = run(project, job_star(7, select_options(classified, "rlnClassNumber", 1, 1)))
    kept = count_particles(project.folder / selected.name / "particles.star")
    dropped = count_particles(project.folder / classified) - kept
    assert min(kept, dropped) >= 20
    monkeypatch.setenv("STAND_IN_TEMPLATE", str(project.folder / "template.npy"))
    text = external_job_star(
        "Import/job001/micrographs.star",
        {"diameter": str(DIAMETER_A), "threshold": "0.6"},
        in_parts=f"{selected.name}particles.star",
        threads=1,
        executable=f"{sys.executable} {stand_in.__file__}",
    )
    refined = run(project, text)
    assert refined_by(project.folder / refined.name) == f"{kept} kept and {dropped} dropped picks in 7 micrographs"
    assert read_card(project.folder / refined.name / "cryoemmae/model").name.endswith("-refined")
    assert dict(refined.outputs)[f"{refined.name}coords_suffix_autopick.star"] == "2"
    assert (
        f"Total number of particles from 7 micrographs is {7 * PER_MICROGRAPH}"
        in (project.folder / refined.name / "run.out").read_text()
    )


def test_a_schedule_picks_on_the_fly_and_each_micrograph_once(schedules: Schedules) -> None:
    project, first = schedules.on_the_fly.project, schedules.picked_first.result()
    second = coordinate_times(project)
    assert sorted(first) == ["mic_0_autopick.star", "mic_1_autopick.star", "mic_2_autopick.star"]
    assert len(second) == 5
    assert {name: second[name] for name in first} == first
    said = (project / "External/job002/run.out").read_text()
    assert "3 of 5 micrographs are done already" in said
    assert "Autopicking 2 micrographs" in said
    particles = starfile.read(project / "Extract/job003/particles.star")["particles"]
    assert len(particles) == 5 * PER_MICROGRAPH
    assert Project(project).job("Class2D/job004").status == "Succeeded"


def test_a_schedule_refines_once_classes_are_selected(schedules: Schedules) -> None:
    project, before = schedules.second_round.project, schedules.before_selection.result()
    assert [job.name for job in before] == [
        f"{job}/" for job in ("Import/job001", "External/job002", "Extract/job003", "Class2D/job004")
    ]
    later = [job for job in Project(project).jobs() if job.number > 4]
    assert [job.name for job in later] == [
        f"{job}/" for job in ("Select/job005", "External/job006", "Extract/job007", "Class2D/job008")
    ]  # each once
    assert {job.status for job in later} == {"Succeeded"}
    kept = count_particles(project / "Select/job005/particles.star")
    assert refined_by(project / "External/job006") == (
        f"{kept} kept and {3 * PER_MICROGRAPH - kept} dropped picks in 3 micrographs"
    )
    assert count_particles(project / "Extract/job007/particles.star") == 3 * PER_MICROGRAPH
