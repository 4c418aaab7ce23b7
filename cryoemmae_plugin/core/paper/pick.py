"""The published method, step by step: Zamanos et al., Cell Reports Methods 2025."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cryoemmae_plugin.core.embed import embed_image
from cryoemmae_plugin.core.geometry import MicrographFrame
from cryoemmae_plugin.core.model import PickingModel
from cryoemmae_plugin.core.paper.clusters import (
    HIERARCHY,
    SMOOTHING_SHIFT_CELLS,
    follow_best_overlap,
    follow_cluster,
    hierarchical_mask,
    smooth_embedding,
    smoothing_window,
)
from cryoemmae_plugin.core.paper.components import FINE_PER_CELL, disc_contrast, find_particles, size_score
from cryoemmae_plugin.core.paper.preprocess import preprocess_paper
from cryoemmae_plugin.core.paper.separate import separate_particles
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.settings import PUBLISHED_FRACTION, Auto
from cryoemmae_plugin.types import Picks


@dataclass(frozen=True)
class Embedded:
    """A micrograph as the published method sees it.

    Attributes
    ----------
    grid : Tensor, shape (rows, columns)
        Preprocessed pixels.
    frame : MicrographFrame
        Where these lie on the micrograph.
    embedding : Tensor, shape (rows / n, columns / n, dim)
        One vector a patch of n x n pixels.
    """

    grid: Tensor
    frame: MicrographFrame
    embedding: Tensor


def pick_paper(
    image: Tensor,
    model: PickingModel,
    diameter_px: float,
    timer: StepTimer | None = None,
    *,
    particle_fraction: float | Auto = PUBLISHED_FRACTION,
    max_radius_ratio: float | None = None,
) -> Picks:
    """Pick one micrograph as published.

    Parameters
    ----------
    image : Tensor, shape (ny, nx)
        Micrograph, particles dark.
    model : PickingModel
        Its encoder's device is where the embedding is made and clustered; the image is preprocessed where it lies.
    diameter_px : float
        Particle diameter in micrograph pixels.
    timer : StepTimer or None
        Takes the seconds of "preprocess", "encode", "cluster" and "locate".
    particle_fraction, max_radius_ratio
        See :func:`pick_embedded`.

    Returns
    -------
    Picks
        See :func:`pick_embedded`.

    Raises
    ------
    ImageError
        If the image is not 2-D, is tiny or constant, or has values that are not finite.
    SettingsError
        If the diameter does not fit the image.
    """
    timer = timer or StepTimer()
    embedded = embed_paper(image, model, diameter_px, timer)
    return pick_embedded(
        embedded, model, diameter_px, timer, particle_fraction=particle_fraction, max_radius_ratio=max_radius_ratio
    )


def embed_paper(image: Tensor, model: PickingModel, diameter_px: float, timer: StepTimer | None = None) -> Embedded:
    """Preprocess and embed a micrograph; arguments and errors as of :func:`pick_paper`."""
    timer = timer or StepTimer()
    with timer.step("preprocess"):
        grid, frame = preprocess_paper(image, diameter_px)
    with timer.step("encode"):
        return Embedded(grid, frame, embed_image(grid, model.encoder, model.mean, model.std))


def pick_embedded(
    embedded: Embedded,
    model: PickingModel,
    diameter_px: float,
    timer: StepTimer | None = None,
    *,
    particle_fraction: float | Auto = PUBLISHED_FRACTION,
    max_radius_ratio: float | None = None,
    hierarchy: Sequence[int] = HIERARCHY,
) -> Picks:
    """Cluster an embedding, and find the particles in their cluster.

    Parameters
    ----------
    model : PickingModel
        Its train-set clusters begin the hierarchy.
    diameter_px : float
        Particle diameter in micrograph pixels.
    particle_fraction : float or "auto"
        Share of the area that particles cover, 4 % as published; "auto" finds a threshold for each particle, see
        :mod:`cryoemmae_plugin.core.paper.separate`.
    max_radius_ratio : float or None
        Components with a larger radius, in particle radii, are dropped; None keeps all, as released.
    hierarchy : sequence of int
        Numbers of clusters that the micrograph is split into, one after the other.

    Returns
    -------
    Picks
        In pixels of the micrograph, best first. The score is a / (1 + a), a being the area of a component in areas of
        the particle's disc: the published method has no other. With "auto" it is the share of the disc that lies in
        the particles' cluster.
    """
    timer = timer or StepTimer()
    embedding, frame = embedded.embedding, embedded.frame
    fine_frame = _frame_of_fine_grid(frame, embedding)
    fine_diameter_px = diameter_px / min(fine_frame.scale)  # the axes are stretched apart: the longer one, as released
    with timer.step("cluster"):
        smooth = smooth_embedding(embedding, smoothing_window(fine_diameter_px / FINE_PER_CELL))
        follow = follow_best_overlap if particle_fraction == "auto" else follow_cluster
        mask = hierarchical_mask(smooth, model.centroids, model.particle_cluster, follow=follow, hierarchy=hierarchy)
    with timer.step("locate"):
        if particle_fraction == "auto":
            fine_xy, score = separate_particles(mask, fine_diameter_px, max_radius_ratio)
        else:
            found = find_particles(mask, fine_diameter_px, particle_fraction, max_radius_ratio)
            fine_xy, score = found.xy, size_score(found.area, fine_diameter_px)
        xy = fine_frame.to_micrograph(fine_xy)
        diameters = (diameter_px / frame.scale[0], diameter_px / frame.scale[1])
        power = disc_contrast(embedded.grid, frame.to_grid(xy), diameters)
        best_first = np.argsort(-score, kind="stable")
    return Picks(xy[best_first], score[best_first], power[best_first], frame.shape)


def _frame_of_fine_grid(frame: MicrographFrame, embedding: Tensor) -> MicrographFrame:
    """Return where the pixels lie on which centres are found, the smoothing's shift included."""
    rows, columns = embedding.shape[0] * FINE_PER_CELL, embedding.shape[1] * FINE_PER_CELL
    shift = SMOOTHING_SHIFT_CELLS * FINE_PER_CELL
    offset_x = frame.offset[0] * columns / frame.grid_shape[1] + shift
    offset_y = frame.offset[1] * rows / frame.grid_shape[0] + shift
    return MicrographFrame(frame.shape, (rows, columns), (offset_x, offset_y))
