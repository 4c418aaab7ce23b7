"""A second simulator of micrographs, which shares nothing with the one that heads are trained on.

It draws shadows instead of clouds of blobs, adds Gaussian noise of a coloured spectrum instead of counting electrons,
and makes junk from cell diagrams instead of smooth fields. Contrast is what the picker meets: a particle's mean
darkness over the deviation of the noise in one pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Image = NDArray[np.float64]

SIDE_PX = 900
"""Of the micrographs, along y; along x they are a quarter wider."""
PIXEL_A = 3.0
WAVELENGTH_A = 0.0251
"""Of 200 kV electrons."""
EDGE_A = 4.0
"""Width of the particles' edges."""
NOISE_CUT = 0.32
"""Frequency, in 1/px, at which the detector's noise has fallen to 1/e."""


@dataclass(frozen=True)
class Rendered:
    """A micrograph with particles dark, and their centres (N, 2) in pixels."""

    image: NDArray[np.float32]
    xy: NDArray[np.float64]
    diameter_px: float
    pixel_size_A: float = PIXEL_A


def render_particles(kind: str, contrast: float, count: int, seed: int, diameter_A: float = 300.0) -> Rendered:
    """Draw `count` particles of a kind of :data:`SHADOWS` at random places.

    Parameters
    ----------
    kind : str
    contrast : float
        Mean darkness of a particle over the deviation of the noise in one pixel.
    count : int
        Fewer where no more fit.
    seed : int
    diameter_A : float
    """
    rng = np.random.default_rng([seed, sum(map(ord, kind)), count])
    shape, diameter = (SIDE_PX, SIDE_PX * 5 // 4), diameter_A / PIXEL_A
    centres = _scatter(count, shape, diameter, rng)
    shadow = np.zeros(shape)
    for x, y in centres:
        _stamp(shadow, SHADOWS[kind], x, y, diameter / 2, rng)
    if kind != "bare_disc":
        shadow = _through_lens(shadow, rng.uniform(0.8, 2.6), rng.uniform(0.08, 0.2))
    inside = np.zeros(shape, bool)
    down, across = np.ogrid[: shape[0], : shape[1]]
    for x, y in centres:
        inside |= np.hypot(across - x, down - y) < diameter / 2
    scale = max(float(np.sqrt((shadow[inside] ** 2).mean())) if inside.any() else 1.0, 1e-9)
    return Rendered(_as_image(_noise(shape, rng) - contrast * shadow / scale, rng), centres, diameter)


def render_junk(kind: str, seed: int, diameter_A: float = 300.0) -> Rendered:
    """Draw a micrograph without a particle, of a kind of :data:`JUNK`."""
    rng = np.random.default_rng([seed, sum(map(ord, kind)), 7])
    shape, diameter = (SIDE_PX, SIDE_PX * 5 // 4), diameter_A / PIXEL_A
    image = _noise(shape, rng) - JUNK[kind](shape, diameter, rng)
    return Rendered(_as_image(image, rng), np.zeros((0, 2)), diameter)


# --- shadows of particles: (distance from the middle in radii, angle) to darkness, zero from 1 on ---


def _chord(r: Image, radius: float) -> Image:
    """Length of the way through a ball of a radius."""
    return np.sqrt(np.clip(radius**2 - r**2, 0, None))


def _faceted(r: Image, angle: Image, rng: np.random.Generator) -> Image:
    """Distance with six-fold flats, as an icosahedral capsid's outline has."""
    turn = rng.uniform(0, np.pi / 3)
    flat = np.cos((angle + turn) % (np.pi / 3) - np.pi / 6) / np.cos(np.pi / 6)
    return r * (0.6 + 0.4 * flat)


def _full_virus(r: Image, angle: Image, rng: np.random.Generator) -> Image:
    r = _faceted(r, angle, rng)
    genome = _chord(r, 0.86) * (1 + 0.08 * np.cos(40 * r + rng.uniform(0, 6)))
    return (_chord(r, 1.0) - _chord(r, 0.88)) + 1.1 * genome


def _empty_virus(r: Image, angle: Image, rng: np.random.Generator) -> Image:
    r = _faceted(r, angle, rng)
    return (_chord(r, 1.0) - _chord(r, 0.85)) * (1 + 0.15 * np.cos(12 * angle + rng.uniform(0, 6)))


def _spiked_virus(r: Image, angle: Image, rng: np.random.Generator) -> Image:
    spikes = 0.3 * ((r > 0.78) & (r < 1)) * (np.cos(14 * angle + rng.uniform(0, 6)) > 0.4)
    return _chord(r, 0.8) + spikes


def _iron_core(r: Image, angle: Image, rng: np.random.Generator) -> Image:
    return (_chord(r, 1.0) - _chord(r, 0.68)) + 2.5 * _chord(r, 0.5)


def _vesicle(r: Image, angle: Image, rng: np.random.Generator) -> Image:
    r = r * rng.uniform(0.97, 1.06)
    return np.exp(-(((r - 0.96) / 0.035) ** 2)) + np.exp(-(((r - 0.84) / 0.035) ** 2))


def _disc(r: Image, angle: Image, rng: np.random.Generator) -> Image:
    return np.clip((1 - r) * 20, 0, 1)


def _bilobed(r: Image, angle: Image, rng: np.random.Generator) -> Image:
    """A protein of two unequal domains, seen from anywhere."""
    turn, tilt = rng.uniform(0, 2 * np.pi), abs(rng.uniform(-1, 1))
    x, y = r * np.cos(angle - turn), r * np.sin(angle - turn)
    apart = 0.5 * np.sqrt(1 - tilt**2)
    return _chord(np.hypot(x - 0.8 * apart, y), 0.52) + _chord(np.hypot(x + apart, y * 1.2), 0.42)


SHADOWS = {
    "full_virus": _full_virus,
    "empty_virus": _empty_virus,
    "spiked_virus": _spiked_virus,
    "iron_core": _iron_core,
    "vesicle": _vesicle,
    "disc": _disc,
    "bare_disc": _disc,
    "bilobed": _bilobed,
}
"""What a particle's shadow is; a bare disc meets no lens."""


def _stamp(canvas: Image, shadow, x: float, y: float, radius: float, rng: np.random.Generator) -> None:  # type: ignore[no-untyped-def]
    reach = int(radius * 1.1) + 2
    rows = slice(max(0, int(y) - reach), min(canvas.shape[0], int(y) + reach + 1))
    columns = slice(max(0, int(x) - reach), min(canvas.shape[1], int(x) + reach + 1))
    dx, dy = np.meshgrid(np.arange(columns.start, columns.stop) - x, np.arange(rows.start, rows.stop) - y)
    canvas[rows, columns] += shadow(np.hypot(dx, dy) / radius, np.arctan2(dy, dx), rng)


def _scatter(count: int, shape: tuple[int, int], diameter: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw places one after the other, each at least 1.1 diameters from all others, whole particles only."""
    places: list[NDArray[np.float64]] = []
    for _ in range(60 * count):
        if len(places) == count:
            break
        place = rng.uniform(0.6 * diameter, np.array(shape[::-1]) - 0.6 * diameter)
        if all(np.hypot(*(place - other)) > 1.1 * diameter for other in places):
            places.append(place)
    return np.array(places).reshape(-1, 2)


# --- lens, noise, detector ---


def _through_lens(shadow: Image, defocus_um: float, amplitude: float) -> Image:
    """Apply the phase and amplitude contrast of an underfocused lens with a Gaussian envelope."""
    k = _frequency(shadow.shape) / PIXEL_A
    phase = np.pi * WAVELENGTH_A * defocus_um * 1e4 * k**2 - 0.5 * np.pi * 2e7 * WAVELENGTH_A**3 * k**4
    transfer = np.sin(phase + np.arcsin(amplitude)) * np.exp(-20 * k**2 - (EDGE_A * k) ** 2)
    return np.fft.irfft2(np.fft.rfft2(shadow) * transfer, s=shadow.shape)


def _frequency(shape: tuple[int, ...]) -> Image:
    return np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))


def _coloured(shape: tuple[int, int], gain: Image, rng: np.random.Generator) -> Image:
    """Return Gaussian noise of deviation 1 whose amplitudes go with `gain`."""
    field = np.fft.irfft2(np.fft.rfft2(rng.normal(size=shape)) * gain, s=shape)
    return field / field.std()


def _noise(shape: tuple[int, int], rng: np.random.Generator) -> Image:
    """Return the detector's noise, the structure of the ice and an uneven illumination; deviation about 1."""
    k = _frequency(shape)
    detector = _coloured(shape, np.exp(-((k / NOISE_CUT) ** 2)), rng)
    ice = _coloured(shape, np.exp(-(((k - 0.12) / 0.08) ** 2)), rng)
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape) - 0.5
    glow = rng.uniform(-1, 1) * x + rng.uniform(-1, 1) * y + rng.uniform(-1.5, 1.5) * (x**2 + y**2)
    return detector + 0.4 * ice + 0.8 * glow


def _as_image(image: Image, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return it on a scale as some camera has it."""
    return np.asarray(image * rng.uniform(3, 80) + rng.uniform(200, 9000), np.float32)


# --- junk: (shape, diameter, generator) to darkness ---


def _cells(shape: tuple[int, int], spacing: float, rng: np.random.Generator) -> tuple[Image, NDArray[np.intp], Image]:
    """Return distances to the nearest and second nearest of random seeds, and which seed is the nearest."""
    count = max(8, int(shape[0] * shape[1] / spacing**2))
    seeds = rng.uniform(0, 1, (count, 2)) * shape
    places = np.indices(shape).reshape(2, -1).T
    distance, which = cKDTree(seeds).query(places, 2)
    first, second = distance.T.reshape(2, *shape)
    return first, which[:, 0].reshape(shape), second


def _mottled(shape: tuple[int, int], diameter: float, rng: np.random.Generator) -> Image:
    """Spots of ice: cells of random shade, blurred and warped."""
    spacing = diameter * rng.uniform(0.4, 1.6)
    _, which, _ = _cells(shape, spacing, rng)
    shade = rng.gamma(0.7, 1.0, which.max() + 1)[which]
    return rng.uniform(0.5, 2.5) * cv2.GaussianBlur(shade, (0, 0), spacing * rng.uniform(0.08, 0.25))


def _crystalline(shape: tuple[int, int], diameter: float, rng: np.random.Generator) -> Image:
    """Grown-together crystals: a shade each, dark boundaries, bend contours."""
    first, which, second = _cells(shape, diameter * rng.uniform(0.5, 2.0), rng)
    shade = rng.normal(0, rng.uniform(0.3, 1.2), which.max() + 1)[which]
    return shade + rng.uniform(0.3, 1.5) * (second - first < 2.5) + 0.4 * np.cos(first / rng.uniform(4, 12))


def _frost(shape: tuple[int, int], diameter: float, rng: np.random.Generator) -> Image:
    """Many separate small crystals: triangles to hexagons of all sizes and shades."""
    dark = np.zeros(shape)
    for _ in range(int(rng.integers(60, 350))):
        radius = diameter * float(np.clip(rng.lognormal(np.log(0.16), 0.6), 0.04, 1.0))
        corners = int(rng.integers(3, 7))
        turn = rng.uniform(0, 6) + np.arange(corners) * 2 * np.pi / corners
        at = rng.uniform(0, 1, 2) * shape[::-1]
        outline = at + radius * np.stack([np.cos(turn), np.sin(turn)], 1) * rng.uniform(0.6, 1.2, (corners, 1))
        mask = np.zeros(shape, np.uint8)
        cv2.fillPoly(mask, [np.rint(outline).astype(np.int32)], 1)
        dark += mask * rng.lognormal(0.3, 0.7)
    return cv2.GaussianBlur(dark, (0, 0), 0.8)


def _thick(shape: tuple[int, int], diameter: float, rng: np.random.Generator) -> Image:
    """Thick ice: clouds of every size, the larger the stronger."""
    k = _frequency(shape)
    return rng.uniform(0.4, 1.6) * _coloured(shape, 1 / np.maximum(k, 0.5 / max(shape)) ** rng.uniform(0.7, 1.3), rng)


def _dirt(shape: tuple[int, int], diameter: float, rng: np.random.Generator) -> Image:
    """Small contamination: heaps of a few ellipses, each of its own size, shade and edge."""
    dark = np.zeros(shape)
    for _ in range(int(rng.integers(8, 60))):
        layer, at = np.zeros(shape, np.float32), rng.uniform(0, 1, 2) * shape[::-1]
        radius = diameter * rng.uniform(0.08, 0.7)
        for _ in range(int(rng.integers(1, 4))):
            axes = np.maximum(np.rint(radius * rng.uniform(0.5, 1.1, 2)), 1).astype(int).tolist()
            centre = np.rint(at + rng.normal(0, 0.5 * radius, 2)).astype(int).tolist()
            cv2.ellipse(layer, centre, axes, rng.uniform(0, 180), 0, 360, 1.0, -1)
        dark = np.maximum(dark, rng.lognormal(0.5, 0.8) * cv2.GaussianBlur(layer, (0, 0), rng.uniform(0.6, 4)))
    return dark


def _gold(shape: tuple[int, int], diameter: float, rng: np.random.Generator) -> Image:
    """Opaque beads a third as large as the particles, and the dark edge of a foil."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    dark = 12.0 * (np.hypot(x - rng.uniform(-1, 0.1) * shape[1], y - shape[0] / 2) > shape[1] * rng.uniform(0.9, 1.1))
    for at in rng.uniform(0, 1, (int(rng.integers(5, 25)), 2)) * shape[::-1]:
        dark = np.maximum(dark, 20.0 * (np.hypot(x - at[0], y - at[1]) < diameter / 6))
    return dark


JUNK = {
    "mottled": _mottled,
    "crystalline": _crystalline,
    "frost": _frost,
    "thick": _thick,
    "dirt": _dirt,
    "gold": _gold,
    "nothing": lambda shape, diameter, rng: np.zeros(shape),
}
