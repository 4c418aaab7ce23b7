"""Simulate one micrograph: specimen, optics, detector, look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryoemmae_plugin.simulate.model import BLOB_SIGMA, particle_model
from cryoemmae_plugin.simulate.obstacles import Surroundings
from cryoemmae_plugin.simulate.optics import band_pass, contrast_transfer, expose, frequencies, ice_noise
from cryoemmae_plugin.simulate.place import place_centres
from cryoemmae_plugin.simulate.settings import SimulationSettings
from cryoemmae_plugin.simulate.specimen import project, unwanted_protein
from cryoemmae_plugin.simulate.surroundings import surroundings

Image = NDArray[np.float32]

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
        Diameter of the bounding sphere (the typical one where sizes vary), and size of a pixel.
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

    Returns
    -------
    SimulatedMicrograph
        Image and true coordinates.
    """
    place, specimen, detector = (np.random.default_rng([seed, part]) for part in range(3))
    pad, canvas = canvas_of(settings)
    around = surroundings(settings, canvas, specimen)
    centres = _particle_centres(settings, pad, around.blocked, place)
    model = particle_model(settings.particle, settings.variant)
    protein = project(model, centres, settings, canvas, place, _sizes(settings, len(centres), place))
    protein += unwanted_protein(settings, model, canvas, centres, place)

    image = show(blurred(protein, settings), settings, around, pad, specimen, detector)
    xy = visible(centres - pad, settings)
    return SimulatedMicrograph(image, xy, settings.diameter_A, settings.pixel_size_A, settings, seed)


def blurred(protein: Image, settings: SimulationSettings) -> NDArray[np.complex64]:
    """Spectrum of projected particles (rows, columns), with the Gaussian width of their blobs."""
    spectrum: NDArray[np.complex64] = scipy.fft.rfft2(protein)
    k = frequencies(protein.shape, settings.pixel_size_A)
    spectrum *= np.exp(-2 * (np.pi * BLOB_SIGMA * settings.diameter_A * k) ** 2)
    return spectrum


def show(
    spectrum: NDArray[np.complex64],
    settings: SimulationSettings,
    around: Surroundings,
    pad: int,
    specimen: np.random.Generator,
    detector: np.random.Generator,
) -> Image:
    """See projected protein, in ice and with its surroundings, through the optics and the detector."""
    canvas = around.phase.shape
    background = around.phase
    if settings.noise:
        background = background + around.graininess * ice_noise(settings, canvas, specimen)
    if background.any():
        spectrum += scipy.fft.rfft2(background)
    contrast = scipy.fft.irfft2(spectrum * contrast_transfer(settings, canvas), s=canvas)
    frame = (slice(pad, pad + settings.shape[0]), slice(pad, pad + settings.shape[1]))
    intensity = around.transmission[frame] * (1 - 2 * contrast[frame])
    return _finish(expose(intensity, settings, detector), settings, detector)


def canvas_of(settings: SimulationSettings) -> tuple[int, tuple[int, int]]:
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


def _sizes(settings: SimulationSettings, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the particles' sizes relative to the settings' diameter; draws nothing where all are of one size."""
    if not settings.size_spread:
        return np.ones(count)
    return np.asarray(np.exp(rng.normal(scale=settings.size_spread, size=count)).clip(0.5, 1.5))


def visible(xy: NDArray[np.float64], settings: SimulationSettings) -> NDArray[np.float64]:
    """Return the centres that lie inside the frame, and inside its smeared border where there is one."""
    margin = settings.smeared_border_px - 0.5
    ny, nx = settings.shape
    inside = ((xy >= margin) & (xy <= np.array([nx, ny]) - 1 - margin)).all(axis=1)
    return np.ascontiguousarray(xy[inside])


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
