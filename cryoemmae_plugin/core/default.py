"""The default mode: scale by the diameter, flatten, matched filter, features of the embedding, score by the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree
from torch import Tensor

from cryoemmae_plugin.core.embedding_features import embed_any_size, particle_cluster_map, sample_map
from cryoemmae_plugin.core.flattening import FlattenedMicrograph, flatten_background
from cryoemmae_plugin.core.head import (
    CELL_PX,
    Head,
    calibrate_micrograph,
    find_centres,
    head_inputs,
    reject_empty,
    score_cells,
    whole_cells,
)
from cryoemmae_plugin.core.matched_filter import correlate, disc_weights, find_peaks, match_templates
from cryoemmae_plugin.core.model import PickingModel
from cryoemmae_plugin.core.suppression import non_maximum_suppression
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.types import Picks

if TYPE_CHECKING:
    from cryoemmae_plugin.core.groups import Groups

GRID_DIAMETER_PX = 24.0
"""Particle diameter on the model's grid."""
LEAST_SCORE = 0.02
"""Figure of merit from which a candidate is stored."""
LEAST_DISTANCE = 0.5
"""Of two candidates closer than this, in diameters, the one with the lower score is dropped."""
CENTRE_DISTANCE, CENTRE_SHARE = 0.2, 0.35
"""A maximum of the template's response within this distance, in diameters, draws a centre to it by this share..."""
CENTRE_SCATTER = (0.04, 0.06)
"""...where head and template differ by no more than the first on average, along an axis, in diameters; from the second
on they do not at all: the template is no likeness of such particles."""
SMEAR_DISTANCE = 0.5
"""Least distance of a centre from smeared or padded borders, in diameters: half of such a particle is not image."""


