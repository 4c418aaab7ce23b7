"""Picks on a bright pixel come back on that pixel from each file for another program; the micrograph is not square."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
from numpy.typing import NDArray

from cryoemmae_plugin.run.formats import Format
from cryoemmae_plugin.run.outputs import write_outputs
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import ResultStore, RunRecord
from cryoemmae_plugin.types import Micrograph, Picks

SHAPE = (400, 600)
MARKERS_XY = np.array([[500.0, 40.0], [90.0, 60.0], [300.0, 330.0]])
"""No turn or mirror of the image maps these onto each other; the first is the brightest."""
NAMES = ("MotionCorr/job003/Movies/mic.mrc", "MotionCorr/job003/Movies/größe_(1)[2].mrc", "long/" + "l" * 245 + ".mrc")
BOX_PX = 32


@pytest.fixture
def project(tmp_path: Path, record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder, also the present one, with equal micrographs and their picks in all formats."""
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).normal(0, 0.1, SHAPE).astype(np.float32)
    image[MARKERS_XY[:, 1].astype(int), MARKERS_XY[:, 0].astype(int)] = [300, 200, 100]
    score = np.array([0.9, 0.8, 0.7], np.float32)
    with ResultStore.create(Path("picks"), record) as store:
        for name in NAMES:
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with mrcfile.new(path) as mrc:
                mrc.set_data(image)
                mrc.voxel_size = 2.0
            store.save(Micrograph(path, None, uid_of(name)), Picks(MARKERS_XY, score, score, SHAPE), 2.0, 1)
        selection = Selection(0.0, diameter_A=20.0, edge_distance=0.0, min_distance=0.0)
        write_outputs(store, selection, frozenset(Format))
    return tmp_path


def uid_of(name: str) -> str:
    return Path(name).stem[:200]


def brightest(name: str, xy: NDArray[np.float64]) -> list[float]:
    """What the micrograph has at these points; row 0 is the first one stored."""
    image = mrcfile.read(name)
    columns, rows = np.round(xy).astype(int).T
    return [float(value) for value in image[rows, columns]]


def centres(corners: NDArray[np.float64], sides: NDArray[np.float64]) -> NDArray[np.float64]:
    return corners + sides / 2


@pytest.mark.parametrize("name", NAMES)
def test_eman_boxes_are_around_the_markers(project: Path, name: str) -> None:
    table = np.loadtxt(Path("picks/boxes", f"{uid_of(name)}.box"))
    assert brightest(name, centres(table[:, :2], table[:, 2:])) == [300, 200, 100]


@pytest.mark.parametrize("name", NAMES)
def test_cryolo_boxes_are_around_the_markers_with_their_figures_of_merit(project: Path, name: str) -> None:
    table = starfile.read(Path("picks/cbox", f"{uid_of(name)}.cbox"), always_dict=True)["cryolo"]
    corners, sides = table[["CoordinateX", "CoordinateY"]].to_numpy(), table[["Width", "Height"]].to_numpy()
    assert brightest(name, centres(corners, sides)) == [300, 200, 100]
    assert list(table["Confidence"]) == [0.9, 0.8, 0.7]


def test_the_star_for_cryosparc_names_files_and_points_at_the_markers(project: Path) -> None:
    cryosparc_star = pytest.importorskip("cryosparc.star", reason="cryosparc-tools is not installed")
    table = cryosparc_star.read("picks/cryosparc.star")["particles"]
    assert set(table["rlnMicrographName"]) == {Path(name).name for name in NAMES}
    for name in NAMES:
        mine = table[table["rlnMicrographName"] == Path(name).name]
        xy = np.stack([mine["rlnCoordinateX"], mine["rlnCoordinateY"]], axis=1)
        assert brightest(name, xy) == [300, 200, 100]


def test_the_list_for_relion_leads_from_each_micrograph_to_its_markers(project: Path) -> None:
    listed = starfile.read("picks/relion/autopick.star", always_dict=True)["coordinate_files"]
    assert sorted(listed["rlnMicrographName"]) == sorted(NAMES)
    for name, path in zip(listed["rlnMicrographName"], listed["rlnMicrographCoordinates"], strict=True):
        table = starfile.read(path)
        assert brightest(name, table[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy()) == [300, 200, 100]


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_preprocess") is None, reason="NO RELION ON THIS MACHINE: not tested")
def test_relion_extracts_the_markers_from_the_files_of_plain_pick(project: Path) -> None:
    rows = "".join(f"{name} 1\n" for name in NAMES[:1])
    optics = "data_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnMicrographPixelSize #3\n"
    optics += "_rlnVoltage #4\n_rlnSphericalAberration #5\n_rlnAmplitudeContrast #6\nopticsGroup1 1 2.0 300 2.7 0.1\n"
    columns = "loop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\n"
    Path("mics.star").write_text(
        f"\n# version 30001\n\n{optics}\n\n# version 30001\n\ndata_micrographs\n\n{columns}{rows}\n"
    )
    Path("Extract").mkdir()
    (coordinates,) = Path("picks").rglob("coords_suffix*")  # RELION's Extract takes its folder, and the end of its name
    command = ["relion_preprocess", "--i", "mics.star", "--coord_dir", f"{coordinates.parent}/", "--coord_suffix"]
    command += [
        coordinates.name.removeprefix("coords_suffix"),
        "--part_star",
        "Extract/particles.star",
        "--part_dir",
        "Extract/",
        "--extract",
    ]
    done = subprocess.run([*command, "--extract_size", str(BOX_PX)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (stack,) = Path("Extract").rglob("*.mrcs")
    boxes = mrcfile.read(stack)
    assert [np.unravel_index(box.argmax(), box.shape) for box in boxes] == [(BOX_PX // 2, BOX_PX // 2)] * 3
    assert [float(box.max()) for box in boxes] == [300, 200, 100]
