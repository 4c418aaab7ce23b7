"""Marker files: a job reports its end, and RELION asks for an abort."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal

End = Literal["SUCCESS", "FAILURE", "ABORTED"]
ENDS: tuple[End, ...] = ("SUCCESS", "FAILURE", "ABORTED")
ABORT_NOW = "RELION_JOB_ABORT_NOW"


class JobMarkers:
    """The empty files by which RELION and a job communicate."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self) -> None:
        """Remove the markers of an earlier run.

        A request to abort that no run has answered stays: RELION removes old ones before it starts a job, so this one
        was made while the job waited in a queue.
        """
        answered = self._path("ABORTED").exists()
        for end in ENDS:
            self._path(end).unlink(missing_ok=True)
        if answered:
            (self._folder / ABORT_NOW).unlink(missing_ok=True)

    def abort_requested(self) -> bool:
        """Whether somebody has chosen "Abort" in RELION."""
        return (self._folder / ABORT_NOW).exists()

    def end(self, end: End) -> None:
        """Mark how the job has ended; the last action of a job."""
        for other in ENDS:
            if other != end:
                with suppress(OSError):
                    self._path(other).unlink(missing_ok=True)
        self._path(end).touch()
        if end == "ABORTED":
            with suppress(OSError):
                (self._folder / ABORT_NOW).unlink(missing_ok=True)

    def _path(self, end: End) -> Path:
        return self._folder / f"RELION_JOB_EXIT_{end}"
