"""Folders and edits that are not what they should be: a clear message, and nothing changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cryoemmae_plugin.cli import main
from cryoemmae_plugin.report.serve import serve_report
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.star import records_of

MakeStore = Callable[..., Path]
COMMANDS = ("report", "view", "apply")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, make_store: MakeStore) -> Path:
    return make_store(tmp_path_factory.mktemp("original"))


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "picks", ignore=shutil.ignore_patterns(".lock"))


def edits_of(folder: Path, micrographs: dict[str, Any], **more: Any) -> Path:
    """The file that the report of a folder would have saved."""
    path = folder.parent / "edits.json"
    edits = {
        "format": 1,
        "fingerprint": ResultStore.open(folder).record.fingerprint if folder.is_dir() else "",
        "threshold": 0.5,
        "micrographs": micrographs,
    }
    path.write_text(json.dumps({**edits, **more}))
    return path


def state(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command that must fail; what it says."""
    capsys.readouterr()
    assert main([str(word) for word in words]) in (1, 2)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return " ".join(said.split())


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("breaking", "words"),
    [
        ("missing", "no such folder"),
        ("empty", "settings.json"),
        ("cut", "settings.json"),
        ("future", "format 99"),
    ],
)
def test_a_folder_that_is_none_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str, breaking: str, words: str
) -> None:
    edits = edits_of(folder, {})
    settings = folder / "settings.json"
    if breaking == "missing":
        shutil.rmtree(folder)
    elif breaking == "empty":
        settings.unlink()
    elif breaking == "cut":
        settings.write_bytes(settings.read_bytes()[:40])
    else:
        settings.write_text(json.dumps(json.loads(settings.read_text()) | {"format": 99}))
    before = state(folder)
    said = refused(capsys, command, folder, *([edits] if command == "apply" else []))
    assert words in said
    assert str(folder) in said
    assert state(folder) == before


def test_a_damaged_result_is_left_out_and_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    damaged = folder / "results" / "plain.star"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    assert main(["report", str(folder)]) == 0
    assert "plain.star: not a whole result" in caplog.text
    assert "run the same pick command again" in caplog.text
    assert len(list((folder / "report" / "micrographs").glob("*.js"))) == 4
    assert main(["apply", str(folder), str(edits_of(folder, {}))]) == 0
    assert len(records_of(folder / "edited" / "accepted.star", "micrographs")) == 4


def test_a_folder_that_a_run_works_in_waits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edits = edits_of(folder, {})
    with ResultStore.open(folder):
        for command in COMMANDS:
            said = refused(capsys, command, folder, *([edits] if command == "apply" else []))
            assert "another run is working in it" in said
    assert main(["report", str(folder)]) == 0
    with ResultStore.open(folder), serve_report(folder) as server:  # what is written can be shown during a run
        assert server.address.startswith("http://127.0.0.1:")


def test_a_folder_that_is_being_filled_has_a_report_of_what_is_done(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text()) | {"status": "running"}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "results" / "plain.star").unlink()
    assert main(["report", str(folder)]) == 0
    about = (folder / "report" / "data" / "run.js").read_text()
    assert "still at work, or was killed" in about
    (folder / "summary.json").unlink()
    assert main(["report", str(folder)]) == 0


def test_a_report_without_its_micrographs_keeps_numbers_and_says_so(
    folder: Path, original: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(path: Path) -> None:
        from cryoemmae_plugin.errors import ImageError

        raise ImageError(f"{path}: no such file")

    monkeypatch.setattr("cryoemmae_plugin.report.writer.read_image", gone)
    assert main(["report", str(folder)]) == 0
    assert "No picture in the report of 5 of 5 micrographs" in caplog.text
    assert len(list((folder / "report" / "micrographs").glob("*.js"))) == 5


@pytest.mark.parametrize(
    ("micrographs", "more", "words"),
    [
        ({}, {"fingerprint": "0123456789abcdef"}, "another run"),
        ({}, {"format": 2}, "not the edits of a report"),
        ({}, {"threshold": "NaN"}, "not the edits of a report"),
        ({"absent": {"excluded": True}}, {}, "no such micrograph"),
        ({"plain": {"colour": "red"}}, {}, "not the edits of a report"),
        ({"50% # & ?x=1": {"removed": [[1, 1]]}}, {}, "no candidate at"),
        ({"plain": {"added": [[5000, 1]]}}, {}, "outside"),
    ],
)
def test_edits_of_something_else_change_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], micrographs: Any, more: Any, words: str
) -> None:
    edits, before = edits_of(folder, micrographs, **more), state(folder)
    assert words in refused(capsys, "apply", folder, edits)
    assert state(folder) == before


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_edits_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    edits, before = folder.parent / "mine.json", state(folder)
    if content is not None:
        edits.write_bytes(content)
    assert "mine.json" in refused(capsys, "apply", folder, edits)
    assert state(folder) == before


def test_strange_names_go_through_edits_into_every_file(folder: Path) -> None:
    names = {result.uid: result.micrograph for result in ResultStore.open(folder)}
    edits = edits_of(folder, {uid: {"added": [[3, 5]]} for uid in names})
    assert main(["apply", str(folder), str(edits), "--formats", "relion,cryosparc,eman,cryolo"]) == 0
    out = folder / "edited"
    for table, name_of in (("picks.star", str), ("cryosparc.star", lambda name: Path(name).name)):
        rows = records_of(out / table, "particles")
        assert {row["rlnMicrographName"] for row in rows} == {name_of(name) for name in names.values()}
    listed = records_of(out / "relion" / "autopick.star", "coordinate_files")
    assert {row["rlnMicrographName"] for row in listed} == set(names.values())
    assert all(Path(row["rlnMicrographCoordinates"]).is_file() for row in listed)
    for uid in names:
        assert (out / "boxes" / f"{uid}.box").is_file()
        assert (out / "cbox" / f"{uid}.cbox").is_file()
