"""Whatever a small file of ours or of other programs holds: a clear error with its name, or it is left out."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryoemmae_plugin.errors import CryoemmaeError
from cryoemmae_plugin.picks.cryosparc import read_exposures, read_particles
from cryoemmae_plugin.report.edits import read_edits
from cryoemmae_plugin.run.adapting import AdaptationNote
from cryoemmae_plugin.run.learning_state import LearningState
from cryoemmae_plugin.run.micrograph_table import read_micrographs
from cryoemmae_plugin.run.preparation import read_preparation
from cryoemmae_plugin.run.record import Source, format_result
from cryoemmae_plugin.run.store import ResultStore, stored_source
from cryoemmae_plugin.run.summary import read_summary, saved_failures, settle_selection
from cryoemmae_plugin.run.summary_table import read_known
from cryoemmae_plugin.run.workers.attempts import Attempts
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.training.checkpoint import read_checkpoint, restoring
from cryoemmae_plugin.training.manifest import TrainingManifest, check_manifest
from cryoemmae_plugin.training.recipe import FitSettings
from cryoemmae_plugin.types import Picks
from cryoemmae_plugin.weights import read_card
from cryosparc_job.credentials import find_credentials
from cryosparc_job.plan import read_plan
from cryosparc_job.request import PickRequest, load_request
from relion_wrapper.dialect import detect_version
from relion_wrapper.display import write_display_settings
from relion_wrapper.project import Project

SHIPPED_CARD = Path(__file__).resolve().parents[1] / "models" / "emmae-base" / "card.toml"
PIPELINE = """data_pipeline_processes

loop_
_rlnPipeLineProcessName #1
_rlnPipeLineProcessStatusLabel #2
Import/job001/ Succeeded

data_pipeline_nodes

loop_
_rlnPipeLineNodeName #1
_rlnPipeLineNodeTypeLabel #2
Import/job001/micrographs.star MicrographsData.star.relion

data_pipeline_output_edges

loop_
_rlnPipeLineEdgeProcess #1
_rlnPipeLineEdgeToNode #2
Import/job001/ Import/job001/micrographs.star
"""
MICROGRAPHS = """data_optics

