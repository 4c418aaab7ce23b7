"""Contamination as bad grids show it: grains of ice of every size, webs, and regions without ice."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.simulate.obstacles import Image, Surroundings, smooth_field
from cryoemmae_plugin.simulate.settings import SimulationSettings
from cryoemmae_plugin.simulate.specimen import INTERACTION_rad_per_VA

GRAIN_RADII = (0.1, 0.5)
"""Of a micrograph's typical grain, in particle diameters."""
GRAIN_SPREADS = (0.3, 0.9)
"""Deviation of the logarithm of the radii on one micrograph: grains all of one size would pass for particles."""
GRAIN_FLATNESS = (0.3, 1.0)
"""Thickness of a typical grain over its width."""
GRAIN_POTENTIALS_V = (0.8, 4.0)
"""Mean potential above the surrounding; ice in vacuum has 3.5 V, in vitreous ice less."""
GRAIN_FREE_PATHS_A = (600.0, 4000.0)
"""Of electrons before they are scattered out of the image."""
LARGEST_GRAIN = 1.5
"""Radius, in particle diameters."""


def add_contamination(where: Surroundings, settings: SimulationSettings, rng: np.random.Generator) -> None:
    """Add the grains, the web and the gap that the settings ask for; draws nothing where they ask for none."""
    if settings.grains:
        _add_grains(where, settings, rng)
    if settings.web:
        _add_web(where, settings, rng)
    if settings.gap:
        _add_gap(where, settings, rng)


def _add_grains(where: Surroundings, settings: SimulationSettings, rng: np.random.Generator) -> None:
    """Add grains, single or in chains: sharply bounded, of many sizes, the darker the thicker they are.

    Sizes spread as a log-normal; a grain's thickness goes with a power of its radius, from 0 (flakes of one thickness)
    to 1 (balls).
    """
    ny, nx = where.phase.shape
    typical, spread = np.exp(rng.uniform(*np.log(GRAIN_RADII))), rng.uniform(*GRAIN_SPREADS)
    thickness_A = 2 * typical * settings.diameter_A * rng.uniform(*GRAIN_FLATNESS)
    density = INTERACTION_rad_per_VA[300.0] * np.exp(rng.uniform(*np.log(GRAIN_POTENTIALS_V))) * thickness_A
    absorption = thickness_A / np.exp(rng.uniform(*np.log(GRAIN_FREE_PATHS_A)))
    bulk = rng.uniform(0, 1)
    left = settings.grains
    while left > 0:
        at = rng.uniform(0, 1, 2) * (nx, ny)
        for _ in range(min(left, int(rng.integers(2, 5)) if rng.random() < 0.15 else 1)):
            relative = np.clip(np.exp(rng.normal(scale=spread)), 0.15, 6.0)
            radius = settings.diameter_px * min(typical * relative, LARGEST_GRAIN)
            strength = rng.uniform(0.7, 1.3) * relative**bulk
            _add_grain(where, at, radius, density * strength, absorption * strength, rng)
            direction = rng.uniform(0, 2 * np.pi)
            at = at + 1.6 * radius * np.array([np.cos(direction), np.sin(direction)])
            left -= 1


def _add_grain(
    where: Surroundings,
    at: NDArray[np.float64],
    radius: float,
    density: float,
    absorption: float,
    rng: np.random.Generator,
) -> None:
    ny, nx = where.phase.shape
    elongation, turn = min(1 + abs(rng.normal(scale=0.35)), 2.5), rng.uniform(0, np.pi)
    reach = 1.7 * radius * elongation + 2
    rows = slice(int(np.clip(at[1] - reach, 0, ny)), int(np.clip(at[1] + reach + 2, 0, ny)))
    columns = slice(int(np.clip(at[0] - reach, 0, nx)), int(np.clip(at[0] + reach + 2, 0, nx)))
    dx, dy = np.meshgrid(np.arange(columns.start, columns.stop) - at[0], np.arange(rows.start, rows.stop) - at[1])
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    angle = np.arctan2(across, along / elongation)
    outline = radius * (1 + 0.12 * np.cos(2 * angle + turn) + rng.normal(scale=0.1) * np.cos(3 * angle))
    inside = np.clip(1 - (np.hypot(along / elongation, across) / outline) ** 2, 0, 1).astype(np.float32)
    thickness = inside ** np.float32(rng.uniform(0.25, 0.9))
    where.phase[rows, columns] += np.float32(density) * thickness
    where.transmission[rows, columns] *= np.exp(-np.float32(absorption) * thickness)
    where.blocked[rows, columns] |= thickness > 0


def _add_web(where: Surroundings, settings: SimulationSettings, rng: np.random.Generator) -> None:
    """Cover a share of the canvas with a net of dark strands."""
    shape = where.phase.shape
    mesh = settings.diameter_px * rng.uniform(0.6, 2.0)
    strands = np.abs(smooth_field((shape[0], shape[1]), mesh, rng)) < rng.uniform(0.1, 0.35)
    region = smooth_field((shape[0], shape[1]), 4 * mesh, rng)
    net = (strands & (region > np.quantile(region[::8, ::8], 1 - settings.web))).astype(np.float32)
    film: Image = cv2.GaussianBlur(net, (0, 0), max(0.7, 0.04 * settings.diameter_px)).astype(np.float32)
    where.phase[:] += np.float32(rng.uniform(0.08, 0.4)) * film
    where.transmission[:] *= np.exp(-np.float32(rng.uniform(0.02, 0.3)) * film)
    where.blocked[:] |= film > 0.1


def _add_gap(where: Surroundings, settings: SimulationSettings, rng: np.random.Generator) -> None:
    """Put a share of the canvas outside the ice: bright vacuum, or a bar of the grid that lets nothing through."""
    shape = where.phase.shape
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.ogrid[: shape[0], : shape[1]]
    ragged = rng.uniform(0.02, 0.4) * settings.diameter_px
    distance = x * np.cos(angle) + y * np.sin(angle) + ragged * smooth_field((shape[0], shape[1]), 4 * ragged + 8, rng)
    inside = (distance > np.quantile(distance[::8, ::8], 1 - settings.gap)).astype(np.float32)
    soft: Image = cv2.GaussianBlur(inside, (0, 0), max(0.7, 8 / settings.pixel_size_A)).astype(np.float32)
    brightness = np.float32(rng.uniform(1.2, 2.0) if rng.random() < 0.4 else rng.uniform(0.0, 0.3))
    where.transmission[:] *= 1 + (brightness - 1) * soft
    where.graininess[:] *= 1 - 0.9 * soft
    where.blocked[:] |= soft > 0.1
