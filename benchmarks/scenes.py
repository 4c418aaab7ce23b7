"""The simulated scenes of the benchmark: 17 of every kind, and 8 of faint particles."""

from __future__ import annotations

from typing import Any

from cryoemmae_plugin.simulate import Scene, SimulationSettings
from cryoemmae_plugin.simulate.scenes import particles_for


def benchmark_scenes() -> list[Scene]:
    """Return the benchmark's scenes: shapes, sizes, crowding, optics, ice, junk, and frames without a particle."""
    fine = {"shape": (2048, 2048), "pixel_size_A": 1.5}
    coarse = {"shape": (1024, 1240), "pixel_size_A": 3.0}
    scenes: dict[str, dict[str, Any]] = {
        "sparse_multidomain_150": {**fine, "particle": "multidomain", "diameter_A": 150.0, "coverage": 0.06},
        "crowded_shell_120": {**fine, "particle": "shell", "diameter_A": 120.0, "coverage": 0.4, "min_distance": 1.0},
        "touching_tetramer_190": {**coarse, "particle": "tetramer", "diameter_A": 190.0, "coverage": 0.5,
                                  "min_distance": 0.82},
        "low_defocus_barrel_180": {**fine, "particle": "barrel", "diameter_A": 180.0, "coverage": 0.2,
                                   "defocus_um": 0.7},
        "high_defocus_rod_250": {**coarse, "particle": "rod", "diameter_A": 250.0, "coverage": 0.25, "defocus_um": 3.3},
        "thick_ice_globular_140": {**fine, "particle": "globular", "diameter_A": 140.0, "coverage": 0.15,
                                   "ice_thickness_A": 1500.0, "contrast": 0.85, "dose_e_A2": 30.0},
        "thin_ice_micelle_100": {**fine, "shape": (1440, 2048), "particle": "micelle", "diameter_A": 100.0,
                                 "coverage": 0.15, "ice_thickness_A": 200.0, "defocus_um": 2.2},
        "small_globular_80": {**fine, "shape": (1536, 1536), "particle": "globular", "diameter_A": 80.0,
                              "coverage": 0.15, "defocus_um": 2.2},
        "large_two_subunits_400": {**coarse, "particle": "two_subunits", "diameter_A": 400.0, "coverage": 0.25},
        "carbon_l_shape_220": {**coarse, "particle": "l_shape", "diameter_A": 220.0, "coverage": 0.2, "carbon": 0.3},
        "contamination_ring_240": {**coarse, "particle": "ring", "diameter_A": 240.0, "coverage": 0.2, "frost": 6,
                                   "crystals": 3, "aggregates": 3, "debris": 60},
        "filtered_tetramer_190": {**fine, "particle": "tetramer", "diameter_A": 190.0, "coverage": 0.3,
                                  "min_distance": 0.9, "lowpass_A": 50.0, "highpass_A": 900.0, "contrast": 0.6,
                                  "smeared_border_px": 56, "eight_bit": True},
        "trilobe_200": {**coarse, "particle": "trilobe", "diameter_A": 200.0, "coverage": 0.2, "hot_pixels": 40},
        "empty_ice": {**fine, "diameter_A": 150.0, "coverage": 0.0},
        "empty_contaminated": {**coarse, "diameter_A": 200.0, "coverage": 0.0, "frost": 14, "crystals": 4},
        "empty_crystalline": {**coarse, "diameter_A": 200.0, "coverage": 0.0, "ice": "crystalline"},
        "empty_carbon": {**coarse, "diameter_A": 200.0, "coverage": 0.0, "carbon": 1.0},
    }  # fmt: skip
    return [Scene(name, _with_coverage(values)) for name, values in scenes.items()]


def faint_scenes() -> list[Scene]:
    """Return scenes of particles so faint, as small proteins in thick ice are, that some are lost to any picker."""
    fine = {"shape": (1600, 1600), "pixel_size_A": 1.5}
    coarse = {"shape": (1000, 1240), "pixel_size_A": 3.0}
    scenes: dict[str, dict[str, Any]] = {
        "faint_globular_160": {**fine, "particle": "globular", "diameter_A": 160.0, "coverage": 0.2, "contrast": 0.42,
                               "ice_thickness_A": 900.0},
        "faint_tetramer_180": {**coarse, "particle": "tetramer", "diameter_A": 180.0, "coverage": 0.35,
                               "min_distance": 0.85, "contrast": 0.4},
        "faint_ring_200": {**coarse, "particle": "ring", "diameter_A": 200.0, "coverage": 0.25, "contrast": 0.5,
                           "frost": 3, "aggregates": 2, "debris": 40},
        "faint_barrel_190": {**fine, "particle": "barrel", "diameter_A": 190.0, "coverage": 0.3, "contrast": 0.4,
                             "lowpass_A": 30.0, "highpass_A": 900.0, "eight_bit": True},
        "faint_trilobe_210": {**coarse, "particle": "trilobe", "diameter_A": 210.0, "coverage": 0.2, "contrast": 0.5,
                              "grains": 10},
        "faint_micelle_120": {**fine, "particle": "micelle", "diameter_A": 120.0, "coverage": 0.2, "contrast": 0.7},
        "faint_rod_220": {**coarse, "particle": "rod", "diameter_A": 220.0, "coverage": 0.25, "contrast": 0.55,
                          "defocus_um": 2.0},
        "faint_multidomain_90": {**fine, "shape": (1200, 1200), "particle": "multidomain", "diameter_A": 90.0,
                                 "coverage": 0.3, "min_distance": 0.85, "contrast": 0.6},
    }  # fmt: skip
    return [Scene(name, _with_coverage(values)) for name, values in scenes.items()]


def _with_coverage(values: dict[str, Any]) -> SimulationSettings:
    values = dict(values)
    diameter_px = values["diameter_A"] / values["pixel_size_A"]
    count = particles_for(values.pop("coverage"), values["shape"], diameter_px)
    return SimulationSettings(**values, n_particles=count)
