"""Where a micrograph has something of a particle's size, for a check of picks without a second table."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cryoemmae_plugin.core.default import GRID_DIAMETER_PX
from cryoemmae_plugin.core.flattening import flatten_background
from cryoemmae_plugin.core.matched_filter import find_peaks, match_templates

LEAST, MOST_COVERED = 20, 0.15
"""How many maxima are returned: at least so many, at most as many as cover this part of the micrograph."""


def centres_in_image(image: NDArray[np.float32], diameter_px: float, *, bright: bool = False) -> NDArray[np.float64]:
    """Where an image has something of a particle's size, for a check without a second table; (N, 2), best first.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        Pixels as stored.
    diameter_px : float
        Particle diameter in pixels.
    bright : bool
        Particles are brighter than the ice.
    """
    pixels = torch.from_numpy(-image if bright else image)
    with torch.inference_mode():
        flat = flatten_background(pixels, diameter_px, GRID_DIAMETER_PX)
        sigmas = match_templates(flat.pixels, flat.valid, flat.diameter_px).sigmas
        xy, _ = find_peaks(sigmas, flat.diameter_px, 0.0)
    area = np.prod(image.shape) / (np.pi * diameter_px**2 / 4)
    return np.asarray(flat.frame.to_micrograph(xy[: max(LEAST, int(MOST_COVERED * area))]))
