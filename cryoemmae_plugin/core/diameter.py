"""The particle's diameter, told from the micrographs alone.

Dark blobs are looked for at every size. At each size they are averaged, and a small network says from the average how
much larger or smaller than this size the particle is: the longest extent, which a blob detector does not see. Each size
votes for a diameter, by how strongly the micrographs respond to it; where most votes meet is the estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.core.blobs import average_blobs, pool
from cryoemmae_plugin.core.extent import ExtentNetwork, measure_profile
from cryoemmae_plugin.core.sizes import SIZES_A, SizeScan
from cryoemmae_plugin.errors import CannotTellError

LEAST_SURPLUS = 3.0
"""More dark blobs than bright ones by fewer than so many deviations are chance."""
FEW_BLOBS = 10
"""A size with fewer blobs beyond chance than this, in all micrographs together, counts for less than half."""
VOTING_STRENGTH = 0.3
"""Sizes vote whose strength is at least this share of the strongest one's."""
FARTHEST_VOTE = 0.5
"""A size votes for diameters that differ from it by about so much (logarithm)."""
VOTE_WIDTH = 0.08
"""How exact a vote is (logarithm)."""
SAME_DIAMETER = 0.2
"""Votes within this distance (logarithm) of the best mean the same diameter."""
LEAST_AGREEMENT = 0.4
"""Share of the response that must come with votes for the same diameter, near enough to the size that votes."""
LEAST_PARTICLES = 30
"""Fewer blobs, in all micrographs together, are more likely contamination than particles."""
LEAST_ERROR = 0.08
"""Error that is named when all votes agree (relative). Not calibrated: answers that were far off named it too."""
WAY_OUT = "measure a few particles and give their longest extent, in Å, with --diameter"


@dataclass(frozen=True)
class DiameterEstimate:
    """A particle diameter, and what speaks for it.

    Attributes
    ----------
    diameter_A : float
        The longest extent of the particle, in Å.
    error : float
        Likely relative error.
    agreement : float
        Share of the votes that mean this diameter.
    strongest_A : float
        Size of the blobs that the micrographs respond to most, in Å.
    particles : int
        Likely particles that were averaged at the size nearest to the diameter.
    curve : tuple of (float, float)
        Size in Å, and strength of the response to it.
    """

    diameter_A: float
    error: float
    agreement: float
    strongest_A: float
    particles: int
    curve: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Votes:
    """What each size says: the logarithm of a diameter in Å, with how much weight, from so many blobs.

    `response` is the sizes' share of the strongest response; a vote has less weight the farther it is from its size.
    """

    log_A: NDArray[np.float64]
    weight: NDArray[np.float64]
    response: float
    blobs: NDArray[np.int64]


def estimate_diameter(scans: Sequence[SizeScan], network: ExtentNetwork | None = None) -> DiameterEstimate:
    """Estimate the diameter of the particles in some micrographs of one data set.

    Parameters
    ----------
    scans : sequence of SizeScan
        One a micrograph.
    network : ExtentNetwork, optional
        The shipped one by default.

    Raises
    ------
    CannotTellError
        When there are no particles to be seen, or what is seen contradicts itself.
    """
    strength = pooled_strength(scans)
    if not np.nanmax(strength, initial=0.0) > 0:
        raise CannotTellError(
            f"--diameter auto: no particles stand out in {len(scans)} micrographs, at any size from {SIZES_A[0]:.0f} "
            f"to {SIZES_A[-1]:.0f} Å; {WAY_OUT}. For particles lighter than the ice, --contrast bright"
        )
    votes = cast_votes(scans, strength, network or ExtentNetwork.shipped())
    return _count(votes, strength)


def pooled_strength(scans: Sequence[SizeScan]) -> NDArray[np.float64]:
    """Mean strength by size: 0 where blobs may be chance, less where they are few; NaN where nothing was looked at."""
    strength = np.array([scan.strength for scan in scans])
    looked = np.isfinite(strength)
    mean = np.where(looked, strength, 0).sum(axis=0) / np.maximum(looked.sum(axis=0), 1)
    dark, bright = (np.sum([getattr(scan, name) for scan in scans], axis=0) for name in ("dark", "bright"))
    surplus = (dark - bright).clip(min=0)
    sure = surplus > LEAST_SURPLUS * np.sqrt(dark + bright)
    return np.where(looked.any(axis=0), mean.clip(min=0) * sure * surplus / (surplus + FEW_BLOBS), np.nan)


def cast_votes(scans: Sequence[SizeScan], strength: NDArray[np.float64], network: ExtentNetwork) -> Votes:
    """Let every size at which the micrographs respond say how large the particle is."""
    log_A, weight, blobs = [], [], []
    response, best = 0.0, np.nanmax(strength)
    for size_A, value in zip(SIZES_A, strength, strict=True):
        if not value >= VOTING_STRENGTH * best:
            continue
        response += value / best
        profile = pool([average_blobs(scan.levels, float(size_A)) for scan in scans])
        measured = None if profile is None else measure_profile(profile)
        if profile is None or measured is None:
            continue
        larger = network.log_ratio(measured)
        log_A.append(np.log(size_A) + larger)
        weight.append(value / best * np.exp(-0.5 * (larger / FARTHEST_VOTE) ** 2))
        blobs.append(profile.blobs)
    return Votes(np.array(log_A), np.array(weight), response, np.array(blobs, np.int64))


def _count(votes: Votes, strength: NDArray[np.float64]) -> DiameterEstimate:
    """Find where most votes meet, and how many do."""
    strongest_A = float(SIZES_A[np.nanargmax(strength)])
    if not len(votes.weight):
        raise CannotTellError(
            f"--diameter auto: what stands out, at {strongest_A:.0f} Å, does not look like particles; {WAY_OUT}"
        )
    distance = votes.log_A[:, None] - votes.log_A
    support = (np.exp(-0.5 * (distance / VOTE_WIDTH) ** 2) * votes.weight).sum(axis=1)
    same = np.abs(distance[np.argmax(support)]) <= SAME_DIAMETER
    agreement = float(votes.weight[same].sum()) / votes.response
    log_A = float(np.average(votes.log_A[same], weights=votes.weight[same]))
    spread = float(np.sqrt(np.average((votes.log_A[same] - log_A) ** 2, weights=votes.weight[same])))
    if agreement < LEAST_AGREEMENT:
        low, high = np.exp(votes.log_A.min()), np.exp(votes.log_A.max())
        raise CannotTellError(
            f"--diameter auto: the micrographs contradict themselves, anything from {low:.0f} to {high:.0f} Å may be "
            f"right; {WAY_OUT}"
        )
    curve = tuple((float(a), float(b)) for a, b in zip(SIZES_A, strength, strict=True) if np.isfinite(b))
    nearest = int(np.argmin(np.abs(votes.log_A - log_A)))
    if votes.blobs[nearest] < LEAST_PARTICLES:
        raise CannotTellError(
            f"--diameter auto: only {votes.blobs[nearest]} blobs of about {np.exp(log_A):.0f} Å stand out in all "
            f"micrographs together, too few to measure; {WAY_OUT}"
        )
    return DiameterEstimate(
        diameter_A=float(np.exp(log_A)),
        error=float(np.hypot(LEAST_ERROR, spread)),
        agreement=agreement,
        strongest_A=strongest_A,
        particles=int(votes.blobs[nearest]),
        curve=curve,
    )
