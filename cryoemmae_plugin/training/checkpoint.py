"""The state of a training on disk: written as a whole or not at all, and refused where it is damaged."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cryoemmae_plugin.errors import OutputError
from cryoemmae_plugin.files import atomic_write_bytes

HEAD_FILE = "head.pt"
"""Of the training of a head."""
START_OVER = "delete this file, then run the same command again: this part of the training starts over"


def write_checkpoint(path: Path, state: Mapping[str, object]) -> None:
    """Write a training's state. A kill at any instant leaves the old file or the new one.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    content = io.BytesIO()  # PyTorch turns the error of a full disk into another one
    torch.save(dict(state), content)
    atomic_write_bytes(path, content.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what :func:`write_checkpoint` has written, to the CPU.

    Raises
    ------
    OutputError
        When the file is cut, empty or of another kind; the message says which file to delete.
    """
    try:
        if not path.is_file() or not zipfile.is_zipfile(path):  # a pipe, or cut or empty
            raise ValueError("not a zip file")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:  # a damaged file may raise anything
        raise _damaged(path, err) from err
    if not isinstance(state, dict):
        raise OutputError(f"{path}: not a checkpoint", remedy=START_OVER)
    return state


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Take over what a checkpoint holds; raises as :func:`read_checkpoint` where that is not what it should be."""
    try:
        yield
    except (LookupError, RuntimeError, ValueError, TypeError, AttributeError) as err:
        raise _damaged(path, err) from err


def _damaged(path: Path, err: Exception) -> OutputError:
    size = path.stat().st_size if path.exists() else 0
    return OutputError(f"{path}: this checkpoint of {size} bytes is damaged ({type(err).__name__})", remedy=START_OVER)
