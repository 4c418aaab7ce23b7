"""Files are written as a whole or not at all, and read without waiting or filling the memory."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from cryoemmae_plugin.errors import OutputError, StoreError
from cryoemmae_plugin.files import (
    PARTIAL,
    atomic_write,
    atomic_write_bytes,
    partial_of,
    read_bytes,
    read_note,
    read_text,
    write_json,
    write_note,
)


class Note(BaseModel):
    names: tuple[str, ...]
    value: float


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "picks.star"
    atomic_write_bytes(path, b"old")
    with pytest.raises(TypeError), atomic_write(path) as file:
        file.writelines(["new", None])  # type: ignore[list-item]
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in path.parent.iterdir()] == ["picks.star"]


def test_a_name_of_the_greatest_length_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250 + ".star")
    with atomic_write(path) as file:
        file.write("text")
    assert path.read_text() == "text"
    assert partial_of(path).name.endswith(PARTIAL)


def test_a_link_in_the_place_of_the_partial_file_is_not_followed(tmp_path: Path) -> None:
    theirs, path = tmp_path / "theirs", tmp_path / "picks.star"
    theirs.write_text("theirs")
    partial_of(path).symlink_to(theirs)
    atomic_write_bytes(path, b"ours")
    assert theirs.read_text() == "theirs"
    assert path.read_bytes() == b"ours"
    assert not path.is_symlink()


def test_a_folder_in_the_place_of_the_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "picks.star").mkdir()
    with pytest.raises(OutputError, match=r"picks\.star: cannot be written"):
        atomic_write_bytes(tmp_path / "picks.star", b"ours")


def test_pipes_devices_and_large_files_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"12345")
    with pytest.raises(OSError, match="not a regular file"):
        read_bytes(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        read_bytes(Path("/dev/zero"))
    with pytest.raises(OSError, match="too many") as caught:
        read_bytes(tmp_path / "large", max_bytes=4)
    assert caught.value.errno == errno.EFBIG
    assert read_bytes(tmp_path / "large", max_bytes=5) == b"12345"


def test_notes_come_back_as_they_were(tmp_path: Path) -> None:
    note = Note(names=("a", "µ"), value=1.5)
    write_note(tmp_path / "note.json", note)
    assert read_note(tmp_path / "note.json", Note, "delete it") == note
    assert read_note(tmp_path / "none.json", Note, "delete it") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff", b"{}", b'{"names": [], "value": "x"}'])
def test_a_broken_note_says_where_it_is_and_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "note.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"note\.json: cannot be read \(.*\); delete it"):
        read_note(tmp_path / "note.json", Note, "delete it")


def test_names_that_are_not_utf_8_are_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"gr\xfcn.mrc")
    write_json(tmp_path / "summary.json", {"name": name})
    assert json.loads((tmp_path / "summary.json").read_text("ascii")) == {"name": name}
    with atomic_write(tmp_path / "names") as file:
        file.write(name)
    assert (tmp_path / "names").read_bytes() == b"gr\xfcn.mrc"
    assert read_text(tmp_path / "names") == name
