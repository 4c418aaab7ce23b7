"""Variants of the default mode for ablations: ``accuracy.py --ablate NAME`` runs one beside the others.

Each takes (image, model, diameter in pixels) and returns all candidates as :class:`cryoemmae_plugin.types.Picks`.
The head was trained to do without each kind of evidence, so that hiding one shows what it is worth.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pickers import Variant

from cryoemmae_plugin.core.default import (
    GRID_DIAMETER_PX,
    LEAST_DISTANCE,
    Features,
    extract_features,
    non_maximum_suppression,
    score_candidates,
)
from cryoemmae_plugin.core.flattening import FlattenedMicrograph, flatten_background
from cryoemmae_plugin.core.head import CLUSTER_LAYERS, Head
from cryoemmae_plugin.core.matched_filter import find_peaks
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.types import Picks
from cryoemmae_plugin.weights import Model

Hidden = Literal["nothing", "embedding", "clusters", "template", "smear"]

MATCHED_SIGMAS = 3.0
"""Response that the matched filter alone calls 0.5."""


class Looks:
    """What was seen of the last few micrographs: variants differ in what they make of it."""

    def __init__(self, most: int = 12) -> None:
        self._kept: OrderedDict[tuple[str, float, str], tuple[FlattenedMicrograph, Features]] = OrderedDict()
        self._most = most

    def at(self, image: NDArray[np.float32], model: Model, diameter_px: float) -> tuple[FlattenedMicrograph, Features]:
        """Condition, match and embed a micrograph, once."""
        key = (hashlib.sha256(image.tobytes()).hexdigest(), diameter_px, model.sha256)
        if key not in self._kept:
            with torch.inference_mode():
                flattened = flatten_background(torch.from_numpy(image), diameter_px, GRID_DIAMETER_PX)
                self._kept[key] = flattened, extract_features(flattened, model, StepTimer())
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return self._kept[key]


LOOKS = Looks()


def pick_without(hidden: Hidden, image: NDArray[np.float32], model: Model, diameter_px: float) -> Picks:
    """Run the default mode with some of what the head reads set to zero, or with smeared borders allowed."""
    flattened, features = LOOKS.at(image, model, diameter_px)
    with torch.inference_mode():
        return score_candidates(hide(features, hidden), flattened, Head.from_arrays(model.arrays))


def without_verdict(image: NDArray[np.float32], model: Model, diameter_px: float) -> Picks:
    """Run the default mode, and never take a whole micrograph to show no particle."""
    flattened, features = LOOKS.at(image, model, diameter_px)
    head = Head.from_arrays(model.arrays)
    head.calibration[2] = 0.0
    with torch.inference_mode():
        return score_candidates(features, flattened, head)


def without_balance(image: NDArray[np.float32], model: Model, diameter_px: float) -> Picks:
    """Run the default mode with one threshold for every micrograph."""
    flattened, features = LOOKS.at(image, model, diameter_px)
    with torch.inference_mode():
        return score_candidates(features, flattened, Head.from_arrays(model.arrays), calibrated=False)


def hide(features: Features, hidden: Hidden) -> Features:
    """Set some of what the head reads to zero."""
    pixels, cells, sigmas = features.pixels.clone(), features.cells.clone(), features.sigmas
    if hidden == "embedding":
        cells.zero_()
    elif hidden == "clusters":
        cells[:, :CLUSTER_LAYERS] = 0
    elif hidden == "template":
        pixels[:, 1], sigmas = 0, torch.zeros_like(sigmas)
    inside = torch.ones_like(features.inside) if hidden == "smear" else features.inside
    return replace(features, pixels=pixels, cells=cells, inside=inside, sigmas=sigmas)


def matched_filter(image: NDArray[np.float32], model: Model, diameter_px: float) -> Picks:
    """Rank the maxima of the template's response by it: no embedding, no head."""
    flattened, features = LOOKS.at(image, model, diameter_px)
    xy, response = find_peaks(features.sigmas * features.inside, GRID_DIAMETER_PX, 1.0)
    score = (1 / (1 + np.exp(MATCHED_SIGMAS - response))).astype(np.float32)
    keep = non_maximum_suppression(xy, score, LEAST_DISTANCE * GRID_DIAMETER_PX)
    at = flattened.frame.to_micrograph(xy[keep])
    return Picks(at, score[keep], response[keep], flattened.frame.shape)


VARIANTS: dict[str, Variant] = {
    "full": partial(pick_without, "nothing"),
    "no-embedding": partial(pick_without, "embedding"),
    "no-clusters": partial(pick_without, "clusters"),
    "no-template": partial(pick_without, "template"),
    "smear-allowed": partial(pick_without, "smear"),
    "no-verdict": without_verdict,
    "no-balance": without_balance,
    "matched-filter": matched_filter,
}
