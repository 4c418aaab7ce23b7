"""Micrographs and their pixel sizes from a RELION STAR file."""

from __future__ import annotations

from pathlib import Path

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.picks.optics import pixel_sizes, project_folder
from cryoemmae_plugin.star import find_table, read_star, to_number

NAME = "rlnMicrographName"
DEFOCUS_A = ("rlnDefocusU", "rlnDefocusV")


def read_micrographs(path: Path) -> list[tuple[Path, float | None]]:
    """Read a micrographs STAR.

    The pixel size is rlnMicrographPixelSize, of the micrograph's own row or of its optics group; in files without it
    rlnMicrographOriginalPixelSize; in files from before RELION 3.1 10000 x rlnDetectorPixelSize / rlnMagnification;
    None where the file has none of them. Names are relative to
    RELION's project folder: the present one, or the first above the STAR file where the first micrograph is found.

    Returns
    -------
    list of (Path, float or None)
        Micrograph and Å per pixel, in the order of the file.

    Raises
    ------
    InputError
        When the file cannot be read or lists no micrographs.
    """
    named = read_named_micrographs(path)
    base = project_folder(path, Path(named[0][0]))
    return [(base / name, pixel_size_A) for name, pixel_size_A in named]


def read_named_micrographs(path: Path) -> list[tuple[str, float | None]]:
    """Read a micrographs STAR as :func:`read_micrographs` does, but with the names as they stand in it.

    Returns
    -------
    list of (str, float or None)
        Micrograph and Å per pixel, in the order of the file.

    Raises
    ------
    InputError
        When the file cannot be read or lists no micrographs.
    """
    tables = read_star(path)
    table = next((table for table in tables if NAME in table), None)
    if table is None:
        movies = any("rlnMicrographMovieName" in table for table in tables)
        way_out = (
            "it lists movies: run motion correction first"
            if movies
            else "give the STAR of motion-corrected micrographs"
        )
        raise InputError(f"{path}: no table with {NAME} in it; {way_out}")
    if not table.rows:
        raise InputError(f"{path}: the table data_{table.name} lists no micrographs; give a STAR file with rows")
    return list(zip(table.column(NAME), pixel_sizes(table, find_table(tables, "optics")), strict=True))


def read_named_defocus(path: Path) -> dict[str, float]:
    """Read the mean defocus of micrographs, in µm, by their names as they stand in a STAR file.

    Micrographs without one are left out.

    Raises
    ------
    InputError
        When the file cannot be read.
    """
    table = next((table for table in read_star(path) if NAME in table), None)
    if table is None or not all(label in table for label in DEFOCUS_A):
        return {}
    rows = zip(table.column(NAME), *(map(to_number, table.column(label)) for label in DEFOCUS_A), strict=True)
    return {name: (u + v) / 2e4 for name, u, v in rows if u is not None and v is not None}


def read_defocus(path: Path) -> dict[Path, float]:
    """Read the same by the paths that :func:`read_micrographs` gives."""
    named = read_named_defocus(path)
    base = project_folder(path, Path(next(iter(named)))) if named else Path()
    return {base / name: defocus_um for name, defocus_um in named.items()}
