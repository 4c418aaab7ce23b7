"""The way into RELION that the documentation describes: boxes, Import, Extract, with a real RELION."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryoemmae_plugin.picks.boxes import write_box
from cryoemmae_plugin.types import Picks

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(shutil.which("relion_preprocess") is None, reason="no RELION on this machine"),
]

XY = np.array([[100.0, 80.0], [300.0, 250.0], [510.0, 120.0]])
SHAPE = (400, 600)
BOX_PX = 32


def relion(program: str, project: Path, **options: object) -> None:
    arguments = [
        part for key, value in options.items() for part in (f"--{key}", *([] if value is True else [str(value)]))
    ]
    done = subprocess.run([program, *arguments], cwd=project, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_relion_extracts_what_lies_under_imported_boxes(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(0, 0.1, SHAPE).astype(np.float32)
    image[XY[:, 1].astype(int), XY[:, 0].astype(int)] = 100
    for folder in ("MotionCorr/job003/Movies", "Movies", "Import/job005", "Import/job006", "Extract/job007"):
        (tmp_path / folder).mkdir(parents=True)
    with mrcfile.new(tmp_path / "MotionCorr/job003/Movies/mic.mrc") as mrc:
        mrc.set_data(image)
        mrc.voxel_size = 1.5
    score = np.ones(len(XY), np.float32)
    write_box(tmp_path / "Movies/mic.box", Picks(XY + np.array([0.4, -0.4]), score, score, SHAPE), diameter_px=33.3)

    optics = {"angpix": 1.5, "kV": 300, "Cs": 2.7, "Q0": 0.1}
    out = {"odir": "Import/job005/", "ofile": "micrographs.star"}
    relion("relion_import", tmp_path, i="MotionCorr/job003/Movies/*.mrc", do_micrographs=True, **out, **optics)
    out = {"odir": "Import/job006/", "ofile": "coords_suffix.box"}
    relion("relion_import", tmp_path, i="Movies/*.box", do_coordinates=True, **out)
    relion(
        "relion_preprocess",
        tmp_path,
        i="Import/job005/micrographs.star",
        coord_dir="Import/job006/",
        coord_suffix=".box",
        part_star="Extract/job007/particles.star",
        part_dir="Extract/job007/",
        extract=True,
        extract_size=BOX_PX,
    )

    particles = mrcfile.read(tmp_path / "Extract/job007/Movies/mic.mrcs")
    brightest = [np.unravel_index(particle.argmax(), particle.shape) for particle in particles]
    assert brightest == [(BOX_PX // 2, BOX_PX // 2)] * len(XY)
