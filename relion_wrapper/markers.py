"""How RELION learns that a job has ended, and how it asks one to end."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal

End = Literal["SUCCESS", "FAILURE", "ABORTED"]
ENDS: tuple[End, ...] = ("SUCCESS", "FAILURE", "ABORTED")
ABORT_NOW = "RELION_JOB_ABORT_NOW"


class JobMarkers:
    """The empty files by which RELION and a job talk to each other.

    Parameters
    ----------
    folder : Path
        The job's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self) -> None:
        """Remove what an earlier run has left.

        A wish to abort that no run has answered yet stays: RELION removes old ones itself before it starts a job, so it
        was made while this one waited in a queue.
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
        """Say how the job has ended: the last thing that it does."""
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
