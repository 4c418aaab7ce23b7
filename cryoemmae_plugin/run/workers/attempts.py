"""Find the micrograph that kills its worker, by notes in the result folder.

A worker notes its host and process before each attempt, and deletes the note afterwards. If the process dies, the note
stays. (Dask counts deaths too, but blames every batch that the dead worker had.)
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryoemmae_plugin.files import output_error, read_text
from cryoemmae_plugin.run.workers.run_spec import host_name

FOLDER = ".attempts"


class Attempts:
    """Notes of the attempts of one run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER

    def deaths(self, name: str) -> list[str]:
        """Return the hosts on which a process died during an attempt of `name`, one entry for each death."""
        try:
            lines = read_text(self._folder / name).splitlines()
        except OSError:
            return []
        return [line.split()[0] for line in lines if line.strip()]

    @contextmanager
    def noted(self, name: str) -> Iterator[None]:
        """Keep a note of an attempt of `name` while it lasts.

        Raises
        ------
        OutputError
            When the note cannot be written.
        """
        path = self._folder / name
        try:
            self._folder.mkdir(exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{host_name()} {os.getpid()}\n")
        except OSError as err:
            raise output_error(path, err) from err
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete the notes of an earlier run."""
        shutil.rmtree(self._folder, ignore_errors=True)
