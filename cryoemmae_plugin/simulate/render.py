"""Simulate one micrograph: specimen, optics, detector, look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from cryoemmae_plugin.simulate.obstacles import surroundings
from cryoemmae_plugin.simulate.optics import band_pass, contrast_transfer, expose, frequencies, ice_noise
from cryoemmae_plugin.simulate.place import place_centres
from cryoemmae_plugin.simulate.settings import SimulationSettings
from cryoemmae_plugin.simulate.shapes import BLOB_SIGMA, ParticleModel, particle_model

Image = NDArray[np.float32]

PROTEIN_IN_ICE_V = 1.4
"""Mean potential of a protein's volume above that of the ice it displaces, in volt: such that apoferritin at 300 kV
stands out from the noise as it does in published micrographs."""

INTERACTION_rad_per_VA = {200.0: 7.3e-4, 300.0: 6.5e-4}

BITS_MEAN, BITS_DEVIATION = 138.0, 24.0


@dataclass(frozen=True)
class SimulatedMicrograph:
    """A micrograph with known answers.

    Attributes
    ----------
    image : ndarray, shape (ny, nx), float32
        Electrons per pixel, or 0..255 where the settings ask for 8 bit; protein is dark.
    xy : ndarray, shape (N, 2), float64
        Centres of all particles whose centre lies inside the frame: x = column, y = row, the centre of the first pixel
        is (0.0, 0.0). A particle's centre is that of its minimal bounding sphere, and its centre of mass: the models
        are made such that both coincide.
    diameter_A, pixel_size_A : float
        Diameter of the bounding sphere, and size of a pixel.
    settings : SimulationSettings
        What was asked for.
    seed : int
        What it was drawn with.
    """

    image: Image
    xy: NDArray[np.float64]
    diameter_A: float
    pixel_size_A: float
    settings: SimulationSettings
    seed: int

    @property
    def diameter_px(self) -> float:
        """Particle diameter in pixels."""
        return self.diameter_A / self.pixel_size_A


def simulate(settings: SimulationSettings, seed: int) -> SimulatedMicrograph:
    """Simulate one micrograph; the same settings and seed give the same image and coordinates.

    Parameters
    ----------
    settings : SimulationSettings
        The scene.
    seed : int
        Seed of everything random.

    Returns
    -------
    SimulatedMicrograph
        Image and true coordinates.
    """
    place, specimen, detector = (np.random.default_rng([seed, part]) for part in range(3))
    pad, canvas = _canvas(settings)
    around = surroundings(settings, canvas, specimen)
    centres = _particle_centres(settings, pad, around.blocked, place)
    model = particle_model(settings.particle, settings.variant)
    protein = project(model, centres, settings, canvas, place)
    protein += _unwanted_protein(settings, model, canvas, pad, centres, place)

    k = frequencies(canvas, settings.pixel_size_A)
    spectrum = scipy.fft.rfft2(protein)
    spectrum *= np.exp(-2 * (np.pi * BLOB_SIGMA * settings.diameter_A * k) ** 2)
    background = around.phase
    if settings.noise:
        background = background + around.graininess * ice_noise(settings, canvas, specimen)
    if background.any():
        spectrum += scipy.fft.rfft2(background)
    contrast = scipy.fft.irfft2(spectrum * contrast_transfer(settings, canvas), s=canvas)
    frame = (slice(pad, pad + settings.shape[0]), slice(pad, pad + settings.shape[1]))
    intensity = around.transmission[frame] * (1 - 2 * contrast[frame])
    image = _finish(expose(intensity, settings, detector), settings, detector)
    xy = _visible(centres - pad, settings)
    return SimulatedMicrograph(image, xy, settings.diameter_A, settings.pixel_size_A, settings, seed)


def project(
    model: ParticleModel,
    centres: NDArray[np.float64],
    settings: SimulationSettings,
    shape: tuple[int, int],
    rng: np.random.Generator,
    scale: float | NDArray[np.float64] = 1.0,
) -> Image:
    """Project randomly oriented particles onto a canvas, as points: each blob is shared by the four nearest pixels.

    Parameters
    ----------
    model : ParticleModel
        The particle.
    centres : ndarray, shape (N, 2)
        (x, y) in pixels of the canvas.
    scale : float or ndarray, shape (N,)
        Size relative to the settings' diameter.

    Returns
    -------
    ndarray, shape `shape`, float32
        Projected phase in rad. The blobs' Gaussian width is left to the caller.
    """
    canvas = np.zeros(shape[0] * shape[1])
    if len(centres) == 0:
        return canvas.reshape(shape).astype(np.float32)
    sizes = np.broadcast_to(np.asarray(scale, float), len(centres))
    interaction = min(INTERACTION_rad_per_VA.items(), key=lambda item: abs(item[0] - settings.voltage_kV))[1]
    strength = settings.contrast * PROTEIN_IN_ICE_V * interaction * settings.diameter_A**3 / settings.pixel_size_A**2
    turns = Rotation.random(len(centres), rng).as_matrix()
    for centre, size, turn in zip(centres, sizes, turns, strict=True):
        blobs = model.points @ turn[:2].T * (settings.diameter_px * size) + centre
        _deposit(canvas, shape, blobs, model.weights * strength * size**3)
    return canvas.reshape(shape).astype(np.float32)


def _deposit(
    canvas: NDArray[np.float64], shape: tuple[int, int], xy: NDArray[np.float64], weights: NDArray[np.float64]
) -> None:
    corner = np.floor(xy).astype(np.int64)
    fx, fy = (xy - corner).T
    for dx, dy, share in ((0, 0, (1 - fx) * (1 - fy)), (1, 0, fx * (1 - fy)), (0, 1, (1 - fx) * fy), (1, 1, fx * fy)):
        column, row = corner[:, 0] + dx, corner[:, 1] + dy
        inside = (column >= 0) & (column < shape[1]) & (row >= 0) & (row < shape[0])
        np.add.at(canvas, (row * shape[1] + column)[inside], (share * weights)[inside])


def _canvas(settings: SimulationSettings) -> tuple[int, tuple[int, int]]:
    """Return the padding and the shape of a canvas on which nothing that the frame shows wraps around."""
    pad = int(np.ceil(1.1 * settings.diameter_px)) + 16
    ny, nx = (scipy.fft.next_fast_len(n + 2 * pad, real=True) for n in settings.shape)
    return pad, (ny, nx)


def _particle_centres(
    settings: SimulationSettings, pad: int, blocked: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.float64]:
    inset = pad + settings.smeared_border_px + settings.border * settings.diameter_px
    ny, nx = settings.shape
    low, high = (inset - 0.5, inset - 0.5), (2 * pad + nx - inset - 0.5, 2 * pad + ny - inset - 0.5)
    return place_centres(settings.n_particles, low, high, settings.min_distance * settings.diameter_px, blocked, rng)


def _visible(xy: NDArray[np.float64], settings: SimulationSettings) -> NDArray[np.float64]:
    """Return the centres that lie inside the frame, and inside its smeared border where there is one."""
    margin = settings.smeared_border_px - 0.5
    ny, nx = settings.shape
    inside = ((xy >= margin) & (xy <= np.array([nx, ny]) - 1 - margin)).all(axis=1)
    return np.ascontiguousarray(xy[inside])


def _unwanted_protein(
    settings: SimulationSettings,
    model: ParticleModel,
    canvas: tuple[int, int],
    pad: int,
    centres: NDArray[np.float64],
    rng: np.random.Generator,
) -> Image:
    """Project aggregates and fragments, which are protein but no particles, clear of the particles."""
    out = np.zeros(canvas, np.float32)
    if not settings.aggregates and not settings.debris:
        return out
    size = np.array([canvas[1], canvas[0]])
    diameter = settings.diameter_px
    for _ in range(settings.aggregates):
        n = int(rng.integers(6, 40))
        steps = rng.normal(scale=0.3 * diameter, size=(n, 2))
        clump = rng.uniform(0, size) + np.cumsum(steps, axis=0)
        out += project(model, _clear_of(clump, centres, 1.0 * diameter), settings, canvas, rng)
    if settings.debris:
        xy = _clear_of(rng.uniform(0, size, (settings.debris, 2)), centres, 0.65 * diameter)
        out += project(particle_model("globular"), xy, settings, canvas, rng, rng.uniform(0.2, 0.4, len(xy)))
    return out


def _clear_of(xy: NDArray[np.float64], centres: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
    if len(centres) == 0 or len(xy) == 0:
        return xy
    return np.asarray(xy[cKDTree(centres).query(xy)[0] >= distance])


def _finish(image: Image, settings: SimulationSettings, rng: np.random.Generator) -> Image:
    """Apply what detector and later filtering do to the counts."""
    if settings.hot_pixels:
        flat = rng.choice(image.size, min(settings.hot_pixels, image.size), replace=False)
        image.reshape(-1)[flat] += image.mean() * rng.uniform(1, 8, len(flat)).astype(np.float32)
    if settings.lowpass_A is not None or settings.highpass_A is not None:
        image = band_pass(image, settings.pixel_size_A, settings.lowpass_A, settings.highpass_A)
    if settings.smeared_border_px:
        edge = settings.smeared_border_px
        image = np.pad(image[edge:-edge, edge:-edge], edge, mode="edge")
    if settings.eight_bit:
        stretched = (image - image.mean()) / max(float(image.std()), 1e-12) * BITS_DEVIATION + BITS_MEAN
        image = np.clip(np.rint(stretched), 0, 255)
    return np.ascontiguousarray(image, np.float32)
