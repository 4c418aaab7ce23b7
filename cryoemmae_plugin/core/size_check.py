"""Check diameter and contrast: compare the middle of micrographs at other diameters, inverted, and by averages.

The head knows particles at the right diameter, give or take a third. At half the diameter, and with the contrast
inverted, it is far less confident. At twice the diameter it is less confident of most particles, but not of all. So
averages of the picks are measured as well, where there are many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.core.class_averages import average_classes, longest_extent, soft_mask
from cryoemmae_plugin.core.crop_detection import detect_on_crop, is_detectable, with_dark_particles
from cryoemmae_plugin.core.head import Head, log_odds_of_picks

FINE = (0.71, 0.84, 1.19, 1.41)
"""Diameters that are tried where another one fits better, relative to that one."""
LEAST_PARTICLES, LEAST_CONFIDENCE = 12, 1.2
"""Smallest number of particles for a comparison, and their least mean squared log-odds: grains of ice have less."""
FEW_PARTICLES, FEW_CONFIDENCE, FEW_BETTER = 4, 4.0, 10.0
"""So few are enough where they are so clear, and where the given settings show next to nothing."""
WORTH_A_WARNING = 1.5
"""A diameter that is off by a smaller factor is a choice, not a mistake."""
LEAST_AVERAGED, MOST_AVERAGED = 40, 400
"""Smallest number of picks whose averages are measured, and the largest number that is used."""
AVERAGE_RADIUS = 0.8
"""Radius of the averages, in diameters."""
MUCH_SMALLER = 0.7
"""Averages shorter than this, in diameters, are of smaller particles."""


@dataclass(frozen=True)
class BetterFit:
    """A diameter or a contrast that fits micrographs much better than the given one.

    Attributes
    ----------
    factor : float
        The diameter that fits, over the given one.
    inverted : bool
        Whether the particles have the other contrast.
    """

    factor: float
    inverted: bool


AS_ASKED, INVERTED = BetterFit(1.0, inverted=False), BetterFit(1.0, inverted=True)
HALF, TWICE = BetterFit(0.5, inverted=False), BetterFit(2.0, inverted=False)
CLEARLY_BETTER = {HALF: 1.5, TWICE: 5.0, INVERTED: 2.5}
"""How many times more confident the head must be to call another setting better. With the right ones, it has been at
most 0.2 times as confident at half the diameter, 3.4 times at twice, and 1.7 times with the contrast inverted."""


@dataclass
class Look:
    """What some micrographs show with one setting.

    Attributes
    ----------
    particles : int
        Candidates that are likely.
    confidence : float
        Sum of their squared log-odds.
    area : float
        That was examined, in squares of the given diameter.
    patches : list of ndarray, shape (N, side, side)
        The likely candidates.
    """

    particles: int = 0
    confidence: float = 0.0
    area: float = 0.0
    patches: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def density(self) -> float:
        """Confidence per area."""
        return self.confidence / self.area if self.area else 0.0

    @property
    def mean(self) -> float:
        """Confidence per particle."""
        return self.confidence / self.particles if self.particles else 0.0

    def is_better_than(self, asked: Look, times: float) -> bool:
        """Whether it shows particles, so many times more confidently than the settings that were asked for."""
        ratio = self.density / max(asked.density, 1e-9)
        many = self.particles >= LEAST_PARTICLES and self.mean >= LEAST_CONFIDENCE
        few = self.particles >= FEW_PARTICLES and self.mean >= FEW_CONFIDENCE
        return (many and ratio > times) or (few and ratio > max(times, FEW_BETTER))


Sample = Callable[[], Iterable[tuple[NDArray[np.float32], float]]]
"""Gives each image (ny, nx) and the diameter that was asked for in its pixels; called again for a second look."""


def find_better_fit(sample: Sample, head: Head, *, bright: bool = False) -> BetterFit | None:
    """Compare the middle of micrographs at other diameters, and with the other contrast.

    Parameters
    ----------
    sample : callable
        Gives the micrographs; what they show is added up.
    head : Head
        On the CPU.
    bright : bool
        Whether particles are set to be lighter than the ice.

    Returns
    -------
    BetterFit or None
        None where the given diameter and contrast fit, or nothing does.
    """
    looks = _look(sample, (AS_ASKED, *CLEARLY_BETTER), head, bright)
    asked = looks.pop(AS_ASKED)
    better = [fit for fit, times in CLEARLY_BETTER.items() if looks[fit].is_better_than(asked, times)]
    if not better:
        return _smaller_by_averages(asked)
    best = max(better, key=lambda fit: looks[fit].density)
    if best.inverted:
        return best
    looks = {best: looks[best]}
    looks |= _look(sample, [BetterFit(best.factor * step, inverted=False) for step in FINE], head, bright)
    best = max(looks, key=lambda fit: looks[fit].density)
    return None if 1 / WORTH_A_WARNING < best.factor < WORTH_A_WARNING else best


def _look(sample: Sample, settings: Iterable[BetterFit], head: Head, bright: bool) -> dict[BetterFit, Look]:
    """Look at all micrographs with each of some settings."""
    looks = {setting: Look() for setting in settings}
    for image, diameter_px in sample():
        for setting, look in looks.items():
            tried_px = setting.factor * diameter_px
            if not is_detectable(tried_px, image.shape):
                continue
            seen = detect_on_crop(with_dark_particles(image, bright != setting.inverted), tried_px, head)
            log_odds = log_odds_of_picks(seen.chance)
            look.particles += len(log_odds)
            look.confidence += float((log_odds**2).sum())
            look.area += seen.area * setting.factor**2
            if setting == AS_ASKED:
                look.patches.append(seen.patches())
    return looks


def _smaller_by_averages(asked: Look) -> BetterFit | None:
    """What would fit where averages of the picks show much smaller particles."""
    if asked.particles < LEAST_AVERAGED:
        return None
    rng = np.random.default_rng(0)
    patches = rng.permutation(np.concatenate(asked.patches))[:MOST_AVERAGED]
    extent = longest_extent(*average_classes(patches, soft_mask(AVERAGE_RADIUS), rng))
    return BetterFit(extent, inverted=False) if extent < MUCH_SMALLER else None
