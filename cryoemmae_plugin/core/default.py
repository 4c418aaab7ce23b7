"""The default mode: the particle's scale, templates that the data choose, evidence from the embedding, one score."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from cryoemmae_plugin.core.condition import Conditioned, condition
from cryoemmae_plugin.core.evidence import embed_any_size, sample, weigh_evidence
from cryoemmae_plugin.core.features import Candidates, darkness, measure
from cryoemmae_plugin.core.model import PickingModel
from cryoemmae_plugin.core.scorer import Scorer
from cryoemmae_plugin.core.template import find_peaks, match_templates
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.types import Picks

GRID_DIAMETER_PX = 24.0
"""Particle diameter on the model's grid."""
CANDIDATE_SIGMAS = 2.0
"""Least response of a candidate."""
SEED_SIGMAS = 3.5
"""Least response of a seed, from whose cells the embedding learns what a particle is."""
LEAST_DISTANCE = 0.55
"""Of two candidates closer than this, in diameters, the one with the lower score is dropped."""


def pick_default(image: Tensor, model: PickingModel, diameter_px: float, timer: StepTimer | None = None) -> Picks:
    """Pick one micrograph.

    Parameters
    ----------
    image : Tensor, shape (ny, nx), float32
        Stored pixels, particles dark; on the device that shall do the work.
    model : PickingModel
    diameter_px : float
        Particle diameter in micrograph pixels.
    timer : StepTimer, optional
        Receives the seconds of each step.

    Returns
    -------
    Picks
        All candidates, best first.
    """
    timer = timer or StepTimer()
    with timer.step("preprocess"):
        conditioned = condition(image, diameter_px, GRID_DIAMETER_PX)
    candidates, measured = examine(conditioned, model, timer)
    with timer.step("locate"):
        score = Scorer.from_arrays(model.arrays).score(measured)
        keep = drop_close(candidates.xy, score, LEAST_DISTANCE * conditioned.diameter_px)
        xy = conditioned.frame.to_micrograph(candidates.xy[keep])
        power = darkness(candidates, conditioned)[keep]
    return Picks(xy, score[keep], power, conditioned.frame.shape)


def examine(conditioned: Conditioned, model: PickingModel, timer: StepTimer) -> tuple[Candidates, NDArray[np.float32]]:
    """Find candidates and measure them: everything before the score."""
    pixels, diameter_px = conditioned.pixels, conditioned.diameter_px
    with timer.step("locate"):
        response = match_templates(pixels, conditioned.valid, diameter_px)
        xy, height = find_peaks(response.detection, diameter_px, CANDIDATE_SIGMAS)
        _, decoys = find_peaks(-response.sigmas, diameter_px, CANDIDATE_SIGMAS)
        candidates = Candidates(xy, height, sample(response.sigmas, xy, 1), decoys)
    with timer.step("encode"):
        tokens = embed_any_size(pixels, model.encoder, model.mean, model.std)
    with timer.step("cluster"):
        evidence = weigh_evidence(
            tokens,
            conditioned.valid,
            model.centroids,
            model.particle_cluster,
            candidates.xy,
            candidates.xy[candidates.matched >= SEED_SIGMAS],
            diameter_px,
            model.encoder.config.patch_px,
        )
    with timer.step("locate"):
        measured = measure(candidates, conditioned, response, evidence)
    return candidates, measured


def drop_close(xy: NDArray[np.float64], score: NDArray[np.float32], distance: float) -> NDArray[np.intp]:
    """Keep the better of any two closer than `distance`; indices of the kept ones, best first, the first of equals."""
    order = np.argsort(-score, kind="stable")
    if not len(xy):
        return order
    tree = cKDTree(xy)
    dropped = np.zeros(len(xy), bool)
    for at in order:
        if not dropped[at]:
            near = np.asarray(tree.query_ball_point(xy[at], distance))
            dropped[near[near != at]] = True
    return order[~dropped[order]]


def as_dark(image: NDArray[np.float32], bright: bool, device: torch.device) -> Tensor:
    """Move an image to a device, inverted where particles are lighter than the ice."""
    pixels = torch.from_numpy(np.ascontiguousarray(image, np.float32)).to(device)
    return -pixels if bright else pixels
