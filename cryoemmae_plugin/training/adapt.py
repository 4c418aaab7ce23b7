"""Make a head familiar with the data set at hand, without a label.

It has been trained on particles and noise of all kinds; a data set shows one kind of each. What it picks there itself
says what that is (:mod:`cryoemmae_plugin.training.specimen`), and on micrographs made of it, whose centres are known,
it is trained a little further.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from cryoemmae_plugin.core.crop_detection import CropDetections
from cryoemmae_plugin.core.default import GRID_DIAMETER_PX
from cryoemmae_plugin.core.flattening import FlattenedMicrograph
from cryoemmae_plugin.core.geometry import MicrographFrame
from cryoemmae_plugin.core.head import CELL_PX, Head
from cryoemmae_plugin.core.model import PickingModel
from cryoemmae_plugin.errors import Interrupted
from cryoemmae_plugin.training.checkpoint import HEAD_FILE
from cryoemmae_plugin.training.examples import FIRST_SEED, Example, example_of, keep_example, make_examples
from cryoemmae_plugin.training.head import HeadSettings, part_way, train_head
from cryoemmae_plugin.training.specimen import Specimen, describe_specimen

SCENES = 16
"""Micrographs that are made of the specimen."""
OTHER_SCENES = range(FIRST_SEED + 9000, FIRST_SEED + 9016)
"""Seeds of micrographs of all kinds, lest it forget what junk looks like, and other views of the particle."""
SIDE_PX = 256
"""Their side, in grid pixels: 11 particle diameters."""
SEEN_SCENES = Path(__file__).with_name("seen_scenes")
"""Folder of the others as the head sees them, the same for every data set. One that is deleted is simulated anew."""
SETTINGS = HeadSettings(steps=80, rate=2e-3, crop_cells=SIDE_PX // CELL_PX, checkpoint_steps=15)
LEAST_TOGETHER = 3
"""Fewer micrographs say nothing of a data set."""
SHOWN_EVIDENCE, SHOWN_DENSITY = 2.0, 0.065
"""A data set shows particles where the mean evidence is so many times what one micrograph takes, and half of its
micrographs lead to expect so many per square diameter. Nothing but ice has looked like faint particles on all of five
micrographs, with 0.8 times that evidence."""
EXPECTED_SHARE = 0.5
"""There, a micrograph with less than this share of the data set's particles is judged by its own evidence alone."""
DOUBTED_EVIDENCE = 3.0
"""Where the mean evidence is less than what one micrograph takes, each must have so many times that."""
SHARE = 0.5
"""Share of what it has become in the adapted head; the rest is what it was."""


def adapt_head(
    model: PickingModel,
    head: Head,
    detections: Sequence[CropDetections],
    *,
    work: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Head | None:
    """Adapt a head to what it has seen.

    Parameters
    ----------
    model : PickingModel
        On the CPU.
    head : Head
        On the CPU; stays as it is.
    detections : sequence of CropDetections
        One a micrograph.
    work : Path, optional
        Folder that keeps what is done, so that a second call with the same input goes on where the first was stopped.
    progress : callable
        Told how many of how many steps are done; a scene counts as one, too.

    Returns
    -------
    Head or None
        Its figure of merit is calibrated as before. None where there is too little to learn from, see
        :func:`describe_specimen`.

    Raises
    ------
    Interrupted
        When `should_stop` says True.
    """
    specimen = describe_specimen(detections)
    if specimen is None:
        return None
    scenes = SCENES + len(OTHER_SCENES)
    total = scenes + SETTINGS.steps
    progress(0, total)
    others = make_examples(
        model, OTHER_SCENES, work, lambda done, _: progress(done, total), should_stop, SIDE_PX, SEEN_SCENES
    )
    own = []
    for number in range(SCENES):
        if should_stop():
            raise Interrupted("stopped while adapting to the micrographs; run the same command again")
        make = partial(make_own_example, model, specimen, np.random.default_rng([0, number]))
        own.append(keep_example(work / f"own-{number}.safetensors" if work else None, make))
        progress(len(others) + len(own), total)
    trained = train_head(
        own + others,
        SETTINGS,
        start=head,
        checkpoint=work / HEAD_FILE if work else None,
        progress=lambda done, steps, loss: progress(scenes + done, total),
        should_stop=should_stop,
    )
    return part_way(head, trained, SHARE)


def judge_together(head: Head, detections: Sequence[CropDetections]) -> Head | None:
    """Tell a head what several micrographs of a data set show together, for its verdict on each.

    What one micrograph leaves open, several may tell: faint particles are on all of them, grains of ice on some.

    Parameters
    ----------
    head : Head
        Stays as it is.
    detections : sequence of CropDetections
        One a micrograph.

    Returns
    -------
    Head or None
        One that takes no micrograph to be empty which shows a share of the data set's particles; or, where next to
        nothing stands out, one that takes more evidence. None where there is nothing to tell.
    """
    if len(detections) < LEAST_TOGETHER:
        return None
    total_log_odds = float(np.mean([seen.total_log_odds for seen in detections]))
    density = float(np.median([seen.density for seen in detections]))
    told = copy.deepcopy(head)
    if total_log_odds < head.least_log_odds:
        told.calibration[2] *= DOUBTED_EVIDENCE
    elif total_log_odds >= SHOWN_EVIDENCE * head.least_log_odds and density >= SHOWN_DENSITY:
        told.least_density.fill_(EXPECTED_SHARE * density)
    else:
        return None
    return told


def make_own_example(model: PickingModel, specimen: Specimen, rng: np.random.Generator) -> Example:
    """Draw a micrograph of the specimen, and look at it as the default mode does."""
    pixels, centres = specimen.draw(SIDE_PX, rng)
    whole = torch.ones(pixels.shape, dtype=torch.bool)
    same = MicrographFrame((SIDE_PX, SIDE_PX), (SIDE_PX, SIDE_PX))
    return example_of(model, FlattenedMicrograph(torch.from_numpy(pixels), whole, same, GRID_DIAMETER_PX), centres)
