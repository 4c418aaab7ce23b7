"""Particles of several sizes in one micrograph: one pass for each size, and a rule for what several passes claim.

Each pass is sure of particles of its own size, and half sure of others: parts of a larger particle, or a particle a
third smaller. What belongs together goes to the pass for which three things together speak most: how sure the pass is,
how well a disc of its size answers beside discs of the other sizes, and a little its size, since parts of a particle
look like smaller particles and nothing looks like a larger one.

The head judges a particle by the whole micrograph: where large particles are many, faint small ones look like nothing.
So the passes are judged again without the particles of other sizes in that context, until the numbers of picks settle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from cryoemmae_plugin.core.default import Features, score_candidates, view_at
from cryoemmae_plugin.core.embedding_features import sample_map
from cryoemmae_plugin.core.flattening import FlattenedMicrograph, flatten_background
from cryoemmae_plugin.core.geometry import MicrographFrame
from cryoemmae_plugin.core.head import Head
from cryoemmae_plugin.core.matched_filter import RoundTemplate, correlate
from cryoemmae_plugin.core.model import PickingModel
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.types import Picks

TEMPLATE = RoundTemplate(0.8, sharpness=4.0)
"""A soft disc: of all sizes of it, the one of the particle's own diameter answers most."""
GRID_PX = 16.0
"""The smallest diameter on the grid where the discs are tried."""
RESPONSE_WEIGHT, SIZE_WEIGHT = 4.0, 1.0
"""Weight of the logarithm of the disc's response over the best one's, and of the diameter over the smallest one,
beside the log-odds of the figure of merit."""
APART = 0.35
"""Two claims exclude each other when they are closer than this share of the sum of their diameters."""
SAME = 0.25
"""Two claims are one particle when they are closer than this share of the diameter of the better one."""
SURE = 0.5
"""Figure of merit from which a particle of another size is left out of the context."""
MOST_LOOKS = 3
"""At most so often all passes are judged again."""
LEAST_RESPONSE = 0.05
LEAST_ODDS = 1e-3


def pick_sizes(
    image: Tensor,
    model: PickingModel,
    head: Head,
    diameters_px: Sequence[float],
    sizes_A: Sequence[float],
    timer: StepTimer,
) -> Picks:
    """Pick particles of several sizes.

    Parameters
    ----------
    image : Tensor, shape (ny, nx), float32
        Stored pixels, particles dark; on the device to compute on.
    head : Head
        On the same device.
    diameters_px, sizes_A : sequence of float
        The diameters in micrograph pixels and in Å.

    Returns
    -------
    Picks
        All candidates with their diameters, best first.
    """
    views = [view_at(diameter_px, image, model, timer) for diameter_px in diameters_px]
    with timer.step("locate"):
        discs = DiscResponses.of(image, diameters_px)
        passes = [score_candidates(features, flattened, head) for flattened, features in views]
        picks = merge_sizes(discs, passes, diameters_px, sizes_A)
        for _ in range(MOST_LOOKS):
            sure = picks.above(SURE)
            passes = [
                score_candidates(_without_others(features, flattened, sure, size_A), flattened, head)
                for (flattened, features), size_A in zip(views, sizes_A, strict=True)
            ]
            picks = merge_sizes(discs, passes, diameters_px, sizes_A)
            if _count(picks.above(SURE), sizes_A) == _count(sure, sizes_A):
                break
        return picks


def _count(picks: Picks, sizes_A: Sequence[float]) -> list[int]:
    """Number of picks of each size."""
    return [int(np.count_nonzero(picks.diameter_A == size_A)) for size_A in sizes_A]


def _without_others(features: Features, flattened: FlattenedMicrograph, picks: Picks, size_A: float) -> Features:
    """What the head reads for one size, without the particles of other sizes in its context."""
    others = picks.only(np.flatnonzero(picks.diameter_A != size_A))
    return replace(features, others=_discs_of(others, flattened, size_A))


def _discs_of(picks: Picks, flattened: FlattenedMicrograph, size_A: float) -> Tensor:
    """Grid pixels within half a diameter of picks; bool, shape of the grid, which was made for `size_A`."""
    assert picks.diameter_A is not None
    mask = np.zeros(tuple(flattened.pixels.shape), bool)
    radii = picks.diameter_A / size_A * flattened.diameter_px / 2
    for (x, y), radius in zip(flattened.frame.to_grid(picks.xy), radii, strict=True):
        top, left = (max(0, int(at - radius)) for at in (y, x))
        part = mask[top : int(y + radius) + 2, left : int(x + radius) + 2]
        rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
        part |= (columns + left - x) ** 2 + (rows + top - y) ** 2 <= radius**2
    return torch.from_numpy(mask).to(flattened.pixels.device)


