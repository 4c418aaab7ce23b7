"""Gold as grids show it: beads of one size, and the edge of a gold foil."""

from __future__ import annotations

import cv2
import numpy as np

from cryoemmae_plugin.simulate.obstacles import Surroundings, random_window, smooth_field
from cryoemmae_plugin.simulate.settings import SimulationSettings

GOLD_FREE_PATH_A = 120.0
"""Of electrons in gold before they are scattered out of the image."""
GOLD_POTENTIAL_V = 25.0
"""Mean potential of gold above that of ice."""
LARGEST_PHASE_rad = 1.2
"""The optics are linear: more phase than this would not look like gold any more."""
FOIL_GRAIN_A = 150.0
"""Size of the crystals that a foil is made of."""


def add_gold(where: Surroundings, settings: SimulationSettings, rng: np.random.Generator) -> None:
    """Add the beads and the foil that the settings ask for; draws nothing where they ask for none."""
    for _ in range(settings.gold):
        _add_bead(where, settings, rng)
    if settings.foil:
        _add_foil(where, settings, rng)


def _add_bead(where: Surroundings, settings: SimulationSettings, rng: np.random.Generator) -> None:
    radius_A = settings.gold_A / 2 * np.exp(rng.normal(scale=0.06))
    radius = radius_A / settings.pixel_size_A
    window, dx, dy = random_window(where, radius + 3, rng)
    depth = np.clip(1 - (dx**2 + dy**2) / radius**2, 0, 1).astype(np.float32)
    thickness_A = np.float32(2 * radius_A) * np.sqrt(depth)
    phase = 6.5e-4 * GOLD_POTENTIAL_V * thickness_A
    where.phase[window] += LARGEST_PHASE_rad * np.tanh(phase / LARGEST_PHASE_rad)
    where.transmission[window] *= np.exp(-thickness_A / np.float32(GOLD_FREE_PATH_A)).clip(0.05)
    where.blocked[window] |= depth > 0


def _add_foil(where: Surroundings, settings: SimulationSettings, rng: np.random.Generator) -> None:
    """Cover a share of the canvas with foil: nearly opaque, of small crystals, around a hole with a crisp edge."""
    shape = (where.phase.shape[0], where.phase.shape[1])
    radius, angle = rng.uniform(3000, 12000) / settings.pixel_size_A, rng.uniform(0, 2 * np.pi)
    y, x = np.ogrid[: shape[0], : shape[1]]
    centre_x, centre_y = shape[1] / 2 + radius * np.cos(angle), shape[0] / 2 + radius * np.sin(angle)
    ragged = rng.uniform(3, 25) / settings.pixel_size_A
    distance = np.hypot(x - centre_x, y - centre_y) + ragged * smooth_field(shape, 120 / settings.pixel_size_A, rng)
    inside = (distance > np.quantile(distance[::8, ::8], 1 - settings.foil)).astype(np.float32)
    film = cv2.GaussianBlur(inside, (0, 0), max(0.6, 6 / settings.pixel_size_A))
    grains = smooth_field(shape, max(FOIL_GRAIN_A / settings.pixel_size_A, 2), rng)
    through = np.float32(rng.uniform(0.05, 0.35)) * np.exp(np.float32(0.35) * grains)
    where.transmission[:] *= 1 - film * (1 - through.clip(0.02, 0.8))
    where.phase[:] += np.float32(rng.uniform(0.2, 0.8)) * film
    where.blocked[:] |= film > 0.1
