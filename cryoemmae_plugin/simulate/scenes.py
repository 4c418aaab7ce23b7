"""Scenes: the demo's, and random ones for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cryoemmae_plugin.simulate.settings import SimulationSettings
from cryoemmae_plugin.simulate.shapes import PARTICLE_SHAPES


@dataclass(frozen=True)
class Scene:
    """A name and what it shows."""

    name: str
    settings: SimulationSettings


def particles_for(coverage: float, shape: tuple[int, int], diameter_px: float) -> int:
    """Return how many particle discs cover the fraction `coverage` of a frame of (ny, nx) pixels."""
    return round(coverage * shape[0] * shape[1] / (np.pi * diameter_px**2 / 4))


def random_scene(rng: np.random.Generator, **fixed: Any) -> SimulationSettings:
    """Draw a realistic scene, easy to hard and sometimes empty; `fixed` settings are kept as given.

    Parameters
    ----------
    **fixed
        Fields of :class:`SimulationSettings` that are not to be drawn, and `coverage`, the fraction of the frame that
        particles cover, in place of `n_particles`.

    Returns
    -------
    SimulationSettings
        The scene.
    """
    drawn = _random_particle(rng) | _random_exposure(rng) | _random_contamination(rng)
    diameter_A = drawn["diameter_A"]
    if rng.random() < 0.3:
        drawn |= _random_filter(rng, diameter_A)
    coverage = float(np.exp(rng.uniform(np.log(0.03), np.log(0.45))))
    drawn |= {"grains": int(_sometimes(rng, 0.25, 2, 50))}
    drawn |= {"web": _sometimes(rng, 0.06, 0.1, 0.6), "gap": _sometimes(rng, 0.08, 0.05, 0.3)}
    if rng.random() < 0.14:
        coverage = 0.0
        drawn["ice"] = str(rng.choice(["vitreous", "crystalline"]))
        drawn |= {"grains": int(_sometimes(rng, 0.6, 5, 80)), "web": _sometimes(rng, 0.25, 0.2, 0.9)}
    drawn |= _random_junk(rng, diameter_A, emptier=coverage == 0.0)
    if rng.random() < 0.2:
        drawn["amplitude_contrast"] = float(np.exp(rng.uniform(np.log(0.07), np.log(0.5))))
    drawn["size_spread"] = _sometimes(rng, 0.15, 0.01, 0.07)
    coverage = fixed.pop("coverage", coverage)
    drawn |= fixed
    if drawn["particle"] == "liposome" and "size_spread" not in fixed:
        drawn["size_spread"] = float(rng.uniform(0.02, 0.15))
    if "n_particles" not in drawn:
        drawn["n_particles"] = particles_for(coverage, drawn["shape"], drawn["diameter_A"] / drawn["pixel_size_A"])
    return SimulationSettings(**drawn)


def _random_particle(rng: np.random.Generator) -> dict[str, Any]:
    """Draw a frame, and the particle that is on it."""
    diameter_px = float(np.exp(rng.uniform(np.log(30), np.log(110))))
    diameter_A = float(np.exp(rng.uniform(np.log(80), np.log(400))))
    return {
        "shape": (int(rng.integers(640, 1500)), int(rng.integers(640, 1500))),
        "particle": str(rng.choice(PARTICLE_SHAPES)),
        "variant": int(rng.integers(0, 1000)),
        "diameter_A": diameter_A,
        "pixel_size_A": float(np.clip(diameter_A / diameter_px, 0.5, 8.0)),
        "min_distance": float(rng.choice([0.82, 0.95, 1.05, 1.3])),
        "contrast": float(np.exp(rng.uniform(np.log(0.5), np.log(1.5)))),
    }


def _random_exposure(rng: np.random.Generator) -> dict[str, Any]:
    """Draw the microscope's settings and the ice."""
    return {
        "defocus_um": float(rng.uniform(0.6, 3.2)),
        "astigmatism_um": float(rng.uniform(0, 0.06)),
        "voltage_kV": float(rng.choice([200.0, 300.0])),
        "b_factor_A2": float(rng.uniform(50, 300)),
        "dose_e_A2": float(rng.uniform(20, 60)),
        "ice_thickness_A": float(rng.uniform(250, 1200)),
        "ice_gradient": float(np.exp(rng.uniform(np.log(0.01), np.log(0.2)))),
    }


