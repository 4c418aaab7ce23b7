"""Keep every other run out of a result folder."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

from filelock import FileLock, Timeout

from cryoemmae_plugin.errors import StoreError
from cryoemmae_plugin.files import output_error

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


class FolderLock:
    """The lock of one folder. The system lifts the lock of a process that dies.

    Some file systems offer no locks. There a run works without one, with a warning.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = FileLock(folder / LOCK_FILE)
        self._without = False

    @property
    def is_locked(self) -> bool:
        """Whether this run holds the folder."""
        return self._without or self._lock.is_locked

    def acquire(self, *instead: str) -> None:
        """Take the folder; again, where this run has it already.

        Parameters
        ----------
        instead : str
            What the user may do, other than wait, where another run has it.

        Raises
        ------
        StoreError
            When another run works in it.
        OutputError
            When the folder cannot be written.
        """
        if self._without:
            return
        try:
            self._lock.acquire(timeout=0)
        except Timeout as err:
            raise StoreError(f"{self._folder}: another run is working in it", remedy=("wait for it", *instead)) from err
        except (OSError, NotImplementedError) as err:
            if isinstance(err, OSError) and err.errno not in _NO_LOCKS:
                raise output_error(self._folder, err) from err
            self._without = True
            logger.warning(
                "%s: this file system offers no locks; make sure that no second run works in this folder", self._folder
            )

    def release(self) -> None:
        """Give the folder back."""
        if not self._without:
            self._lock.release()
