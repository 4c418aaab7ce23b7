"""The scenes that the head is trained on: which kinds, how often, and how hard.

Alike things are particles, whatever their contrast; unlike things are not. So there are particles of every shape, faint
and strong, many and few, and junk of every kind beside them and alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cryoemmae_plugin.simulate import ROUND_SHAPES, SimulationSettings, random_scene

SIDES = (9.0, 22.0)
"""Least and greatest side of the micrographs, in particle diameters."""
DIAMETERS_PX, DIAMETERS_A = (30.0, 80.0), (80.0, 400.0)
PIXEL_SIZES_A = (0.5, 8.0)
MULTIDOMAIN_CHANCE = 1 / 3
"""Share of the scenes with particles of a shape of their own."""
GRAINS = (0.05, 0.7)
"""Grains of ice per squared particle diameter, where there is no other contamination."""
ROUND_DIAMETERS_A, ROUND_COVERAGES = (110.0, 600.0), (0.02, 0.7)
"""Of viruses, vesicles and other round particles."""
DENSE_CONTRASTS, HOLLOW_CONTRASTS = (0.2, 4.0), (0.35, 4.0)
"""Of them, faint to strong: those that are filled, and those that are not."""
HOLLOW = ("empty_capsid", "liposome")
FEW = (1, 3)
FEW_CONTRASTS = (1.0, 4.0)
"""Particles on a micrograph that shows few; they can be seen."""
CRYSTALLITES, SPECKS = (0.03, 2.0), (0.02, 0.5)
"""Of junk, per squared particle diameter."""

Drawn = dict[str, Any]
Kind = Callable[[np.random.Generator, Drawn], Drawn]


def training_scene(seed: int, sides: tuple[float, float] = SIDES) -> SimulationSettings:
    """Draw the scene of a seed, its sides within limits in particle diameters.

    The seed's remainder by the number of :data:`KINDS` tells its kind: of thirty, six are filtered and faint, five
    crowded, five show round particles of any contrast, two a few particles, one particles that are no blobs; six are
    full of contamination (some of these without a particle), four of ice, frost, gold and specks (three without), one
    is ice alone. Every third shows particles of a shape of its own, unless its kind says otherwise.
    """
    rng = np.random.default_rng(seed)
    diameter_px, diameter_A = (_log_uniform(rng, limits) for limits in (DIAMETERS_PX, DIAMETERS_A))
    fixed: Drawn = {
        "shape": tuple(int(side * diameter_px) for side in rng.uniform(*sides, 2)),
        "diameter_A": diameter_A,
        "pixel_size_A": float(np.clip(diameter_A / diameter_px, *PIXEL_SIZES_A)),
    }
    if rng.random() < MULTIDOMAIN_CHANCE:
        fixed["particle"] = "multidomain"
    return random_scene(rng, **(fixed | KINDS[seed % len(KINDS)](rng, fixed)))


def _filtered(rng: np.random.Generator, fixed: Drawn) -> Drawn:
    return {
        "contrast": float(rng.uniform(0.3, 0.9)),
        "coverage": float(rng.uniform(0.05, 0.6)),
        "min_distance": float(rng.choice([0.6, 0.8, 1.0])),
        "lowpass_A": float(fixed["diameter_A"] * rng.uniform(0.1, 0.35)),
        "highpass_A": float(fixed["diameter_A"] * rng.uniform(3, 8)),
        "eight_bit": True,
    }


def _crowded(rng: np.random.Generator, fixed: Drawn) -> Drawn:
    return {
        "coverage": float(rng.uniform(0.3, 0.8)),
        "min_distance": float(rng.choice([0.82, 0.95, 1.05])),
        "contrast": _log_uniform(rng, (0.35, 1.2)),
    }


def _contaminated(rng: np.random.Generator, fixed: Drawn) -> Drawn:
    return {
        "grains": int(rng.integers(5, 90)),
        "frost": int(rng.integers(0, 12)),
        "crystals": int(rng.integers(0, 6)),
        "aggregates": int(rng.integers(0, 6)),
        "web": float(rng.uniform(0.1, 0.9)) if rng.random() < 0.3 else 0.0,
    }


def _contaminated_only(rng: np.random.Generator, fixed: Drawn) -> Drawn:
    ice = "crystalline" if rng.random() < 0.25 else "vitreous"
    return _contaminated(rng, fixed) | {"n_particles": 0, "ice": ice}


def _grains(rng: np.random.Generator, fixed: Drawn) -> Drawn:
    drawn: Drawn = {"grains": _per_area(rng, fixed, GRAINS)}
    return drawn | ({"n_particles": 0, "ice": "vitreous"} if rng.random() < 0.5 else {})


def _ice_alone(rng: np.random.Generator, fixed: Drawn) -> Drawn:
    ice = str(rng.choice(["vitreous", "crystalline", "leopard"], p=[0.6, 0.2, 0.2]))
    return CLEAN | {"n_particles": 0, "ice": ice, "ice_thickness_A": _log_uniform(rng, (250, 4000))}


def _no_blobs(rng: np.random.Generator, fixed: Drawn) -> Drawn:
    return {"particle": str(rng.choice(["rod", "l_shape", "micelle", "ring"]))}


def _round(rng: np.random.Generator, fixed: Drawn) -> Drawn:
    """Viruses and the like, and a few proteins: larger than most, in ice that is thicker, of any contrast."""
    diameter_px = fixed["diameter_A"] / fixed["pixel_size_A"]
    diameter_A = float(np.clip(_log_uniform(rng, ROUND_DIAMETERS_A), None, PIXEL_SIZES_A[1] * diameter_px))
    particle = str(rng.choice(ROUND_SHAPES if rng.random() < 0.8 else ("multidomain", "two_subunits", "globular")))
    return {
        "particle": particle,
        "diameter_A": diameter_A,
        "pixel_size_A": diameter_A / diameter_px,
        "contrast": _log_uniform(rng, HOLLOW_CONTRASTS if particle in HOLLOW else DENSE_CONTRASTS),
        "coverage": _log_uniform(rng, ROUND_COVERAGES),
        "defocus_um": float(rng.choice([0.1, 1.0], p=[0.15, 0.85]) * rng.uniform(0.4, 3.5)),
        "amplitude_contrast": _log_uniform(rng, (0.07, 0.5)),
        "dose_e_A2": _log_uniform(rng, (15, 150)),
        "ice_thickness_A": diameter_A * float(rng.uniform(1.05, 2.0)),
    }


def _few(rng: np.random.Generator, fixed: Drawn) -> Drawn:
    """One to three particles that can be seen well, in ice that is mostly clean."""
    drawn = _round(rng, fixed) if rng.random() < 0.4 else {}
    drawn |= {"n_particles": int(rng.integers(FEW[0], FEW[1] + 1)), "border": 0.5}
    drawn |= {"contrast": _log_uniform(rng, FEW_CONTRASTS), "debris": 0, "aggregates": 0}
    drawn |= {"dose_e_A2": float(rng.uniform(35, 70)), "amplitude_contrast": _log_uniform(rng, (0.1, 0.5))}
    return drawn | (CLEAN if rng.random() < 0.7 else {})


def _junk(rng: np.random.Generator, fixed: Drawn) -> Drawn:
    """One or two kinds of what bad grids show: frost, specks, mottled ice, thick ice, gold, vesicles."""
    kinds: dict[str, Drawn] = {
        "frost": {"crystallites": _per_area(rng, fixed, CRYSTALLITES)},
        "specks": {"specks": _per_area(rng, fixed, SPECKS)},
        "mottled": {"ice": "leopard"},
        "crystalline": {"ice": "crystalline"},
        "thick": {"ice_thickness_A": float(rng.uniform(1200, 4500))},
        "gold": {"gold": int(rng.integers(3, 40))},
        "vesicles": {"vesicles": int(rng.integers(3, 20))},
    }
    chosen = rng.choice(list(kinds), int(rng.integers(1, 3)), replace=False, p=[0.22, 0.22, 0.2, 0.1, 0.12, 0.07, 0.07])
    drawn: Drawn = dict(CLEAN)
    for name in chosen:
        drawn |= kinds[str(name)]
    return drawn


def _junk_only(rng: np.random.Generator, fixed: Drawn) -> Drawn:
    return _junk(rng, fixed) | {"n_particles": 0}


def _per_area(rng: np.random.Generator, fixed: Drawn, density: tuple[float, float]) -> int:
    """Draw how many there are, given the limits of how many there are per squared particle diameter."""
    area = fixed["shape"][0] * fixed["shape"][1] * (fixed["pixel_size_A"] / fixed["diameter_A"]) ** 2
    return int(area * _log_uniform(rng, density))


def _log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))


CLEAN: Drawn = {
    **dict.fromkeys(("grains", "frost", "crystals", "aggregates", "debris"), 0),
    **dict.fromkeys(("crystallites", "specks", "vesicles", "gold"), 0),
    **dict.fromkeys(("web", "gap", "carbon", "foil"), 0.0),
}
"""Settings without junk."""
KINDS: tuple[Kind, ...] = (
    _contaminated_only, _filtered, _crowded, _ice_alone, _filtered, _contaminated, _crowded, _filtered, _grains,
    _crowded, _contaminated_only, _filtered, _crowded, _no_blobs, _filtered, _contaminated, _crowded, _filtered,
    _grains, _round, _few, _round, _junk_only, _round, _junk_only, _round, _few, _junk_only, _round, _junk,
)  # fmt: skip
"""The kind of scene of each remainder of the seed."""
