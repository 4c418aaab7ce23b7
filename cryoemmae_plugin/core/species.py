"""Particles of several sizes in one micrograph: one pass for each size, and a rule for what several passes claim.

Each pass is sure of particles of its own size, and half sure of others: parts of a larger particle, or a particle a
third smaller. What belongs together goes to the pass for which three things together speak most: how sure the pass is,
how well a disc of its size answers beside discs of the other sizes, and a little its size, since parts of a particle
look like smaller particles and nothing looks like a larger one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from cryoemmae_plugin.core.embedding_features import sample_map
from cryoemmae_plugin.core.flattening import flatten_background
from cryoemmae_plugin.core.matched_filter import RoundTemplate, correlate
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
LEAST_RESPONSE = 0.05
LEAST_ODDS = 1e-3


def merge_sizes(
    image: Tensor, passes: Sequence[Picks], diameters_px: Sequence[float], sizes_A: Sequence[float]
) -> Picks:
    """Settle what passes for several diameters claim.

    Parameters
    ----------
    image : Tensor, shape (ny, nx), float32
        Stored pixels, particles dark.
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
        response = np.maximum(disc_responses(image, xy, diameters_px), LEAST_RESPONSE)
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


def disc_responses(image: Tensor, xy: NDArray[np.float64], diameters_px: Sequence[float]) -> NDArray[np.float64]:
    """Responses of discs of several diameters at micrograph positions (N, 2); shape (N, sizes).

    All are taken on one grid of unit noise, flattened for the largest, and their templates have one norm: so they
    compare.
    """
    smallest, largest = min(diameters_px), max(diameters_px)
    flat = flatten_background(image, largest, GRID_PX * largest / smallest)
    at = flat.frame.to_grid(xy)
    kernels = [TEMPLATE.kernel(GRID_PX * one / smallest) for one in diameters_px]
    return np.stack([sample_map(next(iter(correlate(flat.pixels, [one]))), at, 1) for one in kernels], axis=1)


def _log_odds(score: NDArray[np.float32]) -> NDArray[np.float64]:
    chance = torch.from_numpy(score.astype(np.float64)).clamp(LEAST_ODDS, 1 - LEAST_ODDS)
    return np.asarray(torch.logit(chance))
