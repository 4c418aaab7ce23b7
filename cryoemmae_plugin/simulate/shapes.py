"""The shapes of particles that cryo-EM meets, as densities in a cube."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

ParticleShape = Literal[
    "globular",
    "shell",
    "rod",
    "barrel",
    "trilobe",
    "ring",
    "l_shape",
    "tetramer",
    "micelle",
    "two_subunits",
    "multidomain",
    "sphere",
    "full_capsid",
    "empty_capsid",
    "cored_shell",
    "liposome",
    "spiked_capsid",
]
PARTICLE_SHAPES: tuple[ParticleShape, ...] = get_args(ParticleShape)

ROUND_SHAPES: tuple[ParticleShape, ...] = (
    "sphere",
    "full_capsid",
    "empty_capsid",
    "cored_shell",
    "liposome",
    "spiked_capsid",
)
"""Those that look the same from all sides, or nearly so."""

Points = NDArray[np.float64]
Density = Callable[[Points, np.random.Generator], NDArray[np.float64]]


def _capsule(points: Points, start: tuple[float, ...], end: tuple[float, ...], radius: float) -> NDArray[np.bool_]:
    a, b = np.asarray(start), np.asarray(end)
    along = np.clip((points - a) @ (b - a) / np.sum((b - a) ** 2), 0, 1)
    return np.asarray(np.linalg.norm(points - a - along[:, None] * (b - a), axis=1) < radius)


def _ball(points: Points, centre: tuple[float, ...], radii: tuple[float, ...]) -> NDArray[np.bool_]:
    return np.asarray((((points - np.asarray(centre)) / np.asarray(radii)) ** 2).sum(axis=1) < 1)


def _globular(p: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    bumps = rng.normal(size=(8, 3))
    radius = 0.78 + 0.07 * np.sin(2.2 * p @ bumps.T + rng.uniform(0, 6, 8)).sum(axis=1) / 1.6
    return np.asarray(np.linalg.norm(p * [1.0, 1.08, 1.18], axis=1) < radius, float)


def _shell(p: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    r = np.linalg.norm(p, axis=1)
    return np.asarray((r < 1) & (r > 0.66), float)


def _rod(p: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    return _capsule(p, (0, 0, -0.76), (0, 0, 0.76), 0.2).astype(float)


def _barrel(p: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    rho, z = np.hypot(p[:, 0], p[:, 1]), np.abs(p[:, 2])
    wall = (rho < 0.56) & (rho > 0.14) & (z < 0.78)
    chambers = _ball(p, (0, 0, 0), (0.27, 0.27, 0.2)) | _ball(np.abs(p), (0, 0, 0.42), (0.24, 0.24, 0.14))
    layers = np.where(np.abs(np.mod(z + 0.2, 0.4) - 0.2) < 0.17, 1.0, 0.55)
    return np.asarray((wall & ~chambers) * layers, float)


def _trilobe(p: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    angles = np.deg2rad([90, 210, 330])
    lobes = [_capsule(p, (0, 0, 0), (0.7 * np.cos(a), 0.7 * np.sin(a), 0.04), 0.28) for a in angles]
    return np.asarray(np.any(lobes, axis=0), float)


def _ring(p: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    rho = np.hypot(p[:, 0], p[:, 1])
    subunits = 1 + 0.25 * np.cos(8 * np.arctan2(p[:, 1], p[:, 0]))
    return np.asarray((np.hypot(rho - 0.68, p[:, 2]) < 0.3) * subunits, float)


def _l_shape(p: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    long_arm = _capsule(p, (0, -0.6, 0), (0, 0.45, 0), 0.27) | _ball(p, (0.04, 0.52, 0), (0.38, 0.4, 0.34))
    short_arm = _capsule(p, (0, -0.6, 0), (0.42, -0.55, 0.05), 0.27)
    return np.asarray(long_arm | short_arm, float)


def _tetramer(p: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    subunits = np.zeros(len(p), bool)
    for sx, sy in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        local = p * [sx, sy, sx * sy]  # the two-fold axes along x, y and z carry one subunit onto the others: D2
        subunits |= _ball(local, (0.42, 0.27, 0.07), (0.48, 0.34, 0.36))
        subunits |= _ball(local, (0.2, 0.16, 0.2), (0.25, 0.22, 0.2))
    return subunits.astype(float)


def _micelle(p: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    protein = _capsule(p, (0, 0, -0.55), (0, 0, 0.75), 0.26) | _ball(p, (0.1, 0, 0.72), (0.36, 0.3, 0.24))
    belt = _ball(p, (0, 0, -0.1), (0.85, 0.85, 0.46))
    tails = _ball(p, (0, 0, -0.1), (0.7, 0.7, 0.31))
    return np.where(protein, 1.1, np.where(tails, -0.22, np.where(belt, 0.5, 0.0)))


def _two_subunits(p: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    large = _ball(p, (0, -0.2, 0), (0.8, 0.6, 0.72)) | _capsule(p, (0.5, -0.2, 0), (0.85, 0.1, 0.1), 0.13)
    small = _ball(p, (0.05, 0.6, 0.05), (0.62, 0.3, 0.5))
    groove = np.abs(p[:, 1] - 0.36) < 0.05
    return np.where((large | small) & ~groove, np.where(small, 1.2, 1.5), 0.0)


def _multidomain(p: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    n = int(rng.integers(4, 9))
    centres = [np.zeros(3)]
    for _ in range(n - 1):
        step = rng.normal(size=3)
        centres.append(centres[rng.integers(len(centres))] + 0.34 * step / np.linalg.norm(step))
    middle = np.mean(centres, axis=0)
    domains = np.zeros(len(p), bool)
    for centre in centres:
        domains |= _ball(p, tuple((centre - middle) * 0.8), tuple(rng.uniform(0.17, 0.32, 3)))
    return domains.astype(float)


def _sphere(p: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a ball, denser or thinner towards its middle, or one whose projection is an even disc."""
    profile = rng.choice([-0.5, 0.0, 0.0, 0.5, 1.0])  # the first one projects to an even disc
    depth = 1 - (p**2).sum(axis=1)
    return np.where(depth > 0.02, np.maximum(depth, 0.02) ** profile, 0.0)


