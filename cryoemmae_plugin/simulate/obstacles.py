"""What is not a particle: carbon, frost, ice crystals, crystalline and mottled ice, an uneven background."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.simulate.settings import SimulationSettings

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Surroundings:
    """The specimen without its particles, on the simulation's canvas.

    Attributes
    ----------
    phase : ndarray, float32
        Projected phase in rad of what is strong (carbon step, contamination).
    transmission : ndarray, float32
        Share of the electrons that pass, around 1.
    graininess : ndarray, float32
        Factor on the phase noise of the ice; above 1 on carbon.
    blocked : ndarray of bool
        Where no particle may lie.
    """

    phase: Image
    transmission: Image
    graininess: Image
    blocked: NDArray[np.bool_]


def smooth_field(shape: tuple[int, int], scale_px: float, rng: np.random.Generator) -> Image:
    """Return a smooth random field of mean 0 and deviation about 1 that varies over `scale_px` pixels, float32."""
    coarse = tuple(max(4, int(np.ceil(n / scale_px)) + 3) for n in shape)
    field = cv2.resize(
        rng.standard_normal(coarse).astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC
    )
    return np.asarray(field * 1.35, np.float32)


def background(settings: SimulationSettings, shape: tuple[int, int], rng: np.random.Generator) -> Image:
    """Return the uneven brightness of the ice, as a transmission."""
    y, x = np.linspace(-0.5, 0.5, shape[0])[:, None], np.linspace(-0.5, 0.5, shape[1])[None, :]
    angle = rng.uniform(0, 2 * np.pi)
    slope = x * np.cos(angle) + y * np.sin(angle) + rng.uniform(-0.8, 0.8) * (x * x + y * y)
    uneven = 0.08 * smooth_field(shape, max(shape) / 4, rng)
    return np.asarray(1 + settings.ice_gradient * (slope + uneven), np.float32)


def crystalline(settings: SimulationSettings, shape: tuple[int, int], rng: np.random.Generator) -> Image:
    """Return the mottles and cracks of ice that has crystallised, as a transmission."""
    mottles = smooth_field(shape, 350 / settings.pixel_size_A, rng)
    patches = np.maximum(smooth_field(shape, 900 / settings.pixel_size_A, rng), 0.3)
    cracks = np.abs(smooth_field(shape, 130 / settings.pixel_size_A, rng)) < 0.05
    lines = cv2.GaussianBlur(cracks.astype(np.float32), (0, 0), max(0.6, 5 / settings.pixel_size_A))
    return np.asarray(np.exp(0.06 * mottles * patches - 0.10 * lines), np.float32)


def leopard(settings: SimulationSettings, shape: tuple[int, int], rng: np.random.Generator) -> Image:
    """Return the spots of ice of uneven thickness or with crystalline patches, as a transmission.

    Spots have all sizes and outlines around a typical one; they are dark, light, or both, soft or sharp.
    """
    scale = np.exp(rng.uniform(np.log(90), np.log(700))) / settings.pixel_size_A
    field = smooth_field(shape, scale, rng) + rng.uniform(0, 0.8) * smooth_field(shape, scale / 2.3, rng)
    soft = rng.uniform(0.2, 1.2)
    spots = np.tanh(np.maximum(field - rng.uniform(-0.5, 1.2), 0) / soft)
    if rng.random() < 0.5:
        spots -= rng.uniform(0.3, 1.2) * np.tanh(np.maximum(-field - rng.uniform(-0.5, 1.2), 0) / soft)
    patches = np.clip(0.6 + rng.uniform(0, 0.8) * smooth_field(shape, 5 * scale, rng), 0.05, None)
    strength = np.exp(rng.uniform(np.log(0.015), np.log(0.25)))
    return np.asarray(np.exp(np.float32(-strength) * spots * patches), np.float32)


def add_carbon(where: Surroundings, settings: SimulationSettings, rng: np.random.Generator) -> None:
    """Cover a share of the canvas with carbon film, outside a round hole with a slightly ragged edge."""
    shape = where.phase.shape
    radius = rng.uniform(4000, 15000) / settings.pixel_size_A
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.ogrid[: shape[0], : shape[1]]
    centre_x, centre_y = shape[1] / 2 + radius * np.cos(angle), shape[0] / 2 + radius * np.sin(angle)
    distance = np.hypot(x - centre_x, y - centre_y) + 12 / settings.pixel_size_A * smooth_field(
        (shape[0], shape[1]), 90 / settings.pixel_size_A, rng
    )
    ramp = max(30 / settings.pixel_size_A, 1)
    edge = np.quantile(distance[::8, ::8], 1 - settings.carbon) if settings.carbon < 1 else distance.min() - ramp
    film = np.clip((distance - edge) / ramp + 0.5, 0, 1).astype(np.float32)
    where.phase[:] += np.float32(rng.uniform(0.15, 0.5)) * film
    where.transmission[:] *= 1 - np.float32(rng.uniform(0.12, 0.35)) * film
    where.graininess[:] *= 1 + np.float32(rng.uniform(1.5, 4)) * film
    where.blocked[:] |= film > 0.2


def add_frost(where: Surroundings, settings: SimulationSettings, rng: np.random.Generator) -> None:
    """Add one roundish, dark contamination of 0.5 to 4 diameters, thicker towards its middle."""
    radius = settings.diameter_px * np.exp(rng.uniform(np.log(0.35), np.log(2.0)))
    window, dx, dy = random_window(where, 1.5 * radius, rng)
    angle = np.arctan2(dy, dx)
    order = np.arange(2, 6)
    wave = rng.normal(scale=0.16, size=4) / (order / 2)
    ripples = np.cos(order[:, None, None] * angle + rng.uniform(0, 2 * np.pi, (4, 1, 1)))
    outline = radius * (1 + np.tensordot(wave, ripples, 1))
    bulge = np.sqrt(np.clip(1 - (np.hypot(dx, dy) / outline) ** 2, 0, 1)).astype(np.float32)
    add_object(where, window, bulge**0.7, rng.uniform(0.1, 0.7), np.exp(rng.uniform(-3.5, -0.8)))


def add_crystal(where: Surroundings, settings: SimulationSettings, rng: np.random.Generator) -> None:
    """Add one ice crystal: a convex polygon of even thickness."""
    radius = settings.diameter_px * np.exp(rng.uniform(np.log(0.4), np.log(2.0)))
    window, dx, dy = random_window(where, 1.1 * radius, rng)
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(5, 9))))
    corners = radius * rng.uniform(0.75, 1.0, (len(angles), 1)) * np.stack([np.cos(angles), np.sin(angles)], 1)
    hull = cv2.convexHull(corners.astype(np.float32))[:, 0]
    origin = np.array([dx[0, 0], dy[0, 0]])
    mask = np.zeros(dx.shape, np.uint8)
    cv2.fillPoly(mask, [np.rint(hull - origin).astype(np.int32)], 1)
    steps = 1 + 0.25 * np.sign(dx * np.cos(angles[0]) + dy * np.sin(angles[0]))
    add_object(where, window, (mask * steps).astype(np.float32), rng.uniform(0.15, 0.6), rng.uniform(0.05, 0.3))


def random_window(
    where: Surroundings, reach: float, rng: np.random.Generator
) -> tuple[tuple[slice, slice], NDArray[np.float64], NDArray[np.float64]]:
    """Return a random place on the canvas: its window, and x and y from its centre."""
    ny, nx = where.phase.shape
    x0, y0 = rng.uniform(0, nx), rng.uniform(0, ny)
    rows = slice(max(0, int(y0 - reach)), min(ny, int(y0 + reach) + 2))
    columns = slice(max(0, int(x0 - reach)), min(nx, int(x0 + reach) + 2))
    dx, dy = np.meshgrid(np.arange(columns.start, columns.stop) - x0, np.arange(rows.start, rows.stop) - y0)
    return (rows, columns), dx, dy


def add_object(
    where: Surroundings, window: tuple[slice, slice], thickness: Image, phase: float, absorption: float
) -> None:
    """Add an object of a `thickness` around 1, and the phase in rad and the absorption at thickness 1."""
    where.phase[window] += np.float32(phase) * thickness
    where.transmission[window] *= np.exp(-np.float32(absorption) * thickness)
    where.blocked[window] |= thickness > 0
