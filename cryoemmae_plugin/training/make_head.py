"""Make the head of a newly trained encoder: examine simulated micrographs, train on them, calibrate on others."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryoemmae_plugin.core.head import Head
from cryoemmae_plugin.core.model import PickingModel
from cryoemmae_plugin.training.checkpoint import HEAD_FILE
from cryoemmae_plugin.training.examples import FIRST_SEED, make_examples
from cryoemmae_plugin.training.head import HeadSettings, calibrate, mean_head, train_head
from cryoemmae_plugin.training.prepare import Stage, silent

EXAMINING, JUDGING = "Examining simulated micrographs", "Training the head on them"
"""The stages of :func:`make_head`."""


@dataclass(frozen=True)
class HeadPlan:
    """How the default mode's head is made.

    Attributes
    ----------
    scenes, held_out : int
        Simulated micrographs that it is trained on, and further ones on which its figure of merit is balanced.
    first_seed : int
        Of the scenes; one after the other follows.
    """

    scenes: int
    held_out: int
    settings: HeadSettings
    first_seed: int = FIRST_SEED


NEW_HEAD = HeadPlan(1600, 160, HeadSettings())
TUNED_HEAD = HeadPlan(80, 80, HeadSettings(steps=240, rate=1e-3), FIRST_SEED + 7000)
"""Where a head learns to read an encoder that was only trained further, on scenes that it has not seen yet. As they are
few, its weights end halfway between what they were and what these scenes make of them."""
BALANCED_ON = 600
"""Simulated micrographs on which the shipped head's figure of merit was balanced. Where a head is trained further, the
old balance and the new one count with their micrographs."""


def make_head(
    model: PickingModel,
    plan: HeadPlan,
    work: Path,
    start: Head | None = None,
    on_stage: Stage = silent,
    should_stop: Callable[[], bool] = lambda: False,
    scenes: Path | None = None,
) -> Head:
    """Train and balance the head that reads a model's tokens; goes on with what an earlier call has left in `work`.

    Raises
    ------
    Interrupted
        When `should_stop` says True.
    """
    seeds = range(plan.first_seed, plan.first_seed + plan.scenes + plan.held_out)
    examples = make_examples(
        model,
        seeds,
        work / "examples",
        progress=partial(on_stage, EXAMINING),
        should_stop=should_stop,
        scenes=scenes,
    )
    trained = train_head(
        examples[: plan.scenes],
        plan.settings,
        start=start,
        checkpoint=work / HEAD_FILE,
        progress=lambda done, total, loss: on_stage(JUDGING, done, total),
        should_stop=should_stop,
    )
    held_out = examples[plan.scenes :]
    if start is not None and start.embed_dim == trained.embed_dim:
        trained = calibrate(mean_head(start, trained), held_out)
        trained.calibration.lerp_(start.calibration, BALANCED_ON / (BALANCED_ON + plan.held_out))
    else:
        calibrate(trained, held_out)
    shutil.rmtree(work / "examples", ignore_errors=True)
    return trained
