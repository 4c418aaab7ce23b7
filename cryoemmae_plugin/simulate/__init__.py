"""Micrographs with known answers, for the demo, the tests, training and thresholds.

Weak-phase physics: particles are projected clouds of Gaussian blobs in ice, seen through the contrast transfer function
of an underfocused microscope and counted by a detector. Protein is dark, as in raw micrographs.
"""

from cryoemmae_plugin.simulate.render import SimulatedMicrograph, simulate
from cryoemmae_plugin.simulate.scenes import Scene, demo_scenes, random_scene
from cryoemmae_plugin.simulate.settings import SimulationSettings
from cryoemmae_plugin.simulate.shapes import PARTICLE_SHAPES, ROUND_SHAPES
from cryoemmae_plugin.simulate.write import write_micrographs

__all__ = [
    "PARTICLE_SHAPES",
    "ROUND_SHAPES",
    "Scene",
    "SimulatedMicrograph",
    "SimulationSettings",
    "demo_scenes",
    "random_scene",
    "simulate",
    "write_micrographs",
]
