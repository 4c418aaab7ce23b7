"""Read the exposures' images: from the disk where possible, else through the client, one file at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from cryoemmae_plugin.errors import ImageError
from cryoemmae_plugin.files import is_file
from cryoemmae_plugin.run.prefetch import Loaded, load
from cryoemmae_plugin.types import Micrograph
from cryosparc_job.errors import Refused
from cryosparc_job.instance import Instance


@dataclass(frozen=True)
class ExposureFiles:
    """Reads micrographs of a project.

    Attributes
    ----------
    instance : Instance
        Where files come from that are not on this host's disks.
    paths : mapping
        Path of each micrograph in the project, by its uid.
    scratch : Path
        Folder for files on their way; each is deleted as soon as it is read.
    """

    instance: Instance
    project: str
    paths: Mapping[str, str]
    scratch: Path

    def load(self, micrograph: Micrograph) -> Loaded:
        """Read a micrograph.

        Raises
        ------
        ImageError
            When it cannot be read, or the instance does not give it out.
        ServerGone
            When the instance does not answer.
        """
        with self.file_of(micrograph) as file:
            try:
                return load(replace(micrograph, path=file))
            except ImageError as err:
                if file == micrograph.path:
                    raise
                raise ImageError(str(err).replace(str(file), str(micrograph.path))) from err

    @contextmanager
    def file_of(self, micrograph: Micrograph) -> Iterator[Path]:
        """A micrograph's file on this host's disks: its own, or a copy for as long as this is entered."""
        if is_file(micrograph.path):
            yield micrograph.path
            return
        with self._fetched(micrograph) as folder:
            yield Path(folder) / micrograph.path.name

    def _fetched(self, micrograph: Micrograph) -> tempfile.TemporaryDirectory[str]:
        """A folder with a copy of a micrograph's file, as long as it is entered."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".download-", dir=self.scratch)
        try:
            self.instance.download(
                self.project, str(PurePosixPath(self.paths[micrograph.uid])), Path(folder.name) / micrograph.path.name
            )
        except Refused as err:
            folder.cleanup()
            raise ImageError(
                f"{micrograph.path}: not on this host's disks, and CryoSPARC does not give it out ({err}); "
                "mount the project's folder and the raw data here, at the same path as on the CryoSPARC master"
            ) from err
        except BaseException:
            folder.cleanup()
            raise
        return folder
