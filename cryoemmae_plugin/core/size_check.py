"""Check diameter and contrast: compare the middle of a micrograph at a few other diameters, and inverted.

The head knows particles at the right diameter, give or take a third. At half or twice the diameter, and with the
contrast inverted, it is far less confident.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cryoemmae_plugin.core.crop_detection import central_crop, is_detectable, with_dark_particles
from cryoemmae_plugin.core.diameter import LEAST_CONFIDENCE, score_without_embedding
from cryoemmae_plugin.core.head import Head

FIELD_DIAMETERS = 12
"""Side of the square that is examined, in the diameter that is tried."""
COARSE, FINE = (0.5, 2.0), (0.71, 0.84, 1.19, 1.41)
"""Diameters that are tried, relative to the given one; then, where one of them fits better, relative to that one."""
LEAST_PARTICLES = 12
"""Smallest number of particles for a comparison."""
CLEARLY_BETTER = 2.5
"""How many times more confident the head must be to call another diameter or contrast better."""
WORTH_A_WARNING = 1.5
"""A diameter that is off by a smaller factor is a choice, not a mistake."""


@dataclass(frozen=True)
class BetterFit:
    """A diameter or a contrast that fits a micrograph much better than the given one.

    Attributes
    ----------
    factor : float
        The diameter that fits, over the given one.
    inverted : bool
        Whether the particles have the other contrast.
    """

    factor: float
    inverted: bool


def find_better_fit(
    image: NDArray[np.float32], diameter_px: float, head: Head, *, bright: bool = False
) -> BetterFit | None:
    """Compare the middle of a micrograph at other diameters, and with the other contrast.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
        Stored pixels.
    diameter_px : float
        The diameter that was asked for, in pixels.
    head : Head
        On the CPU.
    bright : bool
        Whether particles are set to be lighter than the ice.

    Returns
    -------
    BetterFit or None
        None where the given diameter and contrast fit, or nothing does.
    """
    asked, other = with_dark_particles(image, bright), with_dark_particles(image, not bright)
    least = CLEARLY_BETTER * _confidence(asked, diameter_px, head, least_particles=1)
    looks = {BetterFit(1.0, inverted=True): _confidence(other, diameter_px, head)}
    for factor in COARSE:
        looks[BetterFit(factor, inverted=False)] = _confidence(asked, factor * diameter_px, head)
    best = max(looks, key=lambda look: looks[look])
    if looks[best] <= least or not looks[best]:
        return None
    if best.inverted:
        return best
    for step in FINE:
        look = BetterFit(best.factor * step, inverted=False)
        looks[look] = _confidence(asked, look.factor * diameter_px, head)
    best = max(looks, key=lambda look: looks[look])
    return None if 1 / WORTH_A_WARNING < best.factor < WORTH_A_WARNING else best


def _confidence(pixels: Tensor, diameter_px: float, head: Head, least_particles: int = LEAST_PARTICLES) -> float:
    """Sum of the squared log-odds of the likely particles per pixel; 0 where they are few or may be noise."""
    if not is_detectable(diameter_px, pixels.shape):
        return 0.0
    piece = central_crop(pixels, round(FIELD_DIAMETERS * diameter_px))
    log_odds = score_without_embedding(piece, diameter_px, head)
    total = float((log_odds**2).sum())
    if len(log_odds) < least_particles or (least_particles > 1 and total < LEAST_CONFIDENCE * len(log_odds)):
        return 0.0
    return total / piece.numel()