def _random_contamination(rng: np.random.Generator) -> dict[str, Any]:
    """Draw the carbon, the large contamination and the hot pixels of a scene."""
    return {
        "carbon": _sometimes(rng, 0.2, 0.05, 0.45),
        "frost": int(_sometimes(rng, 0.25, 1, 9)),
        "crystals": int(_sometimes(rng, 0.15, 1, 5)),
        "aggregates": int(_sometimes(rng, 0.2, 1, 5)),
        "debris": int(_sometimes(rng, 0.3, 10, 150)),
        "hot_pixels": int(_sometimes(rng, 0.3, 1, 60)),
    }


def _random_filter(rng: np.random.Generator, diameter_A: float) -> dict[str, Any]:
    """Draw what image processing has left of a micrograph: a band of frequencies, 8 bits, smeared borders."""
    return {
        "lowpass_A": float(diameter_A * rng.uniform(0.06, 0.26)),
        "eight_bit": True,
        "highpass_A": float(diameter_A * rng.uniform(3, 8)),
        "smeared_border_px": int(_sometimes(rng, 0.5, 8, 48)),
    }


def _random_junk(rng: np.random.Generator, diameter_A: float, *, emptier: bool) -> dict[str, Any]:
    """Draw the small junk, the gold and the mottles of a scene; `emptier` ones have more of it, and thicker ice."""
    often = 3.0 if emptier else 1.0
    drawn: dict[str, Any] = {
        "crystallites": int(_sometimes(rng, 0.07 * often, 5, 400 if emptier else 80)),
        "specks": int(_sometimes(rng, 0.15 * often, 2, 60 if emptier else 25)),
        "vesicles": int(_sometimes(rng, 0.05 * often, 1, 12)),
        "gold": int(_sometimes(rng, 0.05 * often, 1, 20)),
        "gold_A": float(np.clip(diameter_A * rng.choice([rng.uniform(0.1, 0.5), rng.uniform(1.8, 2.5)]), 30, 500)),
        "foil": _sometimes(rng, 0.05 * often, 0.05, 0.4),
    }
    if rng.random() < (0.3 if emptier else 0.08):
        drawn["ice"] = "leopard"
    if rng.random() < (0.3 if emptier else 0.05):
        drawn["ice_thickness_A"] = float(rng.uniform(1200, 4000))
    return drawn


def _sometimes(rng: np.random.Generator, probability: float, low: float, high: float) -> float:
    value = float(rng.uniform(low, high))
    return value if rng.random() < probability else 0.0


def demo_scenes() -> list[Scene]:
    """Return the demo's scenes, clear to moderate: six shapes, one frame not square, a carbon edge, contamination."""
    base = {
        "border": 0.7,
        "dose_e_A2": 50.0,
        "defocus_um": 2.0,
        "ice_thickness_A": 300.0,
        "min_distance": 1.15,
        "contrast": 1.15,
    }
    square = {"shape": (1200, 1200), "pixel_size_A": 2.5}
    scenes: dict[str, dict[str, Any]] = {
        "demo_globular": {**square, "particle": "two_subunits", "diameter_A": 200.0, "n_particles": 60},
        "demo_barrel": {**square, "particle": "barrel", "diameter_A": 180.0, "n_particles": 80},
        "demo_shell": {**square, "particle": "shell", "diameter_A": 130.0, "n_particles": 150, "pixel_size_A": 2.0},
        "demo_not_square": {"shape": (1024, 1440), "pixel_size_A": 2.2, "particle": "tetramer", "diameter_A": 180.0,
                            "n_particles": 80, "defocus_um": 2.4},
        "demo_carbon": {**square, "particle": "globular", "diameter_A": 160.0, "n_particles": 70, "carbon": 0.22},
        "demo_contamination": {**square, "particle": "ring", "diameter_A": 190.0, "n_particles": 60, "frost": 4,
                               "crystals": 2, "defocus_um": 2.2},
    }  # fmt: skip
    return [Scene(name, SimulationSettings(**{**base, **values})) for name, values in scenes.items()]
