"""Several tables of picks become one: union, intersection, or what several sources agree on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from cryoemmae_plugin.core.suppression import non_maximum_suppression
from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.picks.identity import keys_of, match_names
from cryoemmae_plugin.picks.matching import group
from cryoemmae_plugin.picks.relion import SOURCE_SCORE
from cryoemmae_plugin.picks.table import PickTable

T = TypeVar("T")

How = Literal["union", "intersection", "consensus"]
Distance = Callable[[PickTable], float]
"""Distance in pixels within which two picks of a micrograph are one."""


@dataclass(frozen=True)
class Source:
    """Picks of one program: its name, and a table for each micrograph."""

    name: str
    tables: Sequence[PickTable]

    def __len__(self) -> int:
        return sum(len(table) for table in self.tables)


def votes_of(how: How, sources: int) -> int:
    """How many sources must have a pick: one, all, or more than half of them."""
    return {"union": 1, "intersection": sources, "consensus": sources // 2 + 1}[how]


def remove_duplicates(table: PickTable, distance_px: float) -> PickTable:
    """Of any two picks closer than `distance_px`, keep the better one; the first where there are no scores."""
    return table.rows(non_maximum_suppression(table.xy, table.quality.astype(np.float32), distance_px * (1 - 1e-6)))


def align_names(sources: Sequence[Source]) -> list[Source]:
    """Give the micrographs of all sources the names that the first source has for them.

    Raises
    ------
    InputError
        When two sources with picks have no micrograph in common, or names cannot be told apart.
    """
    known: dict[str, str] = {}
    aligned = []
    for source in sources:
        names = [table.micrograph for table in source.tables]
        keys = keys_of(known)
        full = {key: name for name, key in keys.items()}
        matched = match_names(names, keys) if known else {}
        if known and names and not matched:
            raise InputError(
                f"{source.name} has no micrograph of {sources[0].name}: it has {names[0]!r}, the other "
                f"{next(iter(known))!r}",
                remedy="give picks of the same micrographs, with the same file names",
            )
        renamed = [
            replace(
                table, micrograph=full[matched[table.micrograph]] if table.micrograph in matched else table.micrograph
            )
            for table in source.tables
        ]
        known |= {table.micrograph: table.micrograph for table in renamed}
        aligned.append(Source(source.name, renamed))
    return aligned


def merge(sources: Sequence[Source], distance: Distance, votes: int) -> list[PickTable]:
    """Merge picks micrograph by micrograph, best first.

    A merged pick lies in the middle of those that it stands for. Its score is the mean of their ranks, 1 for the best
    pick of a source, 0 where a source has none. Scores of the sources are kept as further columns.

    Parameters
    ----------
    sources : sequence of Source
        With the same names of micrographs, see :func:`align_names`, and without duplicates.
    distance : callable
        Largest distance of picks that are one, in pixels.
    votes : int
        How many sources must have a pick.
    """
    ranks = [_ranks(source) for source in sources]
    by_name = [{table.micrograph: table for table in source.tables} for source in sources]
    names = list(dict.fromkeys(name for tables in by_name for name in tables))
    merged = []
    for name in names:
        there = [tables.get(name) for tables in by_name]
        merged.append(_merge_one(there, [source.name for source in sources], ranks, distance, votes))
    return merged


def _ranks(source: Source) -> Mapping[str, NDArray[np.float64]]:
    """Rank of each pick among all of its source, 1 for the best, by micrograph; 1 for all where there are no scores."""
    scores = np.concatenate([np.zeros(0), *(table.quality for table in source.tables)])
    ranks = rankdata(scores, method="max") / max(len(scores), 1)
    parts = np.split(ranks, np.cumsum([len(table) for table in source.tables])[:-1])
    return {table.micrograph: part for table, part in zip(source.tables, parts, strict=True)}


def _merge_one(
    tables: Sequence[PickTable | None],
    names: Sequence[str],
    ranks: Sequence[Mapping[str, NDArray[np.float64]]],
    distance: Distance,
    votes: int,
) -> PickTable:
    """Merge one micrograph."""
    model = _best_known([table for table in tables if table is not None])
    reach = distance(model)
    groups = group([np.zeros((0, 2)) if table is None else table.xy for table in tables], reach)
    groups = groups[(groups >= 0).sum(axis=1) >= votes]
    xy = np.full((len(groups), len(tables), 2), math.nan)
    score, rank = np.full((2, len(groups), len(tables)), math.nan)
    for column, table in enumerate(tables):
        has = groups[:, column] >= 0
        if table is not None and has.any():
            members = groups[has, column]
            xy[has, column], score[has, column] = table.xy[members], table.score[members]
            rank[has, column] = ranks[column][table.micrograph][members]
    middle = np.nanmean(xy, axis=1) if len(groups) else np.zeros((0, 2))
    extras = {f"{SOURCE_SCORE}{name}": score[:, column] for column, name in enumerate(names)}
    merged = replace(model, xy=middle, score=np.nan_to_num(rank).mean(axis=1), extras=extras, named_by_file=False)
    return remove_duplicates(merged, reach)


def _best_known(tables: Sequence[PickTable]) -> PickTable:
    """What the tables of a micrograph know of it together."""
    best = tables[0]
    for table in tables[1:]:
        best = replace(
            best,
            diameter_px=_first(best.diameter_px, table.diameter_px),
            pixel_size_A=_first(best.pixel_size_A, table.pixel_size_A),
            shape=_first(best.shape, table.shape),
            uid=_first(best.uid, table.uid),
        )
    return best


def _first(one: T | None, other: T | None) -> T | None:
    return other if one is None else one
