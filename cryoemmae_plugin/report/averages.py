"""Class averages of the picks: what they look like together."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.core.class_averages import average_classes, cut_patches, soft_mask
from cryoemmae_plugin.core.groups import Groups
from cryoemmae_plugin.report.pictures import MicrographPictures, stretch
from cryoemmae_plugin.types import Picks

PICKS_PER_MICROGRAPH, MOST_PICKS = 40, 320
"""Best picks of a micrograph that are averaged, and of all micrographs."""
LEAST_PICKS = 20
"""Fewer picks show nothing but noise."""
MASK_RADIUS = 0.8
"""Averages are shown within this radius, in diameters."""
SIDE_PX = 96
"""Side of the picture of an average."""
SEED = 0


class AveragesOfPicks:
    """Collects cut-out picks micrograph by micrograph, and averages them at the end."""

    def __init__(self) -> None:
        self._patches: list[NDArray[np.float32]] = []

    def add(self, pictures: MicrographPictures, picks: Picks) -> None:
        """Cut out the best picks of a micrograph; `picks` are best first, in pixels of the micrograph."""
        room = MOST_PICKS - sum(map(len, self._patches))
        best = picks.xy[: min(PICKS_PER_MICROGRAPH, room)]
        if len(best):
            self._patches.append(cut_patches(pictures.flattened, pictures.frame.to_grid(best)))

    def average(self) -> list[tuple[NDArray[np.uint8], str]]:
        """Average the picks: a grey picture of each class and a caption, the largest class first.

        Empty where there are too few picks.
        """
        if sum(map(len, self._patches)) < LEAST_PICKS:
            return []
        averages, shares = average_classes(
            np.concatenate(self._patches), soft_mask(MASK_RADIUS), np.random.default_rng(SEED)
        )
        order = np.argsort(-shares, kind="stable")
        return [(_picture(averages[at]), f"{shares[at]:.0%}") for at in order]


def pictures_of_groups(groups: Groups) -> list[tuple[NDArray[np.uint8], str]]:
    """The class averages that a run's picks are grouped by, with captions, the largest group first."""
    found = []
    for number, (kind, share) in enumerate(zip(groups.kinds, groups.shares, strict=True), 1):
        for average in groups.averages[groups.number == number].double().numpy():
            found.append((_picture(average), f"{number} {kind}, {share:.0%}"))
    return found


def _picture(average: NDArray[np.float64]) -> NDArray[np.uint8]:
    large = cv2.resize(average.astype(np.float32), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
    return stretch(large)
