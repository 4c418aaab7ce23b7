"""Estimate the particle diameter from the micrographs alone.

The default mode scales every micrograph by the diameter that it is given. Its head recognises particles at the right
diameter, within a tenth. At a much smaller or larger diameter it finds no particles. So several diameters are tried,
and the confidence of the head over the diameter is a curve with a peak. The peak is at the diameter of a compact
particle. It is too small for a long particle. So the picks at the peak are averaged, and the averages are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from cryoemmae_plugin.core.class_averages import REACH, average_classes, longest_extent, soft_mask
from cryoemmae_plugin.core.crop_detection import central_crop, detect_on_crop, is_detectable, with_dark_particles
from cryoemmae_plugin.core.default import GRID_DIAMETER_PX, extract_features_without_embedding, find_candidates
from cryoemmae_plugin.core.flattening import flatten_background
from cryoemmae_plugin.core.head import Head, log_odds_of_picks
from cryoemmae_plugin.errors import CannotTellError

SMALLEST_A, LARGEST_A, STEP = 50.0, 800.0, 1.18
SIZES_A = SMALLEST_A * STEP ** np.arange(int(np.log(LARGEST_A / SMALLEST_A) / np.log(STEP)) + 1)
"""Diameters that are tried; values in between are interpolated."""
FIELD_DIAMETERS = 32
"""Side of the square in the middle of the frame that is examined, in particle diameters."""
RIVAL_SHARE = 0.9
"""Peaks at least so high beside the highest are rivals, and the largest diameter among them is the particle's: parts of
a particle look like smaller particles, and nothing looks like a larger one."""
SEEN_TOO_LARGE = 1.07
"""Diameter of the peak over the true diameter: the head was trained with diameters that are rounded up."""
LIKELY_ERROR = 0.1
"""Relative error that four in five estimates on simulated data sets stay below."""
LEAST_PARTICLES = 30
"""Fewer particles than this, in all micrographs together, are more likely contamination."""
LEAST_CONFIDENCE = 2.0
"""Mean squared log-odds of the particles below which they may be noise, or grains of ice."""
LEAST_AVERAGED, MOST_AVERAGED = 40, 1200
"""Smallest number of picks for averages, and the largest number that is used."""
AVERAGED_TIMES = 4
"""Number of random restarts of the class averages."""
MASK_RADIUS = 0.8
"""Radius of the averages, in diameters: the particle may be longer than it seems."""
REFINEMENTS = 3
"""Times that the extent is measured, each on patches that were cut for the one before..."""
LEAST_KEPT = 0.8
"""...unless a measured diameter loses more than the rest of the likely particles: then the one before it stays. Sparse
irregular particles and empty shells drift so."""
REMEDY = "measure a few particles and give their longest extent, in Å, with $diameter_A"


@dataclass(frozen=True)
class SizeScan:
    """What one micrograph shows at each diameter of `SIZES_A`.

    Attributes
    ----------
    sureness : ndarray, shape (sizes,)
        Sum of the squared log-odds of all picks, in the area examined; NaN for diameters that cannot be
        examined.
    particles : ndarray, shape (sizes,)
        Picks, better than even, in that area.
    area : ndarray, shape (sizes,)
        Area of the micrograph that was examined, in Å².
    """

    confidence: NDArray[np.float64]
    particles: NDArray[np.int64]
    area: NDArray[np.float64]


@dataclass(frozen=True)
class DiameterEstimate:
    """An estimated particle diameter, and the evidence for it.

    Attributes
    ----------
    diameter_A : float
        The longest extent of the particle, in Å.
    error : float
        Likely relative error.
    particles : int
        Particles that were seen at it.
    curve : tuple of (float, float)
        Diameter in Å, and how sure the head is at it, 1 at most.
    extent_A : float, optional
        How long the particle is in averages of picks; None where there are too few.
    """

    diameter_A: float
    error: float
    particles: int
    curve: tuple[tuple[float, float], ...]
    extent_A: float | None = None


@dataclass(frozen=True)
class LikelyParticles:
    """The likely particles in one micrograph's middle, seen at a diameter.

    Attributes
    ----------
    patches : ndarray, shape (N, 2 REACH + 1, 2 REACH + 1)
        Cut out, particles dark, on the head's grid.
    area : float
        Of what was examined, in Å².
    """

    patches: NDArray[np.float32]
    area: float


def scan_sizes(image: NDArray[np.float32], pixel_size_A: float, head: Head, *, bright: bool = False) -> SizeScan:
    """Try every diameter on a micrograph; a second or less for each, on a CPU.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), float32
        Stored pixels.
    head : Head
        On the CPU.
    bright : bool
        Whether particles are lighter than the ice.
    """
    pixels = with_dark_particles(image, bright)
    confidence, area = np.full(len(SIZES_A), np.nan), np.full(len(SIZES_A), np.nan)
    particles = np.zeros(len(SIZES_A), np.int64)
    for at, diameter_px in enumerate(SIZES_A / pixel_size_A):
        if is_detectable(diameter_px, image.shape):
            piece = central_crop(pixels, round(FIELD_DIAMETERS * diameter_px))
            log_odds = score_without_embedding(piece, float(diameter_px), head)
            confidence[at], particles[at], area[at] = (
                (log_odds**2).sum(),
                len(log_odds),
                piece.numel() * pixel_size_A**2,
            )
    return SizeScan(confidence, particles, area)


def score_without_embedding(pixels: torch.Tensor, diameter_px: float, head: Head) -> NDArray[np.float64]:
    """Log-odds of the picks better than even, without the embedding, which takes most of the time."""
    with torch.inference_mode():
        seen = flatten_background(pixels, diameter_px, GRID_DIAMETER_PX)
        _, score = find_candidates(extract_features_without_embedding(seen, head), seen, head)
    return log_odds_of_picks(score)


def estimate_diameter(scans: Sequence[SizeScan]) -> DiameterEstimate:
    """Estimate the diameter of the particles in some micrographs of one data set.

    Parameters
    ----------
    scans : sequence of SizeScan
        One a micrograph.

    Raises
    ------
    CannotTellError
        When no particles are found, or no diameter is better than its neighbours on both sides.
    """
    total, particles, area = (
        np.nansum([getattr(scan, name) for scan in scans], axis=0) for name in ("confidence", "particles", "area")
    )
    confidence = np.divide(total, area, out=np.full(len(SIZES_A), np.nan), where=area > 0)
    peak = _find_peak(confidence)
    if peak is None or particles[peak] < LEAST_PARTICLES or total[peak] < LEAST_CONFIDENCE * particles[peak]:
        raise CannotTellError(
            f"no particles stand out in {_count(scans)}, at any size from {SIZES_A[0]:.0f} to {SIZES_A[-1]:.0f} Å",
            setting="diameter_A",
            value="auto",
            remedy=(REMEDY, "give $contrast=bright where particles are lighter than the ice"),
        )
    looked = np.flatnonzero(np.isfinite(confidence))
    if peak in (looked[0], looked[-1]):
        raise CannotTellError(
            f"the particles seem to be {'smaller' if peak == looked[0] else 'larger'} than {SIZES_A[peak]:.0f} Å, "
            "beyond what can be seen in these micrographs",
            setting="diameter_A",
            value="auto",
            remedy=REMEDY,
        )
    return DiameterEstimate(
        diameter_A=float(SIZES_A[peak] * STEP ** _vertex(confidence[peak - 1 : peak + 2]) / SEEN_TOO_LARGE),
        error=LIKELY_ERROR,
        particles=int(particles[peak]),
        curve=tuple((float(SIZES_A[at]), float(confidence[at] / np.nanmax(confidence))) for at in looked),
    )


def likely_particles(
    image: NDArray[np.float32], pixel_size_A: float, diameter_A: float, head: Head, *, bright: bool = False
) -> LikelyParticles:
    """See a micrograph at a diameter; arguments as of :func:`scan_sizes`.

    There are none where a particle is too small or too large for the micrograph.
    """
    diameter_px = diameter_A / pixel_size_A
    if not is_detectable(diameter_px, image.shape):
        return LikelyParticles(np.zeros((0, 2 * REACH + 1, 2 * REACH + 1), np.float32), 0.0)
    seen = detect_on_crop(with_dark_particles(image, bright), diameter_px, head)
    return LikelyParticles(seen.patches(), seen.area * diameter_A**2)


def measure_extent(estimate: DiameterEstimate, look: Callable[[float], Sequence[LikelyParticles]]) -> DiameterEstimate:
    """Measure how long the particles are, several times, as long as they stay in sight.

    Parameters
    ----------
    look : callable
        Gives the likely particles of each micrograph, seen at a diameter in Å.
    """
    before, density_before = estimate, 0.0
    for _ in range(REFINEMENTS):
        likely = look(estimate.diameter_A)
        density = _density_of(likely)
        if density < LEAST_KEPT * density_before:
            return before
        before, density_before = estimate, density
        estimate = refine_diameter(estimate, [one.patches for one in likely])
    return estimate


def _density_of(seen: Sequence[LikelyParticles]) -> float:
    """Likely particles per Å² in several micrographs; 0 where nothing was examined."""
    return sum(len(one.patches) for one in seen) / max(sum(one.area for one in seen), 1.0)


def refine_diameter(estimate: DiameterEstimate, patches: Sequence[NDArray[np.float32]]) -> DiameterEstimate:
    """Put the extent of averaged picks in an estimate's place; with few picks, the estimate stays as it is.

    Parameters
    ----------
    patches : sequence of ndarray
        Of likely particles at the estimated diameter, one array a micrograph.
    """
    if sum(map(len, patches)) < LEAST_AVERAGED:
        return estimate
    together = np.concatenate(patches)
    rng = np.random.default_rng(0)
    mask = soft_mask(MASK_RADIUS)
    views = [
        average_classes(together[rng.permutation(len(together))[:MOST_AVERAGED]], mask, rng)
        for _ in range(AVERAGED_TIMES)
    ]
    averages, shares = (np.concatenate(parts) for parts in zip(*views, strict=True))
    extent = longest_extent(averages, shares / AVERAGED_TIMES)
    return replace(estimate, diameter_A=estimate.diameter_A * extent, extent_A=estimate.diameter_A * extent)


def _count(scans: Sequence[SizeScan]) -> str:
    return f"{len(scans)} micrograph" + ("s" if len(scans) > 1 else "")


def _find_peak(confidence: NDArray[np.float64]) -> int | None:
    """The largest size at which the curve has a peak that rivals the highest one; None without a peak."""
    highest = np.nanmax(confidence, initial=0.0)
    if not highest > 0:
        return None
    padded = np.concatenate([[-np.inf], np.nan_to_num(confidence, nan=-np.inf), [-np.inf]])
    peaks = (padded[1:-1] > padded[:-2]) & (padded[1:-1] >= padded[2:]) & (padded[1:-1] >= RIVAL_SHARE * highest)
    return int(np.flatnonzero(peaks)[-1])


def _vertex(three: NDArray[np.float64]) -> float:
    """Where the parabola through three heights, the middle one highest, has its vertex; -0.5 to 0.5."""
    before, at, after = three
    curvature = before - 2 * at + after
    return float(0.5 * (before - after) / curvature) if curvature < 0 else 0.0
