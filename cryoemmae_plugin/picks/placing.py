"""Picks on the micrographs that they belong to: names, shapes, pixel sizes, frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cryoemmae_plugin.errors import ImageError, InputError
from cryoemmae_plugin.images import read_header
from cryoemmae_plugin.picks.identity import keys_of, match_names
from cryoemmae_plugin.picks.reading import join, name_by_files
from cryoemmae_plugin.picks.relion_coordinates import is_upside_down
from cryoemmae_plugin.picks.table import PickTable
from cryoemmae_plugin.picks.transform import AS_IT_IS, Transform
from cryoemmae_plugin.types import Micrograph

SAME_PIXEL_SIZE = 0.02
"""Pixel sizes that differ by less than this part are taken for the same: headers are rounded."""


@dataclass
class Placed:
    """Picks in pixels of the stored micrographs, and what was done to them.

    Attributes
    ----------
    strangers : list of str
        Micrographs with picks that are not among those given; left out.
    """

    tables: list[PickTable]
    strangers: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def place(
    tables: Sequence[PickTable],
    micrographs: Sequence[Micrograph] = (),
    transform: Transform = AS_IT_IS,
    *,
    uids: Sequence[int] = (),
    pixel_size_A: float | None = None,
    coordinates_pixel_size_A: float | None = None,
) -> Placed:
    """Put picks into pixels of the stored micrographs.

    Parameters
    ----------
    micrographs : sequence of Micrograph
        What they are of; the picks then go by these names. None: by their own names.
    transform : Transform
        What else to do with the coordinates.
    uids : sequence of int
        CryoSPARC's numbers of the micrographs.
    pixel_size_A, coordinates_pixel_size_A : float, optional
        Å per pixel of the micrographs, and of the coordinates; they win over what files say.

    Raises
    ------
    InputError
        When no picks are of the micrographs, or names cannot be told apart.
    """
    named = join(name_by_files(tables, [str(one.path) for one in micrographs]))
    placed = _on_micrographs(named, micrographs, uids) if micrographs else Placed(named)
    scaled: dict[float, int] = {}
    by_name = {str(one.path): one for one in micrographs}
    for number, table in enumerate(placed.tables):
        size_A = pixel_size_A or _size_of(by_name.get(table.micrograph))
        at_A = coordinates_pixel_size_A or (table.pixel_size_A if micrographs or pixel_size_A else None)
        if at_A and size_A and not math.isclose(at_A, size_A, rel_tol=SAME_PIXEL_SIZE):
            scaled[at_A / size_A] = scaled.get(at_A / size_A, 0) + 1
            table = replace(Transform(scale=at_A / size_A).apply_to(table))
        table = replace(_stored(table), pixel_size_A=size_A or table.pixel_size_A)
        placed.tables[number] = transform.apply_to(table)
    placed.notes += [
        f"Coordinates of {count} micrographs multiplied by {scale:.4g}, the ratio of the pixel sizes"
        for scale, count in scaled.items()
    ]
    outside = sum(_outside(table) for table in placed.tables)
    if outside:
        placed.notes.append(
            f"{outside} of {sum(map(len, placed.tables))} picks lie outside their micrographs: check binning and flip "
            "(give another table or the micrographs with $check)"
        )
    return placed


def _on_micrographs(tables: Sequence[PickTable], micrographs: Sequence[Micrograph], uids: Sequence[int]) -> Placed:
    """Give picks the names, shapes and numbers of their micrographs."""
    by_name = {str(one.path): (one, number) for number, one in enumerate(micrographs)}
    keys = keys_of(by_name)
    full = {key: name for name, key in keys.items()}
    matched = match_names([table.micrograph for table in tables], keys)
    if tables and not matched:
        raise InputError(
            f"no picks are of the micrographs given: picks are of {tables[0].micrograph!r}, the micrographs begin with "
            f"{next(iter(by_name))!r}",
            remedy="give the micrographs that were picked, with the same file names",
        )
    placed = Placed([])
    for table in tables:
        if table.micrograph not in matched:
            placed.strangers.append(table.micrograph)
            continue
        name = full[matched[table.micrograph]]
        micrograph, number = by_name[name]
        placed.tables.append(
            replace(
                table,
                micrograph=name,
                shape=_shape_of(micrograph) or table.shape,
                uid=uids[number] if uids else table.uid,
                named_by_file=False,
            )
        )
    placed.tables[:] = join(placed.tables)
    return placed


def _shape_of(micrograph: Micrograph) -> tuple[int, int] | None:
    if micrograph.shape is not None:
        return micrograph.shape
    try:
        return read_header(micrograph.path).shape
    except ImageError:
        return None


def _size_of(micrograph: Micrograph | None) -> float | None:
    """Å per pixel of a micrograph: as it was given, or from its header."""
    if micrograph is None:
        return None
    if micrograph.pixel_size_A is not None:
        return micrograph.pixel_size_A
    try:
        found = read_header(micrograph.path).pixel_size_A
    except ImageError:
        return None
    return None if found is None or found == 1.0 else found


def _stored(table: PickTable) -> PickTable:
    """Turn RELION's coordinates on a TIFF into those of the stored rows."""
    if not (table.relion_frame and is_upside_down(table.micrograph)):
        return table
    try:
        return replace(Transform(flip_y=True).apply_to(table), relion_frame=False)
    except InputError as err:
        raise InputError(
            f"{table.micrograph}: RELION counts the rows of a TIFF from the last one, and their number is not known",
            remedy="give the $micrographs",
        ) from err


def _outside(table: PickTable) -> int:
    if table.shape is None:
        return 0
    ny, nx = table.shape
    inside = ((table.xy >= -0.5) & (table.xy <= (nx - 0.5, ny - 0.5))).all(axis=1)
    return int((~inside).sum())
