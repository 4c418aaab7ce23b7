"""Read reference coordinates and picks from the files that they come in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import starfile

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.evaluation.metrics import Reference, Scored

REFERENCE_COLUMNS = ("micrograph", "x", "y", "diameter")


def read_reference(path: Path) -> dict[str, Reference]:
    """Read a reference CSV with the columns micrograph, x, y, diameter (pixels of the stored image).

    Micrographs go by the stem of their file name. A row with empty x and y names a micrograph without any particle.

    Raises
    ------
    InputError
        When the file cannot be read as such a table.
    """
    try:
        table = pd.read_csv(path)
    except FileNotFoundError as err:
        raise InputError(f"{path}: no such file; give a table of known positions") from err
    except (OSError, UnicodeError, ValueError) as err:
        raise InputError(f"{path}: cannot be read as a CSV table ({_first_line(err)})") from err
    missing = [column for column in REFERENCE_COLUMNS if column not in table]
    if missing:
        raise InputError(
            f"{path}: the column {missing[0]!r} is missing; a reference has the columns {', '.join(REFERENCE_COLUMNS)}"
        )
    try:
        table = table.astype({"micrograph": str, "x": float, "y": float, "diameter": float})
    except ValueError as err:
        raise InputError(f"{path}: x, y and diameter must be numbers ({_first_line(err)})") from err
    if not (table["diameter"] > 0).all():
        raise InputError(f"{path}: the diameter must be greater than 0 in every row")
    reference = {}
    for stem, rows in table.groupby(table["micrograph"].map(lambda name: Path(name).stem)):
        xy = rows[["x", "y"]].dropna().to_numpy(float)
        reference[str(stem)] = Reference(xy, float(rows["diameter"].iloc[0]))
    return reference


def read_picks(paths: Sequence[Path], stems: Sequence[str], min_score: float | None = None) -> dict[str, Scored]:
    """Read picks from STAR files, by the stem of the micrograph's file name.

    Parameters
    ----------
    paths : sequence of Path
        With rlnCoordinateX, rlnCoordinateY and, optionally, rlnMicrographName and rlnAutopickFigureOfMerit. A file that
        names no micrograph is taken for the one of `stems` that its own name begins with.
    min_score : float, optional
        Leave out picks below it.
    """
    tables = [table for path in paths for table in _read_star(path, stems)]
    if not tables:
        return {}
    table = pd.concat(tables)
    if min_score is not None:
        table = table[table["score"] >= min_score]
    return {
        str(stem): Scored(rows[["x", "y"]].to_numpy(float), rows["score"].to_numpy(float))
        for stem, rows in table.groupby("stem", sort=False)
    }


def _read_star(path: Path, stems: Sequence[str]) -> list[pd.DataFrame]:
    """The tables of picks in one STAR file, with the columns stem, x, y, score."""
    try:
        blocks = starfile.read(path, always_dict=True)
    except FileNotFoundError as err:
        raise InputError(f"{path}: no such file") from err
    except Exception as err:  # a parser for a loose format fails in many ways
        raise InputError(f"{path}: cannot be read as a STAR file ({_first_line(err)})") from err
    tables = []
    for block in blocks.values():
        if not isinstance(block, pd.DataFrame) or not {"rlnCoordinateX", "rlnCoordinateY"} <= set(block.columns):
            continue
        if "rlnMicrographName" in block:
            stem = block["rlnMicrographName"].astype(str).map(lambda name: Path(name).stem)
        else:
            owner = max((s for s in stems if path.name.startswith(s)), key=len, default=path.stem)
            stem = pd.Series(owner, index=block.index)
        score = block.get("rlnAutopickFigureOfMerit", np.nan)
        columns = {"x": block["rlnCoordinateX"], "y": block["rlnCoordinateY"], "score": score}
        try:
            tables.append(pd.DataFrame(columns, index=block.index).astype(float).assign(stem=stem))
        except (TypeError, ValueError) as err:
            raise InputError(f"{path}: a coordinate is not a number ({_first_line(err)})") from err
    if not tables and not any("rlnCoordinateX" in block for block in blocks.values()):
        raise InputError(f"{path}: no table with rlnCoordinateX and rlnCoordinateY in it")
    return tables


def _first_line(err: BaseException) -> str:
    return (str(err) or type(err).__name__).splitlines()[0]
