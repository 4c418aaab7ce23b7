"""Protein in the specimen: particles, and the aggregates and fragments beside them, as projected phase."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from cryoemmae_plugin.simulate.model import ParticleModel, particle_model
from cryoemmae_plugin.simulate.settings import SimulationSettings

Image = NDArray[np.float32]

PROTEIN_IN_ICE_V = 1.4
"""Mean potential of a protein's volume above that of the ice it displaces, in volt: such that apoferritin at 300 kV
stands out from the noise as it does in published micrographs."""

INTERACTION_rad_per_VA = {200.0: 7.3e-4, 300.0: 6.5e-4}


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


def unwanted_protein(
    settings: SimulationSettings,
    model: ParticleModel,
    canvas: tuple[int, int],
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