loop_
_rlnOpticsGroup #1
_rlnMicrographPixelSize #2
1 1.5

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
m/a.mrc 1
"""
FORM = "data_joboptions_values\n\nloop_\n_rlnJobOptionVariable #1\n_rlnJobOptionValue #2\ndiameter 100\n"
RESULT = {
    "uid": "m",
    "micrograph": "m.mrc",
    "source": Source(Path("/m.mrc"), 9, 10**18),
    "pixel_size_A": 1.5,
    "fingerprint": "f" * 16,
}


def _result() -> str:
    from cryoemmae_plugin.run.record import Result

    xy = np.array([[3.0, 4.0], [10.5, 6.0]])
    return format_result(Result(**RESULT, picks=Picks(xy, np.array([0.9, 0.2], "f4"), np.ones(2, "f4"), (40, 60))))  # type: ignore[arg-type]


def _dataset(fields: list[tuple[object, ...]], row: tuple[object, ...]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([row, row], np.dtype(fields)))  # type: ignore[arg-type]
    return file.getvalue()


def _checkpoint() -> bytes:
    file = io.BytesIO()
    torch.save({"head": {"w": torch.zeros(3)}, "step": 4, "running": 0.1}, file)
    return file.getvalue()


def _restore(path: Path) -> None:
    state = read_checkpoint(path)
    with restoring(path):
        torch.nn.Linear(2, 2).load_state_dict(state["head"])
        int(state["step"])


PARTICLES = _dataset(
    [
        ("location/micrograph_path", "S9"),
        ("location/micrograph_shape", "<u4", (2,)),
        ("location/center_x_frac", "<f4"),
        ("location/center_y_frac", "<f4"),
    ],
    (b"m.mrc", (40, 60), 0.5, 0.25),
)
EXPOSURES = _dataset(
    [
        ("uid", "<u8"),
        ("micrograph_blob/path", "S9"),
        ("micrograph_blob/shape", "<u4", (2,)),
        ("micrograph_blob/psize_A", "<f4"),
    ],
    (7, b"m.mrc", (40, 60), 1.5),
)
MANIFEST = TrainingManifest(
    micrographs=(("m.mrc", 9, 100.0, None, False),),
    mode="paper",
    start="",
    architecture="",
    settings=FitSettings(),
    head="",
)
ASKED = PickerSettings(diameter_A=100.0)
SUMMARY = {
    "settings": {"threshold": 0.4, "edge_distance": 0.1},
    "rethresholded": True,
    "failed": [{"micrograph": "m", "reason": "r"}],
    "timings": {"wall_s": 3},
}
RECORD = {"version": "0.4", "model_name": "m", "model_sha256": "0" * 64, "settings": {"diameter_A": 100.0}}
ADAPTED = AdaptationNote(
    adapted=True, why="", base_sha256="", diameter_A=9, contrast="dark", pixel_size_A=None
).model_dump()
EDITS = {"format": 1, "fingerprint": "f", "threshold": 0.5, "micrographs": {"m": {"removed": [[1, 2]], "added": []}}}
REQUEST = PickRequest(project="P3", workspace="W1", exposures="J2.exposures", settings=ASKED)


@dataclass(frozen=True)
class Reader:
    """One kind of file: where it lies, a sound one, and what reads it. `names_it` where an error names the file."""

    path: str
    sound: bytes
    read: Callable[[Path], object]
    names_it: bool = True


def _text(value: object) -> bytes:
    return (value if isinstance(value, str) else json.dumps(value)).encode()


READERS = {
    "card": Reader("card.toml", SHIPPED_CARD.read_bytes(), lambda folder: read_card(folder)),
    "plan": Reader(
        "plan.toml",
        b'threshold = 0.4\nproject = "P3"\n[[job]]\nexposures = "J2.exposures"\ndiameter = 150\n',
        lambda folder: read_plan(folder / "plan.toml"),
    ),
    "profiles": Reader(
        "p.toml", b'[default]\nurl = "http://h:39000"\n', lambda folder: find_credentials(profile="default")
    ),
    "request": Reader("job.json", REQUEST.model_dump_json().encode(), load_request),
    "settings": Reader("settings.json", _text(RECORD), ResultStore.open),
    "preparation": Reader("preparation.json", _text({"adaptation": ADAPTED}), read_preparation),
    "summary": Reader(
        "summary.json",
        _text(SUMMARY),
        lambda folder: (read_summary(folder), saved_failures(folder), settle_selection(folder, ASKED)),
        names_it=False,
    ),
    "summary table": Reader("summary.csv", b"micrograph,seconds,defocus_um\nm,1,2\n", read_known, names_it=False),
    "result": Reader("results/m.star", _result().encode(), lambda folder: _load(folder)),
    "attempts": Reader(".attempts/m", b"host 5\n", lambda folder: Attempts(folder).deaths("m"), names_it=False),
    "edits": Reader("edits.json", _text(EDITS), lambda folder: read_edits(folder / "edits.json")),
    "training manifest": Reader(
        "manifest.json", MANIFEST.model_dump_json().encode(), lambda folder: check_manifest(folder, MANIFEST)
    ),
    "checkpoint": Reader("head.pt", _checkpoint(), lambda folder: _restore(folder / "head.pt")),
    "particles": Reader("p.cs", PARTICLES, lambda folder: read_particles(folder / "p.cs")),
    "exposures": Reader("e.cs", EXPOSURES, lambda folder: read_exposures(folder / "e.cs")),
    "micrographs": Reader("m.star", _text(MICROGRAPHS), lambda folder: read_micrographs(folder / "m.star")),
    "pipeline": Reader(
        "default_pipeline.star",
        _text(PIPELINE),
        lambda folder: (detect_version(folder / "default_pipeline.star"), Project(folder).jobs()),
    ),
    "display": Reader(
        ".gui_manualpickjob.star", _text(FORM), lambda folder: write_display_settings(folder, 90, [1.5], 60)
    ),
}


def _load(folder: Path) -> None:
    from cryoemmae_plugin.run.store import RunRecord

    stored_source(folder, "m")
    store = ResultStore(folder, RunRecord.model_validate(RECORD))
    list(store)
    store.load("m")


PIECES = st.sampled_from(
    [
        b"",
        b"\0",
        b"\xff\xfe",
        b"[" * 3000,
        b'{"a":' * 3000,
        b"9" * 5000,
        b"0x" + b"f" * 5000,
        b"1e999",
        b"-1",
        b"NaN",
        b"null",
        b"0",
        b'""',
        b"\n\n",
        b"data_",
        b"loop_\n",
        b"#",
        b"true",
        b"source = 1\n",
    ]
)


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """A sound file with pieces replaced, cut, or another content altogether."""
    content = sound
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 12)))
        content = content[:start] + draw(PIECES | st.binary(max_size=3)) + content[end:]
    return content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content


def attempt(reader: Reader, folder: Path, content: bytes) -> None:
    """Read a file; an error has to be one of ours that names it."""
    path = folder / reader.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    said = error_of(reader, folder)
    assert not said or not reader.names_it or path.name in said or str(folder) in said, said
    assert len(said) < 3000


def error_of(reader: Reader, folder: Path) -> str:
    """The message of our error; "" for none. Any other error goes through."""
    try:
        reader.read(folder)
    except CryoemmaeError as err:
        return str(err)
    return ""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRYOEMMAE_CRYOSPARC_PROFILES", str(tmp_path / "p.toml"))
    return tmp_path


@pytest.mark.parametrize("kind", READERS)
def test_no_content_makes_a_reader_fail_otherwise(folder: Path, kind: str) -> None:
    reader = READERS[kind]
    attempt(reader, folder, reader.sound)

    @settings(derandomize=True, max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(damaged(reader.sound))
    def try_it(content: bytes) -> None:
        attempt(reader, folder, content)

    try_it()


@pytest.mark.parametrize("kind", READERS)
def test_what_never_ends_is_not_read(folder: Path, kind: str) -> None:
    """A pipe would wait for a writer, /dev/zero has no end."""
    reader = READERS[kind]
    path = folder / reader.path
    path.parent.mkdir(parents=True, exist_ok=True)
    for make in (lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero")):
        make()
        error_of(reader, folder)
        path.unlink()


def test_a_table_that_claims_to_be_huge_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "p.cs"
    path.write_bytes(PARTICLES.replace(b"'shape': (2,), }        ", b"'shape': (999999999,), }"))
    with pytest.raises(CryoemmaeError, match=r"p\.cs: cannot be read"):
        read_particles(path)


def test_a_state_of_adapting_that_is_damaged_starts_over(tiny_model: Path, tmp_path: Path) -> None:
    from cryoemmae_plugin.weights import load_model

    state = LearningState(tmp_path)
    model = load_model(tiny_model)
    state.begin(ASKED, model, [])
    note = (state.folder / "state.json").read_bytes()
    (state.folder / "head.pt").write_bytes(_checkpoint()[:100])
    (state.folder / "1.safetensors").write_bytes(b"kept")
    (state.folder / "notes.txt").write_text("not ours")
    state.begin(ASKED, model, [])
    assert sorted(path.name for path in state.folder.iterdir()) == ["1.safetensors", "notes.txt", "state.json"]
    (state.folder / "state.json").write_text("{")
    state.begin(ASKED, model, [])
    assert sorted(path.name for path in state.folder.iterdir()) == ["notes.txt", "state.json"]
    assert (state.folder / "state.json").read_bytes() == note
