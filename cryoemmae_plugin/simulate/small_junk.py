"""Small things on a micrograph that are not particles: crystallites of ice, specks, vesicles. No two are alike."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.simulate.obstacles import Image, Surroundings, add_object, random_window
from cryoemmae_plugin.simulate.settings import SimulationSettings

CRYSTALLITE_RADII = (0.06, 0.5)
"""Of a micrograph's typical crystallite, in particle diameters."""
SPECK_RADII = (0.08, 0.9)
"""Of specks, in particle diameters."""
VESICLE_RADII = (0.25, 2.5)
"""Of vesicles, in particle diameters."""
MEMBRANE_A = 45.0


def add_small_junk(where: Surroundings, settings: SimulationSettings, rng: np.random.Generator) -> None:
    """Add the crystallites, specks and vesicles that the settings ask for; draws nothing where they ask for none."""
    if settings.crystallites:
        _add_crystallites(where, settings, rng)
    for _ in range(settings.specks):
        _add_speck(where, settings, rng)
    for _ in range(settings.vesicles):
        _add_vesicle(where, settings, rng)


def _add_crystallites(where: Surroundings, settings: SimulationSettings, rng: np.random.Generator) -> None:
    """Add crystals as frost or a devitrifying specimen shows them: facets, of all sizes, dark, or light where they lie.

    How dark one is depends on its thickness and, as crystals diffract, on its orientation.
    """
    typical = settings.diameter_px * np.exp(rng.uniform(*np.log(CRYSTALLITE_RADII)))
    spread, sides = rng.uniform(0.35, 0.8), int(rng.integers(4, 8))
    phase, absorption = np.exp(rng.uniform(np.log([0.05, 0.02]), np.log([0.5, 0.4])))
    light = rng.choice([0.0, 0.0, 0.3])
    for _ in range(settings.crystallites):
        relative = float(np.clip(np.exp(rng.normal(scale=spread)), 0.2, 5))
        radius = min(typical * relative, 1.5 * settings.diameter_px)
        window, dx, dy = random_window(where, 1.1 * radius + 2, rng)
        angles = np.sort(rng.uniform(0, 2 * np.pi) + np.arange(sides) * 2 * np.pi / sides + rng.normal(0, 0.25, sides))
        mask = _polygon(dx, dy, radius * rng.uniform(0.7, 1.0, sides), angles)
        slope = 1 + rng.uniform(0, 0.6) * (dx * np.cos(angles[0]) + dy * np.sin(angles[0])) / max(radius, 1)
        shade = rng.lognormal(sigma=0.5) * (-0.7 if rng.random() < light else 1.0) * relative**0.5
        strong = shade * (mask * slope.clip(0.1)).astype(np.float32)
        add_object(where, window, strong, phase, absorption)
        where.blocked[window] |= mask > 0


def _polygon(
    dx: NDArray[np.float64], dy: NDArray[np.float64], radii: NDArray[np.float64], angles: NDArray[np.float64]
) -> Image:
    """Draw a filled polygon with smooth edges; its corners in polar coordinates around dx = dy = 0."""
    corners = np.stack([radii * np.cos(angles) - dx[0, 0], radii * np.sin(angles) - dy[0, 0]], 1)
    fine = 4  # binary digits of the corners' fractions
    mask = np.zeros(dx.shape, np.uint8)
    hull = cv2.convexHull(np.rint(corners * 2**fine).astype(np.int32))
    cv2.fillPoly(mask, [hull], 255, cv2.LINE_AA, fine)
    return np.asarray(mask / 255, np.float32)


def _add_speck(where: Surroundings, settings: SimulationSettings, rng: np.random.Generator) -> None:
    """Add one contamination with a size, an outline, a profile and a strength of its own."""
    radius = settings.diameter_px * np.exp(rng.uniform(*np.log(SPECK_RADII)))
    elongation, turn = np.exp(abs(rng.normal(scale=0.35))), rng.uniform(0, np.pi)
    window, dx, dy = random_window(where, 1.5 * radius * elongation + 2, rng)
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    angle = np.arctan2(across, along / elongation)
    order = np.arange(2, 6)
    waves = np.cos(order[:, None, None] * angle + rng.uniform(0, 2 * np.pi, (4, 1, 1)))
    outline = radius * (1 + np.tensordot(rng.normal(scale=0.2, size=4) / order, waves, 1)).clip(0.3)
    inside = np.clip(1 - (np.hypot(along / elongation, across) / outline) ** 2, 0, 1)
    look = rng.random()
    if look < 0.2:  # hollow
        thickness = inside * (1 - inside) * 4
    elif look < 0.3:  # lighter than the ice: a hole, a bubble
        thickness = -0.6 * inside ** rng.uniform(0.3, 1)
    else:
        thickness = inside ** rng.uniform(0.1, 1.2)
    phase, absorption = np.exp(rng.uniform(np.log([0.03, 0.02]), np.log([0.8, 0.7])))
    add_object(where, window, thickness.astype(np.float32), phase, absorption)
    where.blocked[window] |= inside > 0


def _add_vesicle(where: Surroundings, settings: SimulationSettings, rng: np.random.Generator) -> None:
    """Add one vesicle: a membrane, seen edge-on as a dark ring, not quite round, at times with a second one inside."""
    radius = settings.diameter_px * np.exp(rng.uniform(*np.log(VESICLE_RADII)))
    window, dx, dy = random_window(where, 1.3 * radius + 3, rng)
    squeeze, turn = rng.uniform(0.8, 1.0), rng.uniform(0, np.pi)
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    distance = np.hypot(along, across / squeeze)
    width = MEMBRANE_A / settings.pixel_size_A
    outer, inner = (np.sqrt(np.clip(r**2 - distance**2, 0, None)) for r in (radius, max(radius - width, 0.0)))
    length_A = 2 * (outer - inner) * settings.pixel_size_A
    phase = (6.5e-4 * 1.2 * rng.uniform(0.6, 1.5) * settings.contrast * length_A).astype(np.float32)
    if rng.random() < 0.3:
        phase += 0.4 * phase.max() * (np.abs(distance - 0.6 * radius) < width / 2).astype(np.float32)
    where.phase[window] += np.minimum(phase, 0.8)
    where.blocked[window] |= distance < radius