@dataclass(frozen=True)
class Features:
    """A flattened micrograph as the head sees it.

    Attributes
    ----------
    pixels, cells : Tensor
        The head's input, see :func:`cryoemmae_plugin.core.head.head_inputs`.
    inside : Tensor, shape (rows, columns), bool
        Grid pixels that may be a particle's centre.
    sigmas : Tensor, shape (rows, columns)
        The matched filter's response, in deviations; the head's input has it within limits.
    others : Tensor, shape (rows, columns), bool, optional
        Grid pixels of particles of another kind. They may be centres, but are not part of the head's context.
    """

    pixels: Tensor
    cells: Tensor
    inside: Tensor
    sigmas: Tensor
    others: Tensor | None = None

    @property
    def inside_cells(self) -> Tensor:
        """Cells of the head that are its context of the whole micrograph, bool: all of their pixels are inside."""
        rows, columns = (n // CELL_PX for n in self.pixels.shape[-2:])
        return whole_cells(self.inside if self.others is None else self.inside & ~self.others, rows, columns)


def view_at(
    diameter_px: float, image: Tensor, model: PickingModel, timer: StepTimer
) -> tuple[FlattenedMicrograph, Features]:
    """Flatten stored pixels (ny, nx) for particles of a diameter, and compute what the head reads."""
    with timer.step("preprocess"):
        flattened = flatten_background(image, diameter_px, GRID_DIAMETER_PX)
    return flattened, extract_features(flattened, model, timer)


def pick_default(
    image: Tensor,
    model: PickingModel,
    head: Head,
    diameter_px: float,
    timer: StepTimer | None = None,
    groups: Groups | None = None,
) -> Picks:
    """Pick one micrograph.

    Parameters
    ----------
    image : Tensor, shape (ny, nx), float32
        Stored pixels, particles dark; on the device to compute on.
    head : Head
        On the same device.
    diameter_px : float
        Particle diameter in micrograph pixels.
    groups : Groups, optional
        What the picks of the data set look like: each candidate is put into one of them.

    Returns
    -------
    Picks
        All candidates, best first.
    """
    timer = timer or StepTimer()
    flattened, features = view_at(diameter_px, image, model, timer)
    with timer.step("locate"):
        return score_candidates(features, flattened, head, groups=groups)


def score_candidates(
    features: Features,
    flattened: FlattenedMicrograph,
    head: Head,
    *,
    calibrated: bool = True,
    groups: Groups | None = None,
) -> Picks:
    """Score candidates with the head; all candidates, best first, in micrograph pixels."""
    xy, score = find_candidates(features, flattened, head)
    xy = refine_centres(xy, score, features.sigmas, flattened.diameter_px)
    if score.sum() < head.least_density * flattened.area:
        score = reject_empty(score, head.least_log_odds)
    if calibrated:
        score = calibrate_micrograph(score)
    power = darkness(flattened, xy)
    ny, nx = flattened.frame.shape
    at = np.clip(flattened.frame.to_micrograph(xy), 0, (nx - 1, ny - 1))  # a centre may be seen just outside
    group = None if groups is None else groups.assign(flattened.pixels, xy)
    return Picks(at, score, power, flattened.frame.shape, group)


def find_candidates(
    features: Features, flattened: FlattenedMicrograph, head: Head
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Centres (N, 2) in grid pixels, as the head alone sees them, and their figures of merit (N,), best first."""
    log_odds, offset = score_cells(head, features.pixels, features.cells, features.inside_cells)
    xy, score = find_centres(head.score(log_odds), offset, LEAST_SCORE)
    inside = sample_map(features.inside.float(), xy, 1) > 0.5
    xy, score = xy[inside], score[inside]
    keep = non_maximum_suppression(xy, score, LEAST_DISTANCE * flattened.diameter_px)
    return xy[keep], score[keep]


def refine_centres(
    xy: NDArray[np.float64], chance: NDArray[np.float32], sigmas: Tensor, diameter_px: float
) -> NDArray[np.float64]:
    """Move centres towards nearby maxima of the response: the mean of two estimates with different errors.

    Parameters
    ----------
    xy : ndarray, shape (N, 2)
        Centres as the head sees them, in grid pixels.
    chance : ndarray, shape (N,)
        Chance of each to be a particle: its weight in the comparison of head and template.
    sigmas : Tensor, shape (rows, columns)
        The matched filter's response.
    diameter_px : float
        In grid pixels.
    """
    maxima, _ = find_peaks(sigmas, diameter_px * LEAST_DISTANCE, 0.0)
    if not len(xy) or not len(maxima):
        return xy
    distance, nearest = cKDTree(maxima).query(xy)
    distance = distance / diameter_px
    beside = distance < CENTRE_DISTANCE
    if not beside.any():
        return xy
    scatter = np.average(distance[beside] ** 2, weights=chance[beside]) / 2
    agreed, strange = np.square(CENTRE_SCATTER)
    share = CENTRE_SHARE * float(np.clip((strange - scatter) / (strange - agreed), 0, 1))
    shares = np.where(beside, share, 0.0)[:, None]
    drawn: NDArray[np.float64] = (1 - shares) * xy + shares * maxima[nearest]
    return drawn


def extract_features(flattened: FlattenedMicrograph, model: PickingModel, timer: StepTimer) -> Features:
    """Gather what the head reads: everything before the score."""
    pixels, valid, diameter_px = flattened.pixels, flattened.valid, flattened.diameter_px
    with timer.step("locate"):
        sigmas = match_templates(pixels, valid, diameter_px).sigmas
    with timer.step("encode"):
        patch_px = model.encoder.config.patch_px
        tokens = embed_any_size(pixels, model.encoder, model.mean, model.std)
    with timer.step("cluster"):
        cluster = particle_cluster_map(tokens, valid, model.centroids, model.particle_cluster, patch_px)
    layers = head_inputs(pixels, sigmas, tokens, cluster, patch_px)
    return Features(*layers, away_from_smear(valid, SMEAR_DISTANCE * diameter_px), sigmas)


def extract_features_without_embedding(flattened: FlattenedMicrograph, head: Head) -> Features:
    """Gather what the head reads, without tokens and clusters: this takes a fifth of the time."""
    pixels, valid, diameter_px = flattened.pixels, flattened.valid, flattened.diameter_px
    rows, columns = (-(-n // CELL_PX) for n in pixels.shape)
    tokens, cluster = pixels.new_zeros(rows, columns, head.embed_dim), pixels.new_full((rows, columns), 0.5)
    sigmas = match_templates(pixels, valid, diameter_px).sigmas
    layers = head_inputs(pixels, sigmas, tokens, cluster)
    return Features(*layers, away_from_smear(valid, SMEAR_DISTANCE * diameter_px), sigmas)


def away_from_smear(valid: Tensor, distance_px: float) -> Tensor:
    """Tell grid pixels at least so far from where there is no image; bool, shape of `valid`."""
    if bool(valid.all()):
        return valid
    return torch.from_numpy(distance_transform_edt(valid.cpu().numpy()) >= distance_px).to(valid.device)


def darkness(flattened: FlattenedMicrograph, xy: NDArray[np.float64]) -> NDArray[np.float32]:
    """Mean darkness of the discs at grid positions (N, 2), in deviations of the background; shape (N,)."""
    (disc,) = correlate(flattened.pixels, [disc_weights(flattened.diameter_px)])
    return sample_map(disc, xy, 1).astype(np.float32)
