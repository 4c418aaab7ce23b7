"""Which picks 2D classification has kept and which it has dropped, by micrograph."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from cryoemmae_plugin.errors import InputError

Centres = NDArray[np.float64]
"""Positions, shape (N, 2), in pixels of the stored micrograph."""

SAME_DISTANCE = 0.5
"""A selected particle and a pick closer than this, in diameters, are the same."""
LEAST_SAME = 1 / 3
"""Where fewer of the selected particles lie on a pick, their coordinates are in another frame."""
LEAST_KEPT = 20
"""Fewer kept particles teach nothing."""
FEW_KEPT = 200
"""Fewer kept particles teach little."""


@dataclass(frozen=True)
class ClassSelection:
    """Picks that were judged by 2D classification.

    Attributes
    ----------
    kept, dropped : mapping of str to ndarray, shape (N, 2)
        Centres by the uid of the micrograph, in pixels of the stored micrograph.
    notes : tuple of str
        What the user should know about it.
    """

    kept: Mapping[str, Centres]
    dropped: Mapping[str, Centres]
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def uids(self) -> list[str]:
        """The micrographs that have judged picks, in order."""
        return sorted(
            uid for uid in {**self.kept, **self.dropped} if len(self.kept_in(uid)) + len(self.dropped_in(uid))
        )

    def kept_in(self, uid: str) -> Centres:
        """Kept picks (N, 2) of a micrograph."""
        return self.kept.get(uid, np.zeros((0, 2)))

    def dropped_in(self, uid: str) -> Centres:
        """Dropped picks (N, 2) of a micrograph."""
        return self.dropped.get(uid, np.zeros((0, 2)))

    @property
    def count(self) -> tuple[int, int]:
        """Number of kept and of dropped picks."""
        return sum(map(len, self.kept.values())), sum(map(len, self.dropped.values()))

    def describe(self) -> str:
        """Say how much there is."""
        kept, dropped = self.count
        return f"{kept} kept and {dropped} dropped picks in {len(self.uids)} micrographs"

    @property
    def digest(self) -> str:
        """Identify the selection."""
        sha = hashlib.sha256()
        for name, picks in (("kept", self.kept), ("dropped", self.dropped)):
            for uid in sorted(picks):
                sha.update(f"{name} {uid} {np.round(picks[uid], 2).tolist()}\n".encode())
        return sha.hexdigest()


def judge_picks(
    selected: Mapping[str, Centres],
    rejected: Mapping[str, Centres] | None,
    picks: Mapping[str, Centres],
    diameters_px: Mapping[str, float],
    classes: int | None = None,
) -> ClassSelection:
    """Tell which picks of a run were kept and which were dropped.

    Parameters
    ----------
    selected : mapping of str to ndarray, shape (N, 2)
        Particles that were kept, by the uid of the micrograph.
    rejected : mapping or None
        Particles that were dropped. None where they are not known: then every pick that was not kept counts as dropped,
        on micrographs with a kept one.
    picks : mapping
        Picks of the run, which say best where a particle lies.
    diameters_px : mapping of str to float
        Particle diameter in pixels of each micrograph.
    classes : int, optional
        Number of classes that were kept, where it is known.

    Raises
    ------
    InputError
        When too few particles are kept, or when they do not lie where the run's picks do.
    """
    kept: dict[str, Centres] = {}
    dropped: dict[str, Centres] = {}
    same = total = 0
    for uid in sorted({**selected, **(rejected or {})}):
        found, distance = picks.get(uid, np.zeros((0, 2))), SAME_DISTANCE * diameters_px[uid]
        here = selected.get(uid, np.zeros((0, 2)))
        at, on_pick = _onto(here, found, distance)
        same, total = same + len(on_pick), total + len(here) * bool(len(found))
        kept[uid] = at
        if rejected is None:
            dropped[uid] = np.delete(found, on_pick, axis=0) if len(here) else np.zeros((0, 2))
        else:
            dropped[uid] = _onto(_far_from(rejected.get(uid, np.zeros((0, 2))), at, distance), found, distance)[0]
    selection = ClassSelection(kept, dropped)
    _check(selection.count[0], same, total)
    return ClassSelection(kept, dropped, tuple(_notes(*selection.count, classes)))


def _onto(xy: Centres, picks: Centres, distance_px: float) -> tuple[Centres, NDArray[np.intp]]:
    """Move positions (N, 2) onto the picks that they are, one to one; also which picks these are."""
    at = np.array(xy, np.float64).reshape(-1, 2)
    if not len(at) or not len(picks):
        return at, np.zeros(0, np.intp)
    distance = np.minimum(cdist(at, picks), distance_px)
    rows, columns = linear_sum_assignment(distance)
    close = distance[rows, columns] < distance_px
    at[rows[close]] = picks[columns[close]]
    return at, columns[close]


def _far_from(xy: Centres, others: Centres, distance_px: float) -> Centres:
    if not len(xy) or not len(others):
        return xy
    return np.asarray(xy[cKDTree(others).query(xy)[0] >= distance_px])


def _check(kept: int, same: int, total: int) -> None:
    if kept < LEAST_KEPT:
        raise InputError(
            f"{kept} particles were kept on these micrographs: too few to learn from, at least {LEAST_KEPT} are needed",
            remedy="select more classes, or classify more particles",
        )
    if same < LEAST_SAME * total:
        raise InputError(
            f"only {same} of {total} selected particles lie on a pick of this run: their coordinates may be flipped, "
            "shifted, or those of binned micrographs",
            remedy="give particles that were extracted from the picks of this run",
        )


def _notes(kept: int, dropped: int, classes: int | None) -> Iterator[str]:
    if kept < FEW_KEPT:
        yield (
            f"{kept} kept particles are few. Refining can drop what looks like the dropped picks and place centres "
            f"better; it cannot learn views that are not among them. With {FEW_KEPT} or more it learns all of this"
        )
    if classes == 1:
        yield (
            "All kept particles are of one class. Other views of the particle may be picked less; select every class "
            "that shows the particle"
        )
    if not dropped:
        yield "No pick was dropped: refining learns what the particle looks like, and nothing about junk"
