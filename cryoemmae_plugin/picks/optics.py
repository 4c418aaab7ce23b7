"""Pixel sizes of the rows of a RELION table, and the project folder that its names start from."""

from __future__ import annotations

import math
import os
from pathlib import Path

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.star import Table

MICROGRAPH_PIXEL_SIZE, ORIGINAL_PIXEL_SIZE = "rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize"
PIXEL_SIZES = (MICROGRAPH_PIXEL_SIZE, ORIGINAL_PIXEL_SIZE)
"""The labels of the pixel size, the one that counts first: "original" is before binning."""
GROUP = "rlnOpticsGroup"
DETECTOR_UM, MAGNIFICATION = "rlnDetectorPixelSize", "rlnMagnification"


def project_folder(star: Path, first: Path) -> Path:
    """Where the names in a STAR file start from; the present folder if the first file is nowhere above the STAR file.

    Another project may be the present folder, and have files of the same names.
    """
    if first.is_absolute():
        return Path()
    folders = star.absolute().parents
    above = next((folder for folder in folders if os.path.exists(folder / first)), Path())  # noqa: PTH110 (a name may be too long for a Path)
    return Path() if above.samefile(Path()) else above


def pixel_sizes(
    table: Table, optics: Table | None, labels: tuple[str, ...] = PIXEL_SIZES, *, from_detector: bool = True
) -> list[float | None]:
    """Å per pixel of the micrograph of each row; None where the file has none.

    Parameters
    ----------
    optics : Table or None
        The optics groups of the same file.
    labels : tuple of str
        Which of them count, the first one there.
    from_detector : bool
        Else take it from detector and magnification, as in files from before RELION 3.1.
    """
    for label in labels:
        if label in table:
            return list(table.numbers(label))
        if optics is not None and label in optics and GROUP in optics:
            return list(_by_group(table, optics, label))
    if from_detector and DETECTOR_UM in table and MAGNIFICATION in table:
        pairs = zip(table.numbers(DETECTOR_UM), table.numbers(MAGNIFICATION), strict=True)
        return [1e4 * pixel_um / magnification if magnification else math.inf for pixel_um, magnification in pairs]
    return [None] * len(table)


def _by_group(table: Table, optics: Table, label: str) -> list[float]:
    """A value of each row's optics group."""
    values = dict(zip(optics.numbers(GROUP), optics.numbers(label), strict=True))
    found = []
    for group, line in zip(table.numbers(GROUP), table.lines, strict=True):
        if group not in values:
            raise InputError(
                f"{table.source}, line {line}: the optics group {group:g} of a micrograph is not in the optics table; "
                "add it there, or correct the line"
            )
        found.append(values[group])
    return found
