"""Contamination as bad grids show it: grains of ice of every size, webs, and regions without ice."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.simulate.obstacles import Image, Surroundings, smooth_field
from cryoemmae_plugin.simulate.settings import SimulationSettings


def add_contamination(where: Surroundings, settings: SimulationSettings, rng: np.random.Generator) -> None:
    """Add the grains, the web and the gap that the settings ask for; draws nothing where they ask for none."""
    if settings.grains:
        _add_grains(where, settings, rng)
    if settings.web:
        _add_web(where, settings, rng)
    if settings.gap:
        _add_gap(where, settings, rng)


def _add_grains(where: Surroundings, settings: SimulationSettings, rng: np.random.Generator) -> None:
    """Add grains of 0.15 to 1.4 diameters, single or in chains: dense, even, sharply bounded, each of its own size."""
    ny, nx = where.phase.shape
    density, absorption = np.exp(rng.uniform(-3.6, 0.0)), np.exp(rng.uniform(-3.5, -0.8))
    left = settings.grains
    while left > 0:
        at = rng.uniform(0, 1, 2) * (nx, ny)
        for _ in range(min(left, int(rng.integers(2, 5)) if rng.random() < 0.2 else 1)):
            radius = settings.diameter_px * np.exp(rng.uniform(np.log(0.08), np.log(0.7)))
            strength = rng.uniform(0.5, 1.3)
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
    elongation, turn = rng.uniform(1, 1.9), rng.uniform(0, np.pi)
    reach = 1.7 * radius * elongation + 2
    rows = slice(int(np.clip(at[1] - reach, 0, ny)), int(np.clip(at[1] + reach + 2, 0, ny)))
    columns = slice(int(np.clip(at[0] - reach, 0, nx)), int(np.clip(at[0] + reach + 2, 0, nx)))
    dx, dy = np.meshgrid(np.arange(columns.start, columns.stop) - at[0], np.arange(rows.start, rows.stop) - at[1])
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    angle = np.arctan2(across, along / elongation)
    outline = radius * (1 + 0.12 * np.cos(2 * angle + turn) + rng.normal(scale=0.1) * np.cos(3 * angle))
    inside = np.clip(1 - (np.hypot(along / elongation, across) / outline) ** 2, 0, 1).astype(np.float32)
    thickness = inside ** np.float32(rng.uniform(0.15, 0.8))
    size = np.float32(min(1.0, radius / (0.4 * radius + 4)))
    where.phase[rows, columns] += np.float32(density) * size * thickness
    where.transmission[rows, columns] *= np.exp(-np.float32(absorption) * size * thickness)
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
