"""Make a head familiar with the data set at hand, without a label.

It has been trained on particles and noise of all kinds; a data set shows one kind of each. What it picks there itself
says what that is (:mod:`cryoemmae_plugin.training.specimen`), and on micrographs made of it, whose centres are known,
it is trained a little further.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch

from cryoemmae_plugin.core.condition import Conditioned
from cryoemmae_plugin.core.default import GRID_DIAMETER_PX
from cryoemmae_plugin.core.geometry import MicrographFrame
from cryoemmae_plugin.core.head import CELL_PX, Head
from cryoemmae_plugin.core.model import PickingModel
from cryoemmae_plugin.core.sighting import Sighting, shown_density
from cryoemmae_plugin.errors import Interrupted
from cryoemmae_plugin.training.examples import FIRST_SEED, Example, example_of, make_examples
from cryoemmae_plugin.training.head import HeadSettings, mean_head, train_head
from cryoemmae_plugin.training.specimen import Specimen, describe_specimen

SCENES = 24
"""Micrographs that are made of the specimen."""
OTHER_SCENES = range(FIRST_SEED + 9000, FIRST_SEED + 9024)
"""Seeds of micrographs of all kinds, lest it forget what junk looks like, and other views of the particle."""
SIDE_PX = 256
"""Their side, in grid pixels: a tile of the encoder, and 11 particle diameters."""
SETTINGS = HeadSettings(steps=150, rate=2e-3, crop_cells=SIDE_PX // CELL_PX)
EXPECTED_SHARE = 0.5
"""A micrograph with less than this share of the data set's particles is judged by its own evidence alone."""
SHARE = 0.5
"""Share of what it has become in the adapted head; the rest is what it was."""


def adapt_head(
    model: PickingModel,
    head: Head,
    sightings: Sequence[Sighting],
    *,
    seed: int = 0,
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
    sightings : sequence of Sighting
        One a micrograph.
    seed : int
    progress : callable
        Told how many of how many steps are done; a scene counts as one, too.
    should_stop : callable
        Asked before each.

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
    specimen = describe_specimen(sightings, seed)
    if specimen is None:
        return None
    scenes = SCENES + len(OTHER_SCENES)
    total = scenes + SETTINGS.steps
    progress(0, total)
    others = make_examples(
        model, OTHER_SCENES, None, lambda done, _: progress(done, total), should_stop, side_px=SIDE_PX
    )
    own = []
    for number in range(SCENES):
        if should_stop():
            raise Interrupted("stopped while adapting to the micrographs; run the same command again")
        own.append(make_own_example(model, specimen, np.random.default_rng([seed, number])))
        progress(len(others) + len(own), total)
    trained = train_head(
        own + others,
        SETTINGS,
        start=head,
        progress=lambda done, steps, loss: progress(scenes + done, total),
        should_stop=should_stop,
    )
    adapted = mean_head(head, trained, SHARE)
    adapted.calibration.copy_(head.calibration)
    return adapted.eval().requires_grad_(False)


def expect_particles(head: Head, sightings: Sequence[Sighting]) -> Head | None:
    """A head that takes no micrograph to be empty that shows `EXPECTED_SHARE` of what the data set shows.

    Returns
    -------
    Head or None
        None where the data set may show no particle itself.
    """
    density = shown_density(sightings, head.least_evidence)
    if density is None:
        return None
    expecting = copy.deepcopy(head)
    expecting.least_density.fill_(EXPECTED_SHARE * density)
    return expecting


def make_own_example(model: PickingModel, specimen: Specimen, rng: np.random.Generator) -> Example:
    """Draw a micrograph of the specimen, and look at it as the default mode does."""
    pixels, centres = specimen.draw(SIDE_PX, rng)
    whole = torch.ones(pixels.shape, dtype=torch.bool)
    same = MicrographFrame((SIDE_PX, SIDE_PX), (SIDE_PX, SIDE_PX))
    return example_of(model, Conditioned(torch.from_numpy(pixels), whole, same, GRID_DIAMETER_PX), centres)