GOLDEN = (1 + 5**0.5) / 2
ICOSAHEDRON_FACES = np.array(
    [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    + [np.roll((0, y / GOLDEN, z * GOLDEN), turn) for y in (-1, 1) for z in (-1, 1) for turn in range(3)]
) / np.sqrt(3)  # fmt: skip
"""Normals of its 20 faces."""
ICOSAHEDRON_INSPHERE = 0.795
"""Radius of the sphere that touches its faces, over that of the one through its corners."""


def _capsid_radius(p: Points, faceted: float) -> NDArray[np.float64]:
    """Return the distance from the middle in units of the capsid's radius there: from sphere (0) to icosahedron (1)."""
    flat = (p @ ICOSAHEDRON_FACES.T).max(axis=1) / ICOSAHEDRON_INSPHERE
    return np.asarray((1 - faceted) * np.linalg.norm(p, axis=1) + faceted * flat)


def _capsomers(p: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a density around 1 that varies along a capsid's surface."""
    waves = rng.normal(size=(12, 3))
    waves *= rng.uniform(10, 22) / np.linalg.norm(waves, axis=1, keepdims=True)
    return np.asarray(1 + 0.12 * np.cos(p @ waves.T + rng.uniform(0, 6, 12)).sum(axis=1)).clip(0.3, 1.7)


def _full_capsid(p: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a virus with its genome: a protein shell, a gap, and a core that is denser or thinner than protein."""
    r = _capsid_radius(p, rng.uniform(0, 0.9))
    shell, gap, core = rng.uniform(0.08, 0.2), rng.uniform(0.0, 0.05), rng.uniform(0.6, 1.7)
    wall = ((r < 1) & (r > 1 - shell)) * _capsomers(p, rng)
    return np.asarray(wall + core * (r < 1 - shell - gap), float)


def _empty_capsid(p: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    r = _capsid_radius(p, rng.uniform(0, 0.9))
    return np.asarray(((r < 1) & (r > 1 - rng.uniform(0.08, 0.24))) * _capsomers(p, rng), float)


def _cored_shell(p: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return ferritin with its mineral: a protein shell around a small core that is much denser."""
    r = np.linalg.norm(p, axis=1)
    core = rng.uniform(0.35, 0.62)
    return np.asarray(((r < 1) & (r > 0.66)) + rng.uniform(1.5, 5) * (r < core), float)


def _liposome(p: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a vesicle: a membrane of two leaflets around buffer."""
    r, thickness = np.linalg.norm(p, axis=1), rng.uniform(0.09, 0.2)
    depth = (1 - r) / thickness
    membrane = np.where((depth > 0) & (depth < 1), np.where(np.abs(depth - 0.5) < 0.22, 0.1, 1.1), 0.0)
    return np.asarray(membrane, float)


def _spiked_capsid(p: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a virus whose spikes reach the diameter: a ball or a shell, and thin spikes that stand on it."""
    r, body, filled = np.linalg.norm(p, axis=1), rng.uniform(0.6, 0.85), rng.uniform(0, 1.2)
    axes = rng.normal(size=(int(rng.integers(12, 50)), 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    along = p @ axes.T
    off = np.sqrt((r[:, None] ** 2 - along**2).clip(0))
    spikes = ((off < rng.uniform(0.05, 0.11)) & (along > 0)).any(axis=1) & (r >= body) & (r < 1)
    shell = (r < body) & (r > body - 0.14)
    return np.asarray(shell + filled * (r <= body - 0.14) + spikes, float)


DENSITIES: dict[ParticleShape, Density] = {
    "globular": _globular,
    "shell": _shell,
    "rod": _rod,
    "barrel": _barrel,
    "trilobe": _trilobe,
    "ring": _ring,
    "l_shape": _l_shape,
    "tetramer": _tetramer,
    "micelle": _micelle,
    "two_subunits": _two_subunits,
    "multidomain": _multidomain,
    "sphere": _sphere,
    "full_capsid": _full_capsid,
    "empty_capsid": _empty_capsid,
    "cored_shell": _cored_shell,
    "liposome": _liposome,
    "spiked_capsid": _spiked_capsid,
}
"""Density of each shape relative to protein at points (M, 3) of the cube from -1 to 1; 0 outside the particle."""
