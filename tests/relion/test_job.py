"""The External job as RELION starts it: what it leaves behind, and when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import starfile

from relion_wrapper.dialect import DIALECTS

Job = Callable[..., int]
JOB = "External/job010/"


def exits(job: str = JOB) -> list[str]:
    return sorted(path.name for path in Path(job).glob("RELION_JOB_*"))


@pytest.mark.parametrize(
    ("version", "list_name", "column", "types"),
    [
        ("3.1", "coords_suffix_autopick.star", "rlnPipeLineNodeType", ["2", "13"]),
        (
            "4",
            "autopick.star",
            "rlnPipeLineNodeTypeLabel",
            ["MicrographsCoords.star.relion.autopick", "LogFile.pdf.relion.autopick"],
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
    relion_job: Job, three_micrographs: Path, version: str, list_name: str, column: str, types: list[str]
) -> None:
    assert relion_job("--o", JOB, "--in_mics", three_micrographs, "--diameter", 60, "--relion_version", version) == 0
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
