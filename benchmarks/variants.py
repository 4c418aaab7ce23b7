"""Variants of the default mode for ablations: ``accuracy.py --ablate NAME`` runs one beside the others.

Each takes (image, model, diameter in pixels) and returns all candidates as :class:`cryoemmae_plugin.types.Picks`.
Register a step switched off by a line in `VARIANTS`, most simply ``partial(pick_default_of, some_option=...)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pickers import Variant

from cryoemmae_plugin.core.default import as_dark, pick_default
from cryoemmae_plugin.types import Picks
from cryoemmae_plugin.weights import Model


def pick_default_of(image: NDArray[np.float32], model: Model, diameter_px: float, **options: Any) -> Picks:
    """Run the default mode with some of its arguments changed."""
    return pick_default(as_dark(image, False, torch.device("cpu")), model, diameter_px, **options)


def embedding_blind(image: NDArray[np.float32], model: Model, diameter_px: float) -> Picks:
    """Rank by the contrast of the particle's disc alone: what everything after the candidates buys."""
    picks = pick_default_of(image, model, diameter_px)
    order = np.argsort(-picks.power, kind="stable")
    score = 1 / (1 + np.exp(-picks.power[order]))
    return Picks(picks.xy[order], score.astype(np.float32), picks.power[order], picks.shape)


VARIANTS: dict[str, Variant] = {
    "full": pick_default_of,
    "contrast-only": embedding_blind,
}
