"""One result file per micrograph, so that a run can stop at any time and be resumed.

Layout of a result folder::

    DIR/settings.json       what every result in DIR was made with
    DIR/results/<uid>.star  all candidates of one micrograph

A result file depends on the micrograph, the settings and the model alone: not on the order of the run, on when it was
interrupted, or on the machine. A micrograph that failed leaves none, so that the next run tries it again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from cryoemmae_plugin.errors import StoreError
from cryoemmae_plugin.files import (
    PARTIAL,
    Note,
    atomic_write,
    output_error,
    read_beginning,
    read_bytes,
    read_text,
    reason_of,
    write_json,
)
from cryoemmae_plugin.run.lock import LOCK_FILE, FolderLock
from cryoemmae_plugin.run.record import (
    CLOCK_TOLERANCE_NS,
    FORMAT,
    MAGIC,
    Result,
    Source,
    format_result,
    parse_header,
    parse_result,
    rounded,
)
from cryoemmae_plugin.settings import OUTPUT_SETTINGS, PickerSettings
from cryoemmae_plugin.types import Micrograph, Picks

logger = logging.getLogger(__name__)

SETTINGS_FILE = "settings.json"
_ANOTHER_FOLDER = "choose another $out"
_FINAL_FILES = ("picks.star", "picks.csv", "summary.json")


class Existing(Enum):
    """What a run does with the results of an earlier run in its folder."""

    CONTINUE = "continue"
    """Continue them. Results of other settings or another model are an error."""
    RENEW = "renew"
    """Continue them. Results of other settings or another model are deleted."""
    REPLACE = "replace"
    """Delete them."""


class RunRecord(Note):
    """What all results of a folder have in common."""

    format: int = FORMAT
    version: str
    """Release of this package, major.minor: a release that changes picks raises the minor number."""
    model_name: str
    model_sha256: str
    settings: PickerSettings

    @property
    def fingerprint(self) -> str:
        """Short identity of settings and model."""
        return self.settings.fingerprint(self.model_sha256)

    def comparable(self) -> dict[str, Any]:
        """What must be equal for two runs to share a folder, by name; settings as ``$field``."""
        settings = self.settings.model_dump(exclude={"model", "purity", *OUTPUT_SETTINGS})
        sizes = settings.pop("sizes_A", ())
        settings["diameter_A"] = ",".join(f"{size:g}" for size in sizes) or settings["diameter_A"]
        named = {f"${field}": value for field, value in settings.items()}
        return named | {"model weights (sha256)": self.model_sha256, "version": self.version, "format": self.format}


class ResultStore:
    """The results of one folder; a context manager that keeps every other run out of it.

    Parameters
    ----------
    folder : Path
        The result folder; :meth:`create` makes it.
    base : Path
        Where relative paths of micrographs start: the current folder, or, in a worker, that of the run.
    """

    def __init__(self, folder: Path, record: RunRecord, base: Path = Path(), lock: FolderLock | None = None) -> None:
        self.folder = folder
        self.record = record
        self.base = base
        self._lock = lock or FolderLock(folder)

    @classmethod
    def create(
        cls,
        folder: Path,
        record: RunRecord,
        *,
        existing: Existing = Existing.CONTINUE,
        lock: FolderLock | None = None,
    ) -> ResultStore:
        """Start a result folder, or continue one that was made with the same settings and model; it is locked.

        Parameters
        ----------
        lock : FolderLock, optional
            The lock of the folder, if this run holds it already, see :func:`alone_in`.

        Raises
        ------
        StoreError
            When the folder holds results of other settings or another model, or files that no run has put there, and
            `existing` is CONTINUE; when another run works in it.
        OutputError
            When the folder cannot be written.
        """
        store = cls(folder, record, lock=lock)
        _make(folder)
        _acquire(store._lock, folder, _ANOTHER_FOLDER)
        try:
            if existing is Existing.REPLACE or (existing is Existing.RENEW and not store._continues()):
                store._clear()
            store._claim()
        except BaseException:
            store._lock.release()
            raise
        return store

    @classmethod
    def open(cls, folder: Path) -> ResultStore:
        """Open the folder of an earlier run.

        Raises
        ------
        StoreError
            When it is none, or one that this version cannot read.
        """
        record = _read_record(folder / SETTINGS_FILE)
        if record.format != FORMAT:
            raise StoreError(
                f"{folder}: written by version {record.version} in format {record.format}, and this version reads "
                f"format {FORMAT}",
                remedy="use that version, or pick again into another folder",
            )
        return cls(folder, record)

    def __enter__(self) -> ResultStore:
        if not self._lock.is_locked:
            _acquire(self._lock, self.folder)
        return self

    def __exit__(self, *details: object) -> None:
        self._lock.release()

    def path_of(self, uid: str) -> Path:
        """The result file of a micrograph."""
        return _path_of(self.folder, uid)

    def owner(self, uid: str) -> Source | None:
        """The file of the micrograph that is stored under `uid`; None where nothing is."""
        return stored_source(self.folder, uid)

    def holds(self, micrograph: Micrograph) -> bool:
        """Whether this micrograph is done: stored, whole, and its file and pixel size not changed since."""
        try:
            result = self.load(micrograph.uid)
        except StoreError:
            return False
        path = self.base / micrograph.path
        if not result.source.is_at(path) or result.fingerprint != self.record.fingerprint:
            return False
        if micrograph.pixel_size_A not in (None, result.pixel_size_A):
            return False
        try:
            now = path.stat()
        except OSError:
            return True  # the input may have been deleted; its result stays valid
        return result.source.is_unchanged(path) and _is_older(now.st_mtime_ns, self.path_of(micrograph.uid))

    def pending(self, micrographs: Iterable[Micrograph]) -> list[Micrograph]:
        """The micrographs that are still to be picked, in the same order."""
        return [micrograph for micrograph in micrographs if not self.holds(micrograph)]

    def save(self, micrograph: Micrograph, picks: Picks, pixel_size_A: float, source_bytes: int) -> Result:
        """Store all candidates of a micrograph, at once or not at all.

        Returns
        -------
        Result
            As :meth:`load` would give it back: coordinates and scores rounded to the digits in the file.

        Raises
        ------
        OutputError
            When the file cannot be written.
        """
        path, time_ns = (self.base / micrograph.path).absolute(), None
        with suppress(OSError):
            time_ns = path.stat().st_mtime_ns
        result = Result(
            uid=micrograph.uid,
            micrograph=str(micrograph.path),
            source=Source(path, source_bytes, time_ns),
            pixel_size_A=pixel_size_A,
            fingerprint=self.record.fingerprint,
            picks=rounded(picks),
        )
        with atomic_write(self.path_of(micrograph.uid)) as file:
            file.write(format_result(result))
        if time_ns is not None:
            _date_after(self.path_of(micrograph.uid), time_ns)
        return result

    def load(self, uid: str) -> Result:
        """Read one result.

        Raises
        ------
        StoreError
            When there is none, or none that can be read.
        """
        path = self.path_of(uid)
        try:
            return parse_result(uid, read_text(path))
        except (OSError, ValueError, OverflowError) as err:
            raise StoreError(
                f"{path}: not a whole result ({reason_of(err)}); run the same pick command again to replace it"
            ) from err

    def uids(self) -> list[str]:
        """The names of all results, in no order."""
        results = self.folder / "results"
        return [path.relative_to(results).as_posix().removesuffix(".star") for path in results.glob("**/*.star")]

    def gone(self, micrographs: Iterable[Micrograph]) -> list[Path]:
        """Files of results, other than those of `micrographs`, that are no longer there."""
        others = set(self.uids()) - {micrograph.uid for micrograph in micrographs}
        sources = (self.owner(uid) for uid in others)
        return sorted(source.path for source in sources if source is not None and source.is_gone)

    def __iter__(self) -> Iterator[Result]:
        """All results, ordered by the path of their micrograph, one at a time."""
        sources = {uid: self.owner(uid) for uid in self.uids()}
        for uid, _ in sorted(sources.items(), key=lambda item: (str(item[1].path) if item[1] else "", item[0])):
            try:
                yield self.load(uid)
            except StoreError as err:
                logger.warning("left out: %s", err)

    def _claim(self) -> None:
        """Check that this run may write into the folder, and write its settings there."""
        path = self.folder / SETTINGS_FILE
        if path.exists():
            before = _read_record(path)
            if has_results(self.folder):
                self._compare(before)
                return
        _refuse_foreign(self.folder)
        write_json(path, self.record.model_dump(exclude={"settings": {"purity", *OUTPUT_SETTINGS}}))

    def _continues(self) -> bool:
        """Whether the results in the folder were made with the same settings and model."""
        try:
            return _read_record(self.folder / SETTINGS_FILE).comparable() == self.record.comparable()
        except StoreError:
            return False

    def _compare(self, before: RunRecord) -> None:
        old, new = before.comparable(), self.record.comparable()
        changed = [f"{name} was {_brief(old[name])}, is {_brief(new[name])}" for name in new if old[name] != new[name]]
        if changed:
            raise StoreError(
                f"{self.folder}: holds results of another run: {'; '.join(changed)}",
                remedy=("choose another $out", "throw the old results away with $overwrite=yes"),
            )

    def _clear(self) -> None:
        """Delete what earlier runs have written, and nothing else."""
        try:
            for path in (self.folder / "results").glob("**/*.star"):
                if read_beginning(path, len(MAGIC)) == MAGIC.encode():
                    path.unlink()
            for name in (SETTINGS_FILE, *_FINAL_FILES):
                (self.folder / name).unlink(missing_ok=True)
        except OSError as err:
            raise output_error(self.folder, err) from err


@contextmanager
def alone_in(folder: Path, existing: Existing = Existing.CONTINUE) -> Iterator[FolderLock]:
    """Make a result folder, and keep other runs out of it until this run has ended.

    A new folder is deleted again if the run leaves nothing in it. Yields the lock, for :meth:`ResultStore.create`.

    Raises
    ------
    StoreError
        When another run works in it, or it holds files that no run has put there, which only REPLACE overwrites.
    OutputError
        When the folder cannot be written.
    """
    lock, new = FolderLock(folder), not folder.exists()
    _make(folder)
    _acquire(lock, folder, _ANOTHER_FOLDER)
    try:
        if existing is not Existing.REPLACE:
            _refuse_foreign(folder)
        yield lock
    finally:
        with suppress(OSError):
            if new and [path.name for path in folder.iterdir()] == [LOCK_FILE]:
                (folder / LOCK_FILE).unlink()
                folder.rmdir()
        lock.release()


def _date_after(result: Path, time_ns: int) -> None:
    """Give a result the time of its micrograph where that lies in the future, as after a wrong clock."""
    with suppress(OSError):
        if time_ns > result.stat().st_mtime_ns:
            os.utime(result, ns=(time_ns, time_ns))


def _is_older(source_ns: int, result: Path) -> bool:
    """Whether a micrograph has not changed since its result was written, also if its time lies in the future."""
    result_ns = result.stat().st_mtime_ns
    if result_ns > time.time_ns() + CLOCK_TOLERANCE_NS:
        return abs(source_ns - result_ns) <= CLOCK_TOLERANCE_NS
    return source_ns <= result_ns


def micrographs_in(store: ResultStore) -> list[Micrograph]:
    """The micrographs that a run has picked, to be picked again.

    By the path that they were given by where it still leads to them, else by their absolute path.
    """
    found = []
    for result in store:
        given = Path(result.micrograph)
        path = given if result.source.is_at(given) else result.source.path
        found.append(Micrograph(path, result.pixel_size_A, result.uid, result.picks.shape))
    return found


def has_results(folder: Path) -> bool:
    """Whether a run has finished a micrograph in this folder."""
    return (folder / SETTINGS_FILE).exists() and any((folder / "results").glob("**/*.star"))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise output_error(folder, err) from err


def _acquire(lock: FolderLock, folder: Path, *instead: str) -> None:
    """Lock a folder, and delete partly written files of a run that died."""
    lock.acquire(*instead)
    for left in (folder / "results").glob(f"**/.*{PARTIAL}"):
        with suppress(OSError):
            left.unlink()


def _refuse_foreign(folder: Path) -> None:
    """Refuse final files in a folder that no run has started."""
    foreign = [name for name in _FINAL_FILES if (folder / name).exists()]
    if foreign and not (folder / SETTINGS_FILE).exists():
        raise StoreError(
            f"{folder / foreign[0]}: there already, and not from a run that can be continued",
            remedy=("choose another $out", "write over it with $overwrite=yes"),
        )


def owner_in(folder: Path, existing: Existing) -> Callable[[str], Source | None]:
    """Return a function from a uid to the micrograph whose result `folder` holds; none if they are replaced."""
    if existing is Existing.REPLACE:
        return lambda uid: None
    return partial(stored_source, folder)


def stored_source(folder: Path, uid: str) -> Source | None:
    """The file of the micrograph that `folder` has a result of under `uid`; None where it has none."""
    try:
        beginning = read_beginning(_path_of(folder, uid), 16384).decode("utf-8", "surrogateescape")
        return Source.of_header(parse_header(beginning))
    except (OSError, KeyError, ValueError):
        return None


def _path_of(folder: Path, uid: str) -> Path:
    pure = PurePosixPath(uid)
    if not uid or pure.is_absolute() or ".." in pure.parts:
        raise StoreError(f"{uid!r} is not a safe name for a result; it must be a relative path without '..'")
    return folder / "results" / f"{uid}.star"


def _read_record(path: Path) -> RunRecord:
    try:
        return RunRecord.model_validate_json(read_bytes(path))
    except (FileNotFoundError, NotADirectoryError) as err:
        if not path.parent.exists():
            raise StoreError(f"{path.parent}: no such folder", remedy="give the output folder of a run") from err
        raise StoreError(f"{path.parent}: not the output folder of a run (it has no {path.name})") from err
    except (OSError, UnicodeError, ValidationError) as err:
        raise StoreError(
            f"{path}: cannot be read ({reason_of(err)})",
            remedy=("choose another $out", "start over with $overwrite=yes"),
        ) from err


def _brief(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text
