"""Particles as clouds of Gaussian blobs, centred and of diameter 1."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from cryoemmae_plugin.simulate.shapes import DENSITIES, PARTICLE_SHAPES, ROUND_SHAPES, ParticleShape, Points

N_BLOBS = 1200
N_ROUND_BLOBS = 5000
"""Of round shapes: what is even or thin must not look grainy."""
ROUND_TEXTURE = 0.25
"""Strength of the internal texture of round shapes, relative to that of the others."""
BLOB_SIGMA = 0.016
"""Standard deviation of a blob, in particle diameters."""


@dataclass(frozen=True)
class ParticleModel:
    """A particle of diameter 1, centred: the origin is its minimal bounding sphere's centre and its centre of mass.

    The diameter is that of the minimal bounding sphere of the blobs' centres.

    Attributes
    ----------
    points : ndarray, shape (M, 3), float64
        Blob centres in diameters.
    weights : ndarray, shape (M,), float64
        Volume that each blob stands for, times its density relative to protein, in diameters³.
    """

    points: Points
    weights: NDArray[np.float64]


@lru_cache(maxsize=64)
def particle_model(shape: ParticleShape, variant: int = 0) -> ParticleModel:
    """Build the model of a shape; `variant` selects its internal texture and, for irregular shapes, its form."""
    rng = np.random.default_rng([PARTICLE_SHAPES.index(shape), variant])
    state = rng.bit_generator.state
    probe = _cube(4 * N_BLOBS, np.random.default_rng(0))
    filled = float(np.mean(DENSITIES[shape](probe, rng) != 0))
    rng.bit_generator.state = state
    is_round = shape in ROUND_SHAPES
    n_cube = int((N_ROUND_BLOBS if is_round else N_BLOBS) / max(filled, 0.01))
    points = _cube(n_cube, np.random.default_rng(variant))
    density = DENSITIES[shape](points, rng)
    inside = density != 0
    points, density = points[inside], density[inside]
    density = density * _texture(points, rng) ** (ROUND_TEXTURE if is_round else 1.0)
    centre, radius = _bounding_sphere(points)
    points = (points - centre) / (2 * radius)
    weights = _balanced(points, density) / n_cube / radius**3
    points.flags.writeable = weights.flags.writeable = False
    return ParticleModel(points, weights)


def _cube(count: int, rng: np.random.Generator) -> Points:
    """Return points (count, 3) that fill the cube from -1 to 1 more evenly than random ones.

    Half a spacing of jitter keeps the sequence's lattice from showing in projections.
    """
    from scipy.stats import qmc  # takes a second to import

    even = 2 * ((qmc.Halton(3, scramble=False).random(count) + rng.random(3)) % 1) - 1
    return np.asarray(even + rng.normal(scale=0.5 * 2 / count ** (1 / 3), size=even.shape))


def _bounding_sphere(points: Points) -> tuple[NDArray[np.float64], float]:
    """Return centre and radius of the smallest sphere that holds all points (Bădoiu and Clarkson's iteration)."""
    centre = points.mean(axis=0)
    points = points[ConvexHull(points).vertices]
    for step in range(1, 2000):
        farthest = points[np.argmax(((points - centre) ** 2).sum(axis=1))]
        centre = centre + (farthest - centre) / (step + 1)
    return centre, float(np.linalg.norm(points - centre, axis=1).max())


def _balanced(points: Points, density: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight the density by exp(t · point) so that its centre of mass is the origin; Newton's method finds t."""
    tilt = np.zeros(3)
    for _ in range(50):
        weights = density * np.exp(points @ tilt)
        moments = (points * weights[:, None]).T @ points
        step = np.linalg.solve(moments, weights @ points)
        tilt = tilt - step * min(1.0, 2.0 / max(float(np.linalg.norm(step)), 1e-300))
    balanced = density * np.exp(points @ tilt)
    return np.asarray(balanced * density.sum() / balanced.sum())


def _texture(points: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a density around 1 that varies inside the particle, as domains and secondary structure do."""
    waves = rng.normal(scale=np.geomspace(3.0, 15.0, 12)[:, None], size=(12, 3))
    phases = rng.uniform(0, 2 * np.pi, 12)
    return np.asarray(np.clip(1 + 0.16 * np.cos(points @ waves.T + phases).sum(axis=1), 0.15, None))
