"""Files that are there as a whole or not at all."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from cryoemmae_plugin.errors import OutputError

PARTIAL = ".partial"
"""Suffix of a file that is still being written; whatever carries it may be deleted when nothing runs."""


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[str]]:
    """Open a text file that takes the place of `path` only once all of it is on the disk.

    The temporary file lies in the same folder, so that the last step is a rename. One writer at a time: the name of the
    temporary file is fixed.

    Raises
    ------
    OutputError
        When the file cannot be written; `path` is then what it was before.
    """
    with _atomic(path) as binary:
        file = io.TextIOWrapper(binary, encoding="utf-8", newline="\n")
        yield file
        file.detach()  # flushes, and leaves the file open


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Put `content` into the place of `path` at once; raises as :func:`atomic_write` does."""
    with _atomic(path) as file:
        file.write(content)


@contextmanager
def _atomic(path: Path) -> Iterator[IO[bytes]]:
    partial = path.with_name(f".{path.name}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)  # noqa: PTH105 (tests put a full disk in its place)
    except OSError as err:
        raise output_error(path, err) from err
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def output_error(path: Path, err: OSError) -> OutputError:
    """Say why `path` cannot be written, and what to do about it."""
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            f"{path}: no space left to write it. Free space and run the same command again: "
            "it continues where this one stopped."
        )
    reason = err.strerror or str(err)
    return OutputError(f"{path}: cannot be written ({reason}). Choose a folder that you may write to with --out.")
