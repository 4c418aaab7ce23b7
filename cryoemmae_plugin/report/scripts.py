"""Data of a report as small script files: a page that is opened from a folder can load scripts, but nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.files import output_error, partial_of

STEPS = 1000
"""Thresholds that the report offers: 0, 1/1000, … 1."""
_GRID = (np.arange(STEPS + 1) / STEPS).astype(np.float32)
_DIGITS = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8)
_UNSAFE = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&"}


def script(function: str, *arguments: object) -> str:
    """The text of a script that calls ``report.<function>(…)``.

    ASCII only, and without the letters that mean something in HTML: whatever a name holds, it stays text.
    """
    values = ", ".join(json.dumps(a, separators=(",", ":"), allow_nan=False).translate(_UNSAFE) for a in arguments)
    return f"report.{function}({values});\n"


def write_plain(path: Path, content: bytes) -> None:
    """Replace a file at once, but without waiting for the disk: a report can be made again. An equal one stays.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    partial = partial_of(path)
    try:
        if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
            return
        partial.unlink(missing_ok=True)
        with partial.open("xb") as file:
            file.write(content)
        partial.replace(path)
    except OSError as err:
        raise output_error(path, err) from err


def highest_steps(score: NDArray[np.float32]) -> NDArray[np.int64]:
    """Of each figure of merit (N,), the highest threshold at which it is still a pick, in steps.

    A candidate is a pick at k / `STEPS` exactly when its value here is at least k: the comparison is made with the
    numbers that ``cryoemmae rethreshold`` compares.
    """
    return np.maximum(np.searchsorted(_GRID, score, side="right") - 1, 0)


def encode_steps(steps: NDArray[np.int64]) -> str:
    """Two letters a number below 4096."""
    pairs = np.stack([steps // 64, steps % 64], axis=1)
    return _DIGITS[pairs].tobytes().decode("ascii")
