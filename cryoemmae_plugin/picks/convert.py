"""What the commands about picks do: load, keep what is wanted, compare."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cryoemmae_plugin.errors import InputError, SettingsError
from cryoemmae_plugin.images import READABLE_SUFFIXES, pixel_size_of, read_header, read_image
from cryoemmae_plugin.picks.cryosparc import read_dataset
from cryoemmae_plugin.picks.identity import keys_of, match_names
from cryoemmae_plugin.picks.merging import Distance
from cryoemmae_plugin.picks.orientation import MOST_MICROGRAPHS, Finding, Pair, compare
from cryoemmae_plugin.picks.placing import place
from cryoemmae_plugin.picks.reading import READERS, read_all
from cryoemmae_plugin.picks.relion import LIST_TABLE, X
from cryoemmae_plugin.picks.table import PickTable
from cryoemmae_plugin.picks.transform import AS_IT_IS, Transform
from cryoemmae_plugin.star import read_star
from cryoemmae_plugin.types import Micrograph


@dataclass(frozen=True)
class Places:
    """The micrographs that picks belong to.

    Attributes
    ----------
    micrographs : sequence of Micrograph
        None: picks go by their own names.
    uids : sequence of int
        CryoSPARC's numbers of them.
    pixel_size_A, picks_pixel_size_A : float or None
        Å per pixel of the micrographs and of the coordinates, where they are not as the files say.
    """

    micrographs: Sequence[Micrograph] = ()
    uids: Sequence[int] = ()
    pixel_size_A: float | None = None
    picks_pixel_size_A: float | None = None


NOWHERE = Places()


@dataclass
class Batch:
    """Picks of many micrographs, and what a user should know of them."""

    tables: list[PickTable]
    notes: list[str] = field(default_factory=list)

    @property
    def picks(self) -> int:
        """How many there are."""
        return sum(map(len, self.tables))

    def account(self) -> str:
        """Say how many picks of how many micrographs there are."""
        return f"{self.picks} picks of {len(self.tables)} micrographs"


def load(paths: Sequence[Path], places: Places = NOWHERE, transform: Transform = AS_IT_IS) -> Batch:
    """Read picks, in pixels of the stored micrographs.

    Raises
    ------
    InputError
        When a file cannot be read, or no picks are of the micrographs.
    """
    placed = place(
        read_all(paths),
        places.micrographs,
        transform,
        uids=places.uids,
        pixel_size_A=places.pixel_size_A,
        coordinates_pixel_size_A=places.picks_pixel_size_A,
    )
    batch = Batch(placed.tables, placed.notes)
    if placed.strangers:
        batch.notes.append(
            f"{len(placed.strangers)} micrographs with picks, such as {placed.strangers[0]}, are not among those given "
            "and left out"
        )
    if not batch.picks:
        batch.notes.append(f"{', '.join(map(str, paths))}: no picks in it")
    return batch


def within(batch: Batch, diameter_A: float | None, min_score: float | None = None) -> Batch:
    """Set the diameter, and leave out picks with a lower score.

    Raises
    ------
    InputError
        When a score is asked for that the picks do not have.
    """
    tables = batch.tables
    if diameter_A is not None:
        tables = [
            replace(table, diameter_px=diameter_A / table.pixel_size_A) if table.pixel_size_A else table
            for table in tables
        ]
    if min_score is not None:
        if batch.picks and all(np.isnan(table.score).all() for table in tables):
            raise InputError("the picks have no scores", remedy="leave $min_score out")
        tables = [table.rows(table.score >= min_score) for table in tables]
    return Batch(tables, batch.notes)


def reach_of(distance: str) -> Distance:
    """Read a distance: a number of diameters, or Å with an A behind it.

    Raises
    ------
    SettingsError
        When it is neither.
    """
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+) ?(A|Å)?", distance.strip())
    if found is None:
        raise SettingsError(setting="distance", value=distance, remedy="give 0.5 for half a diameter, or 60A for 60 Å")
    number = float(found[1])

    def reach(table: PickTable) -> float:
        if found[2] and table.pixel_size_A is None:
            raise InputError(f"{table.micrograph}: the pixel size is not known", remedy="give $pixel_size_A")
        if not found[2] and table.diameter_px is None:
            raise InputError(
                f"{table.micrograph}: the particle's diameter in pixels is not known",
                remedy="give $diameter_A, and $pixel_size_A where it is not known",
            )
        return number / (table.pixel_size_A or 1.0) if found[2] else number * (table.diameter_px or 0.0)

    return reach


def compare_tables(tables: Sequence[PickTable], other: Sequence[PickTable]) -> Finding | None:
    """Say whether picks are in the frame of others; None where too few are of the same micrographs."""
    keys = keys_of(table.micrograph for table in other)
    matched = match_names([table.micrograph for table in tables], keys)
    by_key = {keys[table.micrograph]: table for table in other}
    pairs = []
    for table in tables:
        if table.micrograph in matched:
            partner = by_key[matched[table.micrograph]]
            shape = partner.shape or table.shape
            pairs.append(Pair(_best_first(table), _best_first(partner), None if shape is None else shape[0]))
    return compare(pairs)


def _best_first(table: PickTable) -> np.ndarray:
    return table.xy[np.argsort(-table.quality, kind="stable")]


def centres_of(micrographs: Sequence[Micrograph], diameter_A: float | None, *, bright: bool = False) -> list[PickTable]:
    """Where micrographs have something of a particle's size, to compare picks with."""
    from cryoemmae_plugin.picks.image_centres import centres_in_image  # the only step that needs PyTorch

    if diameter_A is None:
        raise SettingsError(
            "$diameter_A is missing", setting="diameter_A", remedy="give it to compare with micrographs"
        )
    found = []
    for micrograph in micrographs[:MOST_MICROGRAPHS]:
        image = read_image(micrograph.path)
        size_A = pixel_size_of(micrograph.path, read_header(micrograph.path), micrograph.pixel_size_A)
        xy = centres_in_image(image, diameter_A / size_A, bright=bright)
        found.append(PickTable(str(micrograph.path), xy, np.full(len(xy), np.nan), shape=(len(image), len(image[0]))))
    return found


def is_picks(path: Path) -> bool:
    """Whether a path leads to picks; else it leads to micrographs."""
    if path.is_dir():
        return not any(file.name.lower().endswith(READABLE_SUFFIXES) for file in path.iterdir())
    if path.suffix.lower() == ".star":
        return any(X in table or table.name == LIST_TABLE for table in read_star(path))
    if path.suffix.lower() == ".cs":
        return "location/center_x_frac" in (read_dataset(path).dtype.names or ())
    return path.suffix.lower() in READERS
