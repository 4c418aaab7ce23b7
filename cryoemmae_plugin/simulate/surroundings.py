"""What surrounds the particles in one specimen."""

from __future__ import annotations

import cv2
import numpy as np

from cryoemmae_plugin.simulate.contamination import add_contamination
from cryoemmae_plugin.simulate.gold import add_gold
from cryoemmae_plugin.simulate.obstacles import (
    Surroundings,
    add_carbon,
    add_crystal,
    add_frost,
    background,
    crystalline,
    leopard,
)
from cryoemmae_plugin.simulate.settings import SimulationSettings
from cryoemmae_plugin.simulate.small_junk import add_small_junk


def surroundings(settings: SimulationSettings, shape: tuple[int, int], rng: np.random.Generator) -> Surroundings:
    """Draw everything but the particles for a canvas of `shape`."""
    where = Surroundings(
        phase=np.zeros(shape, np.float32),
        transmission=background(settings, shape, rng),
        graininess=np.ones(shape, np.float32),
        blocked=np.zeros(shape, bool),
    )
    if settings.ice == "crystalline":
        where.transmission[:] *= crystalline(settings, shape, rng)
    if settings.ice == "leopard":
        where.transmission[:] *= leopard(settings, shape, rng)
    if settings.carbon > 0:
        add_carbon(where, settings, rng)
    for _ in range(settings.frost):
        add_frost(where, settings, rng)
    for _ in range(settings.crystals):
        add_crystal(where, settings, rng)
    add_contamination(where, settings, rng)
    add_small_junk(where, settings, rng)
    add_gold(where, settings, rng)
    if where.blocked.any():
        reach = int(np.ceil(0.5 * settings.diameter_px))
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
        where.blocked[:] = cv2.dilate(where.blocked.astype(np.uint8), disc) > 0
    return where
