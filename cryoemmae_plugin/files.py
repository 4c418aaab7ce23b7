"""Files on the disk: written as a whole or not at all, read up to a limit, and small JSON notes."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cryoemmae_plugin.errors import InputError, OutputError, StoreError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PARTIAL = ".partial"
"""Suffix of a file that is still being written. When nothing runs, any file with this suffix may be deleted."""

MAX_NOTE_BYTES = 2**26
MAX_TABLE_BYTES = 2**31
"""Largest notes and tables that are read; larger ones are something else."""
MAX_KEY_DOTS = 64
"""The time that a TOML key takes grows with the square of its dots."""

MAX_NAME_BYTES = 255
"""Length of a file name that file systems take."""


class Note(BaseModel):
    """A record that is kept as JSON. Frozen."""

    model_config = ConfigDict(frozen=True)


AnyNote = TypeVar("AnyNote", bound=BaseModel)


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[str]]:
    """Open a text file that replaces `path` only once it is complete and on the disk.

    The temporary file lies in the same folder, so that the last step is a rename. Only one writer at a time may write
    the same path, because the name of the temporary file is fixed.

    Raises
    ------
    OutputError
        When the file cannot be written; `path` is then what it was before.
    """
    with atomic_write_binary(path) as binary:
        file = io.TextIOWrapper(binary, encoding="utf-8", errors="surrogateescape", newline="\n")
        yield file
        file.detach()  # flushes, and leaves the file open


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by a file with `content`; raises as :func:`atomic_write` does."""
    with atomic_write_binary(path) as file:
        file.write(content)


@contextmanager
def atomic_write_binary(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that replaces `path` only once it is complete; raises as :func:`atomic_write` does."""
    partial = partial_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _open_new(partial) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)  # noqa: PTH105 (tests put a full disk in its place)
    except OSError as err:
        raise output_error(path, err) from err
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def partial_of(path: Path) -> Path:
    """Return where `path` is written before it replaces the old file."""
    name = f".{path.name}{PARTIAL}"
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}{PARTIAL}"
    return path.with_name(name)


def _open_new(path: Path) -> IO[bytes]:
    """Create a file. A leftover of that name goes first, so that a link there leads nowhere else."""
    path.unlink(missing_ok=True)
    return path.open("xb")


def output_error(path: Path, err: OSError) -> OutputError:
    """Say why `path` cannot be written, and what to do about it."""
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            f"{path}: no space left to write it. Free space and run the same command again: "
            "it continues where this one stopped."
        )
    reason = err.strerror or str(err)
    return OutputError(
        f"{path}: cannot be written ({reason})", remedy="choose a folder that you may write to with $out"
    )


def is_file(path: Path) -> bool:
    """Say whether a path leads to a file; not where a folder on the way may not be entered."""
    return os.path.isfile(path)  # noqa: PTH113 (the method of a Path raises PermissionError)


def is_folder(path: Path) -> bool:
    """Say whether a path leads to a folder; not where a folder on the way may not be entered."""
    return os.path.isdir(path)  # noqa: PTH112


def read_bytes(path: Path, max_bytes: int = MAX_NOTE_BYTES) -> bytes:
    """Read a file whole, but never more than `max_bytes`, and never a pipe or a device, which may not end.

    Raises
    ------
    OSError
        When it cannot be read, is not a regular file, or is larger.
    """
    with _open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise OSError(errno.EFBIG, f"{size} bytes are too many, at most {max_bytes} are read", str(path))
        return file.read(max_bytes)


def read_beginning(path: Path, count: int) -> bytes:
    """Read the first `count` bytes of a file, never of a pipe or a device; raises OSError as :func:`read_bytes`."""
    with _open_regular(path) as file:
        return file.read(count)


def _open_regular(path: Path) -> IO[bytes]:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for a writer
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(descriptor, "rb")  # noqa: PTH123 (a descriptor)


def read_text(path: Path, max_bytes: int = MAX_NOTE_BYTES) -> str:
    """Read a UTF-8 file as :func:`read_bytes` does; bytes that are not UTF-8 become surrogates, as in file names."""
    return read_bytes(path, max_bytes).decode("utf-8", errors="surrogateescape")


def read_table(path: Path, kind: str) -> str:
    """Read a user's table as :func:`read_text` does; `kind` says in messages what it should be, such as "a CSV table".

    Raises
    ------
    InputError
        When it cannot be read.
    """
    try:
        return read_text(path, MAX_TABLE_BYTES)
    except FileNotFoundError as err:
        raise InputError(f"{path}: no such file; check the path") from err
    except OSError as err:
        raise InputError(f"{path}: cannot be read as {kind} ({reason_of(err)}); give another file") from err


def read_toml(path: Path, max_bytes: int = MAX_NOTE_BYTES) -> dict[str, Any]:
    """Read a TOML file; raises OSError as :func:`read_bytes` does, and ValueError or RecursionError for other text."""
    text = read_bytes(path, max_bytes).decode()
    for line in text.splitlines():
        if not line.lstrip().startswith("#") and any(part.count(".") > MAX_KEY_DOTS for part in line.split("=")):
            raise ValueError(f"a key has more than {MAX_KEY_DOTS} dots")
    return tomllib.loads(text)


def read_note(path: Path, kind: type[AnyNote], remedy: str | Sequence[str]) -> AnyNote | None:
    """Read a note; None where there is none.

    Raises
    ------
    StoreError
        When the file is there and cannot be read; `remedy` says what to do then.
    """
    try:
        return kind.model_validate_json(read_bytes(path))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError, ValidationError) as err:
        raise StoreError(f"{path}: cannot be read ({reason_of(err)})", remedy=remedy) from err


def write_note(path: Path, note: BaseModel) -> None:
    """Write a note as JSON; raises as :func:`atomic_write` does."""
    write_json(path, note.model_dump(mode="json"))


def write_json(path: Path, content: object) -> None:
    """Write `content` as indented JSON with a newline at the end; raises as :func:`atomic_write` does."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    if any("\ud800" <= letter <= "\udfff" for letter in text):  # of names that are not UTF-8
        text = json.dumps(content, indent=2)
    with atomic_write(path) as file:
        file.write(text + "\n")


def reason_of(err: BaseException) -> str:
    """Return the first line of an error, short enough for a message."""
    text = getattr(err, "strerror", None) or str(err) or type(err).__name__
    first = str(text).splitlines()[0]
    return first if len(first) <= 200 else first[:200] + "…"
