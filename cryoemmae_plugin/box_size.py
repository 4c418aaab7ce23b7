"""The box size to extract particles with: one rule for RELION, CryoSPARC and the report."""

from __future__ import annotations

import math

BOX_DIAMETERS = 1.5
"""Side of the box in particle diameters: the particle, and a quarter of a diameter of solvent on each side."""
_SMALL_FACTORS = (2, 3, 5, 7)


def suggest_box_px(diameter_A: float, pixel_size_A: float) -> int:
    """Suggest a box: at least 1.5 diameters, even, and without a prime factor above 7, for fast Fourier transforms.

    Examples
    --------
    >>> suggest_box_px(160, 1.0)
    240
    >>> suggest_box_px(160, 1.06)
    240
    """
    least = BOX_DIAMETERS * diameter_A / pixel_size_A
    side = 2 * max(1, math.ceil(least / 2 - 1e-6))
    while not _has_small_factors(side):
        side += 2
    return side


def _has_small_factors(number: int) -> bool:
    for factor in _SMALL_FACTORS:
        while number % factor == 0:
            number //= factor
    return number == 1