def merge_sizes(
    discs: DiscResponses, passes: Sequence[Picks], diameters_px: Sequence[float], sizes_A: Sequence[float]
) -> Picks:
    """Settle what passes for several diameters claim.

    Parameters
    ----------
    discs : DiscResponses
        How well discs of these diameters answer.
    passes : sequence of Picks
        Candidates of each diameter.
    diameters_px, sizes_A : sequence of float
        The diameters in pixels and in Å.

    Returns
    -------
    Picks
        With their diameters, best first. The figure of merit is the highest that any pass gives to the particle.
    """
    xy, score, power = (np.concatenate([getattr(one, name) for one in passes]) for name in ("xy", "score", "power"))
    which = np.repeat(np.arange(len(passes)), [len(one) for one in passes])
    diameter = np.asarray(diameters_px)[which]
    evidence = _log_odds(score) + SIZE_WEIGHT * np.log(diameter / min(diameters_px))
    if len(xy):
        response = np.maximum(discs.at(xy), LEAST_RESPONSE)
        own = response[np.arange(len(xy)), which]
        evidence += RESPONSE_WEIGHT * np.log(own / response.max(axis=1))
    kept, merit = settle(xy, score, diameter, evidence)
    order = kept[np.argsort(-merit[kept], kind="stable")]
    sizes = np.asarray(sizes_A, np.float64)[which]
    return Picks(xy[order], merit[order], power[order], passes[0].shape, diameter_A=sizes[order])


def settle(
    xy: NDArray[np.float64],
    score: NDArray[np.float32],
    diameter: NDArray[np.float64],
    evidence: NDArray[np.float64],
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Keep, of claims that exclude each other, those with the most evidence.

    Parameters
    ----------
    xy : ndarray, shape (N, 2)
        Centres in pixels.
    score, diameter, evidence : ndarray, shape (N,)
        Figure of merit; diameter in pixels; what decides.

    Returns
    -------
    kept : ndarray of int
        Claims that are kept.
    merit : ndarray, shape (N,)
        Figures of merit; of a kept claim, the highest of all claims on the same particle.
    """
    merit = score.copy()
    if not len(xy):
        return np.zeros(0, np.intp), merit
    near = cKDTree(xy).query_ball_point(xy, APART * (diameter + diameter.max()))
    free, kept = np.ones(len(xy), bool), []
    for i in np.argsort(-evidence, kind="stable").tolist():
        if not free[i]:
            continue
        kept.append(i)
        others = np.array(near[i])
        distance = np.hypot(*(xy[others] - xy[i]).T)
        same = free[others] & (distance < SAME * diameter[i])
        merit[i] = score[others[same]].max(initial=score[i])
        free[others[distance < APART * (diameter[others] + diameter[i])]] = False
    return np.array(kept, np.intp), merit


@dataclass(frozen=True)
class DiscResponses:
    """Responses of discs of several diameters, everywhere.

    All are taken on one grid of unit noise, flattened for the largest, and their templates have one norm: so they
    compare.

    Attributes
    ----------
    frame : MicrographFrame
        Map between micrograph pixels and those of the grid.
    maps : tuple of Tensor, shape (rows, columns)
        One for each diameter.
    """

    frame: MicrographFrame
    maps: tuple[Tensor, ...]

    @classmethod
    def of(cls, image: Tensor, diameters_px: Sequence[float]) -> DiscResponses:
        """Try discs of these diameters on a micrograph (ny, nx), particles dark."""
        smallest, largest = min(diameters_px), max(diameters_px)
        flat = flatten_background(image, largest, GRID_PX * largest / smallest)
        kernels = (TEMPLATE.kernel(GRID_PX * one / smallest) for one in diameters_px)
        return cls(flat.frame, tuple(next(correlate(flat.pixels, [kernel])) for kernel in kernels))

    def at(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sample the responses at micrograph positions (N, 2); shape (N, diameters)."""
        on_grid = self.frame.to_grid(xy)
        return np.stack([sample_map(one, on_grid, 1) for one in self.maps], axis=1)


def _log_odds(score: NDArray[np.float32]) -> NDArray[np.float64]:
    chance = torch.from_numpy(score.astype(np.float64)).clamp(LEAST_ODDS, 1 - LEAST_ODDS)
    return np.asarray(torch.logit(chance))
