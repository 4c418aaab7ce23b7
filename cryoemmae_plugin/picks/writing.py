"""Write picks for a program: into one file, or one file for each micrograph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path, PurePosixPath

import numpy as np

from cryoemmae_plugin.errors import InputError, OutputError, SettingsError
from cryoemmae_plugin.files import atomic_write
from cryoemmae_plugin.picks import boxes, cryosparc, csv_table, topaz
from cryoemmae_plugin.picks.identity import keys_of
from cryoemmae_plugin.picks.relion import LIST_FILES, LIST_TABLE, NAME, star_of_picks
from cryoemmae_plugin.picks.relion_coordinates import COORDINATES_SUFFIX, format_coordinates, is_upside_down, root_of
from cryoemmae_plugin.picks.table import PickTable
from cryoemmae_plugin.star import quote
from cryoemmae_plugin.types import Picks


class Target(Enum):
    """What picks can be written as."""

    STAR = "star"
    RELION = "relion"
    CRYOSPARC = "cryosparc"
    CS = "cs"
    CRYOLO = "cryolo"
    EMAN = "eman"
    TOPAZ = "topaz"
    CSV = "csv"


_BY_SUFFIX = {".star": Target.STAR, ".cs": Target.CS, ".txt": Target.TOPAZ, ".csv": Target.CSV}
_SIDES_NEEDED = (Target.CRYOLO, Target.EMAN, Target.CSV)
_FOLDERS = (Target.RELION, Target.CRYOLO, Target.EMAN)
_UNKNOWN_SHAPE = (2**31 - 1, 2**31 - 1)


def choose_target(to: str | None, out: Path) -> Target:
    """The form that a user asks for: by its name, or by the suffix of the output.

    Raises
    ------
    SettingsError
        When there is no such form, or the suffix does not say.
    """
    names = ", ".join(one.value for one in Target)
    if to is None:
        if out.suffix.lower() not in _BY_SUFFIX:
            raise SettingsError(f"$out {out}: its name does not say the format", remedy=f"give $to, one of {names}")
        return _BY_SUFFIX[out.suffix.lower()]
    try:
        return Target(to)
    except ValueError as err:
        raise SettingsError(setting="to", value=to, remedy=f"give one of {names}") from err


def write(target: Target, out: Path, tables: Sequence[PickTable], *, overwrite: bool = False) -> None:
    """Write picks.

    Parameters
    ----------
    out : Path
        A file; a folder where there is one file for each micrograph.
    tables : sequence of PickTable
        In pixels of the stored micrographs.

    Raises
    ------
    OutputError
        When something is there already, or cannot be written.
    InputError
        When the form needs what the picks do not have.
    """
    if out.exists() and not overwrite and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: there already", remedy=("choose another $out", "replace it with $overwrite=yes"))
    if target in _FOLDERS and out.exists() and not out.is_dir():
        raise OutputError(f"{out}: a file, where a folder is to be written", remedy="choose another $out")
    if target in _SIDES_NEEDED and any(table.diameter_px is None for table in tables):
        raise InputError(
            f"{target.value} needs the size of the particle in pixels",
            remedy="give $diameter_A, and $pixel_size_A where it is not known",
        )
    _WRITERS[target](out, tables)


def _write_star(out: Path, tables: Sequence[PickTable], name_of: Callable[[str], str] = str) -> None:
    labels = sorted({label for table in tables for label in table.extras})
    with star_of_picks(out, "# cryoemmae picks\n", name_of, labels) as rows:
        for table in tables:
            nothing = np.full(len(table), np.nan)
            rows(table.micrograph, table.xy, table.score, *(table.extras.get(label, nothing) for label in labels))


def _write_cryosparc(out: Path, tables: Sequence[PickTable]) -> None:
    # Import Particle Stack finds micrographs by the names of their files
    _write_star(out, tables, lambda name: PurePosixPath(name).name)


def _write_cs(out: Path, tables: Sequence[PickTable]) -> None:
    sides = [table.diameter_px * table.pixel_size_A for table in tables if table.diameter_px and table.pixel_size_A]
    cryosparc.write_particles(out, tables, 0.5 * float(np.median(sides)) if sides else 0.0)


def _write_relion(out: Path, tables: Sequence[PickTable]) -> None:
    """A coordinate file each, and the list of them that RELION 4 and 5 read."""
    with atomic_write(out / "autopick.star") as listing:
        listing.write(f"\n# version 30001\n\ndata_{LIST_TABLE}\n\nloop_\n_{NAME} #1\n_{LIST_FILES} #2\n")
        for table in tables:
            path = out / f"{root_of(table.micrograph)}{COORDINATES_SUFFIX}"
            upside_down = is_upside_down(table.micrograph)
            if upside_down and table.shape is None:
                raise InputError(
                    f"{table.micrograph}: RELION counts the rows of a TIFF from the last one, and their number is not "
                    "known",
                    remedy="give the $micrographs",
                )
            with atomic_write(path) as file:
                file.write(format_coordinates(_picks(table), upside_down))
            listing.write(f"{quote(table.micrograph)} {quote(str(path))}\n")
        listing.write("\n")


def _picks(table: PickTable) -> Picks:
    """The same as picks of one micrograph; without a score, 0."""
    score = np.nan_to_num(table.score).astype(np.float32)
    return Picks(table.xy, score, np.zeros(len(table), np.float32), table.shape or _UNKNOWN_SHAPE)


def _one_file_each(suffix: str, write_one: Callable[[Path, Picks, float], None]) -> Callable[..., None]:
    def write_all(out: Path, tables: Sequence[PickTable]) -> None:
        names = keys_of(table.micrograph for table in tables)
        for table in tables:
            name = names[table.micrograph].lstrip("/").replace("/", "_")
            write_one(out / f"{name}{suffix}", _picks(table), table.diameter_px or 0.0)

    return write_all


_WRITERS: dict[Target, Callable[[Path, Sequence[PickTable]], None]] = {
    Target.STAR: _write_star,
    Target.RELION: _write_relion,
    Target.CRYOSPARC: _write_cryosparc,
    Target.CS: _write_cs,
    Target.CRYOLO: _one_file_each(".cbox", boxes.write_cbox),
    Target.EMAN: _one_file_each(".box", boxes.write_box),
    Target.TOPAZ: topaz.write_topaz,
    Target.CSV: csv_table.write_csv,
}
