"""Fix the default mode's scorer on simulated micrographs, whose particles are known by construction.

No annotation of a real micrograph enters: what a particle's measurements look like, and where the best threshold
lies, is learned from simulated ones of many shapes, sizes and qualities, empty and contaminated ones among them.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from cryoemmae_plugin.core.condition import condition
from cryoemmae_plugin.core.default import GRID_DIAMETER_PX, LEAST_DISTANCE, drop_close, examine
from cryoemmae_plugin.core.model import PickingModel
from cryoemmae_plugin.core.scorer import Scorer
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.errors import Interrupted
from cryoemmae_plugin.simulate import SimulationSettings, random_scene, simulate

log = logging.getLogger(__name__)

SCENES = 80
FIRST_SEED = 40_000
HIT_RADIUS = 0.3
"""A candidate within this distance of a known centre, in diameters, and no other being nearer, is a particle."""
STEPS = 600
RATE = 0.02
WEIGHT_DECAY = 1e-3
WORTHLESS_PICKS = 20
"""An empty micrograph with so many picks is as bad as one whose particles were all missed."""


@dataclass(frozen=True)
class Example:
    """The candidates of one simulated micrograph, measured and labelled by construction.

    Attributes
    ----------
    measured : ndarray, shape (N, features)
    particle : ndarray, shape (N,), bool
    xy : ndarray, shape (N, 2)
        Grid positions.
    known : int
        Particles in the micrograph, found or not.
    """

    measured: NDArray[np.float32]
    particle: NDArray[np.bool_]
    xy: NDArray[np.float64]
    known: int


def calibration_scenes(count: int = SCENES, seed: int = FIRST_SEED) -> list[SimulationSettings]:
    """Draw the scenes that a scorer is fixed on: random ones, filtered faint crowded ones, and empty ones with junk."""
    rng = np.random.default_rng(seed)
    kinds = (_any_scene, _filtered_scene, _any_scene, _filtered_scene, _empty_scene)
    return [kinds[at % len(kinds)](rng) for at in range(count)]


def _any_scene(rng: np.random.Generator) -> SimulationSettings:
    return random_scene(rng)


def _filtered_scene(rng: np.random.Generator) -> SimulationSettings:
    """Band-passed and faint, as micrographs are often published."""
    diameter_A = float(np.exp(rng.uniform(np.log(100), np.log(300))))
    return random_scene(
        rng,
        diameter_A=diameter_A,
        contrast=float(rng.uniform(0.3, 0.9)),
        coverage=float(rng.uniform(0.05, 0.45)),
        min_distance=float(rng.choice([0.6, 0.8, 1.0])),
        lowpass_A=float(diameter_A * rng.uniform(0.1, 0.35)),
        highpass_A=float(diameter_A * rng.uniform(3, 8)),
        eight_bit=True,
    )


def _empty_scene(rng: np.random.Generator) -> SimulationSettings:
    """No particle; ice alone, crystalline ice, or contamination of any size."""
    junk = {
        "frost": int(rng.integers(0, 35)),
        "crystals": int(rng.integers(0, 12)),
        "aggregates": int(rng.integers(0, 10)),
    }
    if rng.random() < 0.25:
        junk = {"frost": 0, "crystals": 0, "aggregates": 0}
    ice = "crystalline" if rng.random() < 0.2 else "vitreous"
    return random_scene(rng, n_particles=0, ice=ice, **junk)


def make_examples(
    model: PickingModel,
    scenes: Sequence[SimulationSettings],
    seed: int = FIRST_SEED,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Example]:
    """Simulate, examine and label; see :class:`Example`. `progress` hears of every scene: done, and of how many.

    Raises
    ------
    Interrupted
        As soon as `should_stop`, asked before each scene, says so.
    """
    examples = []
    for at, scene in enumerate(scenes):
        if should_stop():
            raise Interrupted("stopped while the scorer was being fixed; run the same command again to go on")
        micrograph = simulate(scene, seed + at)
        with torch.inference_mode():
            conditioned = condition(torch.from_numpy(micrograph.image), micrograph.diameter_px, GRID_DIAMETER_PX)
            candidates, measured = examine(conditioned, model, StepTimer())
        known = conditioned.frame.to_grid(micrograph.xy)
        particle = label(candidates.xy, known, HIT_RADIUS * GRID_DIAMETER_PX)
        examples.append(Example(measured, particle, candidates.xy, len(known)))
        progress(at + 1, len(scenes))
    return examples


def label(candidates: NDArray[np.float64], known: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    """Tell which candidates (N, 2) are particles: one to one with the known centres (M, 2), within `radius`."""
    particle = np.zeros(len(candidates), bool)
    if len(candidates) and len(known):
        distance = cdist(candidates, known)
        rows, columns = linear_sum_assignment(np.minimum(distance, radius))
        particle[rows[distance[rows, columns] < radius]] = True
    return particle


def fit_scorer(examples: Sequence[Example], seed: int = 0) -> Scorer:
    """Fit a scorer to labelled candidates, then shift it so that 0.5 is the best threshold."""
    measured = torch.from_numpy(np.concatenate([e.measured for e in examples])).double()
    target = torch.from_numpy(np.concatenate([e.particle for e in examples])).double()
    weight = torch.cat([torch.full((len(e.measured),), max(e.known, 20) ** -0.5).double() for e in examples])
    generator_state = torch.get_rng_state()
    torch.manual_seed(seed)
    scorer = Scorer(measured.shape[1]).double()
    torch.set_rng_state(generator_state)
    scorer.centre.copy_(measured.mean(0))
    scorer.scale.copy_(measured.std(0).clamp(min=1e-6))
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scorer(measured), target, weight=weight)
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return balance(scorer.eval(), examples)


def balance(scorer: Scorer, examples: Sequence[Example]) -> Scorer:
    """Shift the scorer's log-odds so that 0.5 is the best threshold over all examples.

    Best is the mean over micrographs of F1; an empty one counts 1 without a pick, less with some, 0 from
    `WORTHLESS_PICKS` on.
    """
    grid = np.linspace(0.05, 0.95, 91)
    values = []
    for example in examples:
        score = scorer.score(example.measured)
        keep = drop_close(example.xy, score, LEAST_DISTANCE * GRID_DIAMETER_PX)
        values.append([_worth(example, keep[score[keep] >= threshold]) for threshold in grid])
    mean = np.convolve(np.mean(values, axis=0), np.ones(5) / 5, mode="same")
    best = float(grid[2 + int(mean[2:-2].argmax())])
    balanced = copy.deepcopy(scorer)
    last = balanced.layers[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.bias.sub_(float(np.log(best / (1 - best))))
    return balanced


def _worth(example: Example, picked: NDArray[np.intp]) -> float:
    """F1 of some picks of a micrograph; see :func:`balance` for an empty one."""
    if not example.known:
        return max(0.0, 1 - len(picked) / WORTHLESS_PICKS)
    return 2 * float(example.particle[picked].sum()) / (len(picked) + example.known)
