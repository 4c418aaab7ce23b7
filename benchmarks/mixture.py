"""Simulate a micrograph with particles of several sizes, as in a cell extract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.simulate.model import particle_model
from cryoemmae_plugin.simulate.place import place_centres
from cryoemmae_plugin.simulate.render import Image, blurred, canvas_of, show, visible
from cryoemmae_plugin.simulate.settings import SimulationSettings
from cryoemmae_plugin.simulate.shapes import ParticleShape
from cryoemmae_plugin.simulate.specimen import project
from cryoemmae_plugin.simulate.surroundings import surroundings


@dataclass(frozen=True)
class Species:
    """One kind of particle: its shape, diameter in Å, and how many to place."""

    particle: ParticleShape
    diameter_A: float
    n_particles: int
    variant: int = 0


@dataclass(frozen=True)
class Mixture:
    """A micrograph with known answers.

    Attributes
    ----------
    image : ndarray, shape (ny, nx), float32
        As of :class:`cryoemmae_plugin.simulate.render.SimulatedMicrograph`.
    xy : tuple of ndarray, shape (N, 2)
        Centres of the particles of each species inside the frame.
    species : tuple of Species
    pixel_size_A : float
    """

    image: Image
    xy: tuple[NDArray[np.float64], ...]
    species: tuple[Species, ...]
    pixel_size_A: float


def simulate_mixture(settings: SimulationSettings, species: Sequence[Species], seed: int) -> Mixture:
    """Simulate a micrograph with several species. The same arguments give the same image.

    Parameters
    ----------
    settings : SimulationSettings
        The scene. Its own particle, diameter and number do not count; `min_distance` is the least distance of two
        particles' centres, in the mean of their diameters.
    species : sequence of Species
        What to place, the largest first.
    seed : int
        Seed of everything random.
    """
    place, specimen, detector = (np.random.default_rng([seed, part]) for part in range(3))
    ordered = sorted(species, key=lambda one: -one.diameter_A)
    scenes = [_scene_of(settings, one) for one in ordered]
    pad, canvas = canvas_of(scenes[0])
    around = surroundings(scenes[0], canvas, specimen)
    spectrum = None
    taken: list[tuple[NDArray[np.float64], float]] = []
    for one, scene in zip(ordered, scenes, strict=True):
        blocked = around.blocked | _too_close(taken, scene, canvas)
        inset = pad + settings.border * scene.diameter_px - 0.5
        ny, nx = settings.shape
        high = (2 * pad + nx - 1 - inset, 2 * pad + ny - 1 - inset)
        least = settings.min_distance * scene.diameter_px
        centres = place_centres(one.n_particles, (inset, inset), high, least, blocked, place)
        taken.append((centres, scene.diameter_px))
        protein = project(particle_model(one.particle, one.variant), centres, scene, canvas, place)
        spectrum = blurred(protein, scene) if spectrum is None else spectrum + blurred(protein, scene)
    assert spectrum is not None
    image = show(spectrum, scenes[0], around, pad, specimen, detector)
    xy = tuple(visible(centres - pad, settings) for centres, _ in taken)
    return Mixture(image, xy, tuple(ordered), settings.pixel_size_A)


def _scene_of(settings: SimulationSettings, one: Species) -> SimulationSettings:
    fields = {"particle": one.particle, "diameter_A": one.diameter_A, "variant": one.variant}
    return settings.model_copy(update=fields)


def _too_close(
    taken: Sequence[tuple[NDArray[np.float64], float]], scene: SimulationSettings, canvas: tuple[int, int]
) -> NDArray[np.bool_]:
    """Pixels too close to particles that are there already."""
    blocked = np.zeros(canvas, bool)
    for centres, diameter_px in taken:
        reach = _reach(scene, diameter_px)
        for x, y in centres:
            low = np.maximum(np.floor([y - reach, x - reach]).astype(int), 0)
            rows, columns = np.ogrid[low[0] : int(y + reach) + 1, low[1] : int(x + reach) + 1]
            part = blocked[low[0] : int(y + reach) + 1, low[1] : int(x + reach) + 1]
            part |= ((columns - x) ** 2 + (rows - y) ** 2 < reach**2)[: part.shape[0], : part.shape[1]]
    return blocked


def _reach(scene: SimulationSettings, diameter_px: float) -> float:
    """Least distance of two particles of different species, in pixels."""
    return scene.min_distance * (scene.diameter_px + diameter_px) / 2
