"""Notes of attempts under way, in the result folder: what kills its worker is found by the note that stays behind.

A note is a line with host and process. It is taken away when the try ends in any other way than the process's death.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryoemmae_plugin.files import output_error
from cryoemmae_plugin.run.workers.run_spec import host_name

FOLDER = ".attempts"


class Attempts:
    """The notes of one run.

    Parameters
    ----------
    folder : Path
        The result folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER

    def deaths(self, name: str) -> list[str]:
        """Hosts on which a process has died over `name`, one for each death."""
        try:
            lines = (self._folder / name).read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        return [line.split()[0] for line in lines if line.strip()]

    @contextmanager
    def noted(self, name: str) -> Iterator[None]:
        """Note a try of `name` as long as it lasts.

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
        """Forget what an earlier run has left."""
        shutil.rmtree(self._folder, ignore_errors=True)
