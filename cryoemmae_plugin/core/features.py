"""What is measured at every candidate of the default mode, before a score is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.core.condition import Conditioned, gaussian_blur
from cryoemmae_plugin.core.evidence import Evidence, sample
from cryoemmae_plugin.core.template import Response, correlate, disc_weights

FEATURES = (
    "response",  # matched filter, in the micrograph's own deviations
    "relative_response",  # the same against the micrograph's strong candidates
    "decoys",  # logarithm of how many bright spots there are for each dark one of at least this response
    "extreme",  # share of the disc that is darker than any protein
    "wide_darkness",  # darkness at twice the particle's scale
    "discriminant",  # log-odds from the embedding
    "cluster",  # share of particle-cluster cells
    "separation",  # how far the embedding tells particles from ice in this micrograph
)
EXTREME = -4.0
"""Conditioned pixels below this are contamination or carbon rather than protein."""
STRONG_SHARE = 0.9
"""Quantile of the candidates' responses that stands for a strong one."""


@dataclass(frozen=True)
class Candidates:
    """Places that might be particles.

    Attributes
    ----------
    xy : ndarray, shape (N, 2)
        Grid positions (column, row).
    response : ndarray, shape (N,)
        Detection there: matched filter and energy, in deviations.
    matched : ndarray, shape (N,)
        Matched filter alone, in deviations.
    decoys : ndarray, shape (M,)
        Heights of the maxima of the inverted response. Ice has as many bright spots as dark ones, so they tell how many
        of the candidates are chance: the target-decoy argument of proteomics.
    """

    xy: NDArray[np.float64]
    response: NDArray[np.float32]
    matched: NDArray[np.float64]
    decoys: NDArray[np.float32]


def measure(
    candidates: Candidates, conditioned: Conditioned, response: Response, evidence: Evidence
) -> NDArray[np.float32]:
    """Measure every candidate; shape (N, len(FEATURES))."""
    pixels, diameter_px = conditioned.pixels, conditioned.diameter_px
    extreme = -correlate((pixels < EXTREME).float(), [disc_weights(diameter_px)])[0]
    wide = -gaussian_blur(pixels, diameter_px)
    strong = float(np.quantile(candidates.response, STRONG_SHARE)) if len(candidates.xy) else 1.0
    cells = [
        sample(gaussian_blur(layer, diameter_px / 6 / evidence.patch_px), candidates.xy, evidence.patch_px)
        for layer in (evidence.discriminant, evidence.cluster)
    ]
    columns = [
        candidates.response,
        candidates.response / max(strong, 1e-6),
        log_decoy_share(candidates),
        sample(extreme, candidates.xy, 1),
        sample(wide, candidates.xy, 1),
        *cells,
        np.full(len(candidates.xy), float(evidence.discriminant.std())),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def darkness(candidates: Candidates, conditioned: Conditioned) -> NDArray[np.float32]:
    """Mean darkness of each candidate's disc, in deviations of the background; shape (N,)."""
    disc = correlate(conditioned.pixels, [disc_weights(conditioned.diameter_px)])[0]
    return sample(disc, candidates.xy, 1).astype(np.float32)


def log_decoy_share(candidates: Candidates) -> NDArray[np.float64]:
    """Logarithm of (decoys + 1) / (candidates + 1) at and above each candidate's matched filter; never falling with it.

    Shape (N,). About 0 where a candidate is chance, -3 where one in twenty is.
    """
    at, decoys = np.sort(candidates.matched), np.sort(candidates.decoys)
    above = len(at) - np.searchsorted(at, at, side="left")
    chance = len(decoys) - np.searchsorted(decoys, at, side="left")
    share = np.minimum.accumulate(np.log((chance + 1) / (above + 1)))
    return share[np.searchsorted(at, candidates.matched, side="left")]
