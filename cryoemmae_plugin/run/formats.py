"""Files of picks for other programs: one writer a program, each in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from enum import Enum
from pathlib import Path, PurePosixPath

import numpy as np

from cryoemmae_plugin.errors import InputError, SettingsError, StoreError
from cryoemmae_plugin.files import Note, atomic_write, output_error, read_note, write_note
from cryoemmae_plugin.picks.boxes import Diameters, write_box, write_cbox
from cryoemmae_plugin.picks.relion import star_of_picks
from cryoemmae_plugin.picks.relion_coordinates import (
    COORDINATES_SUFFIX,
    SIZE,
    format_coordinates,
    is_upside_down,
    root_of,
)
from cryoemmae_plugin.run.record import Result
from cryoemmae_plugin.star import quote
from cryoemmae_plugin.types import Picks

BOX_FOLDER, RELION_FOLDER, CBOX_FOLDER = "boxes", "relion", "cbox"
CRYOSPARC_FILE = "cryosparc.star"
RELION_LIST = "autopick.star"
RELION_SUFFIX = f"coords_suffix{COORDINATES_SUFFIX}"
"""Name of the file that stands for all coordinates in RELION 3.1: its folder and the end of its name count."""
GROUP_COLUMN = "rlnClassNumber"
OWN_MARK = "# cryoemmae picks\n"
"""First line of RELION's coordinate files that this program has written for plain runs."""

BOX_RECORD = ".cryoemmae.json"
"""File in the folder of boxes that names those written by this program."""


class _BoxRecord(Note):
    files: tuple[str, ...]


Writer = Callable[[Result, Picks], None]
"""Writes the picks of one micrograph."""


class Format(Enum):
    """A program that picks can be written for."""

    RELION = "relion"
    CRYOSPARC = "cryosparc"
    EMAN = "eman"
    CRYOLO = "cryolo"


def parse_formats(text: str) -> frozenset[Format]:
    """Read a list of programs, such as "relion,cryolo".

    Raises
    ------
    SettingsError
        When one of them is not known.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    known = [one.value for one in Format]
    for name in names:
        if name not in known:
            raise SettingsError(setting="formats", value=name, remedy=f"give one or more of {', '.join(known)}")
    return frozenset(Format(name) for name in names)


def existing_formats(folder: Path) -> frozenset[Format]:
    """The programs for which this program has written files into a result folder."""
    places = {
        Format.RELION: folder / RELION_FOLDER / RELION_LIST,
        Format.CRYOSPARC: folder / CRYOSPARC_FILE,
        Format.EMAN: folder / BOX_FOLDER / BOX_RECORD,
        Format.CRYOLO: folder / CBOX_FOLDER / BOX_RECORD,
    }
    return frozenset(one for one, place in places.items() if place.exists())


def open_writer(
    one: Format, folder: Path, diameter_A: float, uids: Collection[str] = (), *, sized: bool = False
) -> AbstractContextManager[Writer]:
    """Open the writer of a program's files in a result folder; what it has written there before goes.

    `uids` are the names of the results that are going to be written; `sized` says that picks have sizes of their own.
    """
    if one is Format.RELION:
        return _relion(folder / RELION_FOLDER)
    if one is Format.CRYOSPARC:
        # Import Particle Stack finds micrographs by the names of their files
        return picks_star(folder / CRYOSPARC_FILE, name_of=lambda micrograph: Path(micrograph).name, sized=sized)
    if one is Format.EMAN:
        return nullcontext(_one_file_each(folder / BOX_FOLDER, ".box", uids, diameter_A, write_box))
    return nullcontext(_one_file_each(folder / CBOX_FOLDER, ".cbox", uids, diameter_A, write_cbox))


def _one_file_each(
    folder: Path,
    suffix: str,
    uids: Collection[str],
    diameter_A: float,
    write: Callable[[Path, Picks, Diameters], None],
) -> Writer:
    """One file a micrograph, named as its result."""
    _claim(folder, [f"{uid}{suffix}" for uid in uids])

    def write_one(result: Result, picks: Picks) -> None:
        write(folder / f"{result.uid}{suffix}", picks, picks.diameter_px(diameter_A, result.pixel_size_A))

    return write_one


@contextmanager
def picks_star(
    path: Path, comment: str = "", name_of: Callable[[str], str] = str, *, grouped: bool = False, sized: bool = False
) -> Iterator[Writer]:
    """The writer of one STAR table of all picks, see :func:`star_of_picks`; with groups and sizes where asked for."""
    labels = [label for label, wanted in ((GROUP_COLUMN, grouped), (SIZE, sized)) if wanted]
    with star_of_picks(path, comment, name_of, labels) as rows:

        def write(result: Result, picks: Picks) -> None:
            group = np.zeros(len(picks), np.int32) if picks.group is None else picks.group
            sizes = np.full(len(picks), np.nan) if picks.diameter_A is None else picks.diameter_A
            extras = [values for values, wanted in ((group, grouped), (sizes, sized)) if wanted]
            rows(result.micrograph, picks.xy, picks.score, *extras)

        yield write


@contextmanager
def _relion(folder: Path) -> Iterator[Writer]:
    """A coordinate file each, and the file that RELION takes as input coordinates: a list; for 3.1 one that names it.

    Names and places are relative to where the run was started, which for RELION is the project folder.
    """
    _clear(folder)
    with atomic_write(folder / RELION_LIST) as listing:
        listing.write("\n# version 30001\n\ndata_coordinate_files\n\nloop_\n")
        listing.write("_rlnMicrographName #1\n_rlnMicrographCoordinates #2\n")

        def write(result: Result, picks: Picks) -> None:
            root = result.uid
            with suppress(InputError):  # a path with '..', or too long: the name of the result is unique too
                root = root_of(result.micrograph)
            path = folder / f"{root}{COORDINATES_SUFFIX}"
            if path.exists():
                raise StoreError(
                    f"{path}: there already, and not written by this program; move it away",
                    remedy="choose another folder with $out",
                )
            with atomic_write(path) as file:
                file.write(OWN_MARK + format_coordinates(picks, is_upside_down(result.micrograph)))
            listing.write(f"{quote(result.micrograph)} {quote(str(path))}\n")

        yield write
        listing.write("\n")
    with atomic_write(folder / RELION_SUFFIX) as file:
        file.write(f"{folder / RELION_LIST}\n")


def _claim(folder: Path, names: list[str]) -> None:
    """Take away the files of earlier runs, and note which files this one is going to write.

    Only files that the folder's own record names are deleted or replaced.
    """
    record = folder / BOX_RECORD
    before = read_note(record, _BoxRecord, f"delete it, and move the files that are not needed out of {folder}")
    try:
        for name in before.files if before else ():
            if ".." not in PurePosixPath(name).parts:
                (folder / name.lstrip("/")).unlink(missing_ok=True)
    except OSError as err:
        raise output_error(folder, err) from err
    foreign = next((folder / name for name in sorted(names) if (folder / name).exists()), None)
    if foreign is not None:
        raise StoreError(
            f"{foreign}: there already, and not written by this program; move it away",
            remedy="choose another folder with $out",
        )
    write_note(record, _BoxRecord(files=tuple(sorted(names))))


def _clear(folder: Path) -> None:
    """Delete the coordinate files of earlier runs; their first line identifies them."""
    try:
        for path in folder.glob(f"**/*{COORDINATES_SUFFIX}"):
            if _is_own(path):
                path.unlink()
    except OSError as err:
        raise output_error(folder, err) from err


def _is_own(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(OWN_MARK)) == OWN_MARK.encode()
