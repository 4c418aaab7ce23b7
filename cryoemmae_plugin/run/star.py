"""Micrographs and their pixel sizes from a RELION STAR file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import starfile

from cryoemmae_plugin.errors import InputError

NAME = "rlnMicrographName"
PIXEL_SIZES = ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize")
"""The labels of the pixel size, the one that counts first: "original" is before binning."""
GROUP = "rlnOpticsGroup"


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
    base = _project_folder(path, Path(named[0][0]))
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
    try:
        blocks = starfile.read(path, always_dict=True)
    except FileNotFoundError as err:
        raise InputError(f"{path}: no such file") from err
    except Exception as err:  # a parser for a loose format fails in many ways
        raise InputError(f"{path}: cannot be read as a STAR file ({type(err).__name__}: {err})") from err
    tables = {name: _as_table(block) for name, block in blocks.items()}
    table = next((table for table in tables.values() if NAME in table), None)
    if table is None or table.empty:
        movies = any("rlnMicrographMovieName" in table for table in tables.values())
        way_out = (
            "it lists movies: run motion correction first"
            if movies
            else "give the STAR of motion-corrected micrographs"
        )
        raise InputError(f"{path}: no table with {NAME} in it; {way_out}")
    return list(zip(map(str, table[NAME]), _pixel_sizes(path, table, tables.get("optics")), strict=True))


def _as_table(block: Any) -> pd.DataFrame:
    """A block as a table; one of single values is a table of one row."""
    return block if isinstance(block, pd.DataFrame) else pd.DataFrame([block])


def _project_folder(star: Path, first: Path) -> Path:
    """Where the names in a STAR file start from; the present folder if the first micrograph is nowhere to be found."""
    if first.is_absolute() or first.exists():
        return Path()
    return next((folder for folder in star.absolute().parents if (folder / first).exists()), Path())


def _pixel_sizes(path: Path, table: pd.DataFrame, optics: pd.DataFrame | None) -> list[float | None]:
    """Å per pixel, micrograph by micrograph."""
    try:
        for label in PIXEL_SIZES:
            if label in table:
                return [float(value) for value in table[label]]
            if optics is not None and label in optics and GROUP in optics:
                if GROUP not in table:
                    raise InputError(f"{path}: the micrographs have no {GROUP}; write the file again with RELION")
                by_group = {int(g): float(value) for g, value in zip(optics[GROUP], optics[label], strict=True)}
                return [by_group[int(group)] for group in table[GROUP]]
        if {"rlnDetectorPixelSize", "rlnMagnification"} <= set(table.columns):
            detector_um, magnification = (
                table["rlnDetectorPixelSize"].astype(float),
                table["rlnMagnification"].astype(float),
            )
            return [float(value) for value in 1e4 * detector_um / magnification]
    except KeyError as err:
        raise InputError(f"{path}: the optics group {err.args[0]} of a micrograph is not in the optics table") from err
    except (TypeError, ValueError) as err:
        raise InputError(f"{path}: a pixel size or optics group is not a number ({err})") from err
    return [None] * len(table)
