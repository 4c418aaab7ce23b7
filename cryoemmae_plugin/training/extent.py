"""Fix the network that tells a particle's extent from its average blob, on simulated micrographs.

No annotation of a real micrograph enters. Random scenes are looked at as `--diameter auto` looks at micrographs, at
sizes from much smaller to much larger than the particle, whose diameter is known by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cryoemmae_plugin.core.blobs import average_blobs
from cryoemmae_plugin.core.extent import FARTHEST, ExtentNetwork, measure_profile
from cryoemmae_plugin.core.sizes import make_levels
from cryoemmae_plugin.simulate import random_scene, simulate

FIRST_SEED = 300_000
SCENES = 800
"""Scenes that the shipped constants were fixed on, one seed after the other."""
SIZES_PER_SCENE = 8
LOG_SIZES = (-1.0, 0.6)
"""Smallest and largest size that a scene is looked at, as logarithm of its share of the particle's diameter."""
LEAST_BLOBS = 8
"""Averages of fewer blobs are not learned from."""
FULL_BLOBS = 40
"""Averages of fewer count for less."""
NETWORKS, UNITS = 6, 16
STEPS, RATE, WEIGHT_DECAY = 300, 5e-3, 3e-2
NOISE = 0.3
"""Noise on the measurements while the network learns, in their deviations: against learning by heart."""
TOLERANCE = 0.1
"""Errors beyond this (logarithm) count in proportion, smaller ones less."""


@dataclass(frozen=True)
class Example:
    """One average blob: its measurements, the logarithm of diameter over size, and how much it counts."""

    measured: NDArray[np.float64]
    log_ratio: float
    weight: float


def examples_of_scene(seed: int) -> list[Example]:
    """Simulate one random scene with particles, and look at it at several sizes."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(640, 1100)), int(rng.integers(640, 1100)))
    coverage = float(np.exp(rng.uniform(np.log(0.05), np.log(0.45))))
    micrograph = simulate(random_scene(rng, shape=shape, coverage=coverage), seed)
    levels = make_levels(micrograph.image, micrograph.pixel_size_A)
    examples = []
    for log_size in np.linspace(*LOG_SIZES, SIZES_PER_SCENE) + rng.uniform(-0.1, 0.1, SIZES_PER_SCENE):
        profile = average_blobs(levels, micrograph.diameter_A * float(np.exp(log_size)))
        if profile is None or profile.blobs < LEAST_BLOBS:
            continue
        measured = measure_profile(profile)
        if measured is not None:
            examples.append(Example(measured, -float(log_size), min(1.0, profile.blobs / FULL_BLOBS)))
    return examples


def fit_extent(examples: Sequence[Example], seed: int = 0) -> ExtentNetwork:
    """Fit perceptrons to the examples, each from another start; their mean is the network's answer."""
    measured = np.array([example.measured for example in examples])
    low, centre, high = np.quantile(measured, [0.16, 0.5, 0.84], axis=0)
    scale = np.maximum((high - low) / 2, 1e-6)
    standard = torch.from_numpy(((measured - centre) / scale).clip(-FARTHEST, FARTHEST)).float()
    target = torch.tensor([example.log_ratio for example in examples])
    weight = torch.tensor([example.weight for example in examples])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = [_fit_one(standard, target, weight) for _ in range(NETWORKS)]
    arrays = {name: np.stack([network[name] for network in networks]) for name in networks[0]}
    return ExtentNetwork({"centre": centre, "scale": scale} | arrays)


def _fit_one(standard: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> dict[str, NDArray[np.float32]]:
    first, last = nn.Linear(standard.shape[1], UNITS), nn.Linear(UNITS, 1)
    network = nn.Sequential(first, nn.Tanh(), last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        answer = network(standard + NOISE * torch.randn_like(standard))[:, 0]
        loss = (weight * nn.functional.smooth_l1_loss(answer, target, beta=TOLERANCE, reduction="none")).mean()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    named = {"hidden": first.weight, "hidden_bias": first.bias, "out": last.weight[0], "out_bias": last.bias[0]}
    return {name: tensor.detach().numpy().copy() for name, tensor in named.items()}
