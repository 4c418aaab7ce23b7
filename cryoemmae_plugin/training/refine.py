"""Teach a head which picks of a data set 2D classification has kept, and which it has dropped.

The kept picks are particles in the real micrographs, and their class averages are the particles of simulated ones;
the dropped picks are background. What nobody has judged teaches nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from cryoemmae_plugin.core.class_averages import cut_patches
from cryoemmae_plugin.core.crop_detection import CropDetections, central_crop
from cryoemmae_plugin.core.default import GRID_DIAMETER_PX, extract_features, find_candidates
from cryoemmae_plugin.core.flattening import FlattenedMicrograph, flatten_background
from cryoemmae_plugin.core.head import CELL_PX, Head
from cryoemmae_plugin.core.model import PickingModel
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.errors import Interrupted
from cryoemmae_plugin.training.adapt import OTHER_SCENES, SCENES, SEEN_SCENES, SIDE_PX, make_own_example
from cryoemmae_plugin.training.checkpoint import HEAD_FILE
from cryoemmae_plugin.training.examples import Example, draw_target, keep_example, make_examples
from cryoemmae_plugin.training.head import HeadSettings, part_way, train_head
from cryoemmae_plugin.training.specimen import describe_specimen

FIELD_DIAMETERS = 40
"""Side of the piece of a real micrograph, in its middle, that the head is shown."""
DOUBT = 0.1
"""Candidates with at least this chance that nobody has judged are left out..."""
DOUBT_RADIUS = 0.4
"""...with what is around them, in diameters."""
JUDGED_DISTANCE = 0.5
"""A candidate closer than this to a kept or dropped pick, in diameters, is that pick."""
KEPT_CHANCE = 0.99
REAL_SHARE = 0.5
"""Share of the training crops that come from real micrographs."""
SETTINGS = HeadSettings(steps=240, rate=1e-3, crop_cells=SIDE_PX // CELL_PX, checkpoint_steps=15)
SHARE = 0.75
"""Share of what it has become in the refined head; the rest is what it was."""


@dataclass(frozen=True)
class JudgedMicrograph:
    """The middle of a real micrograph, with picks that were judged.

    Attributes
    ----------
    kept, dropped : ndarray, shape (N, 2)
        Picks in its grid pixels.
    """

    flattened: FlattenedMicrograph
    kept: NDArray[np.float64]
    dropped: NDArray[np.float64]

    @classmethod
    def cut(
        cls, image: Tensor, diameter_px: float, kept: NDArray[np.float64], dropped: NDArray[np.float64]
    ) -> JudgedMicrograph:
        """Cut the middle out of a micrograph (ny, nx), particles dark; picks (N, 2) are in its pixels."""
        piece = central_crop(image, round(FIELD_DIAMETERS * diameter_px))
        top, left = ((whole - cut) // 2 for whole, cut in zip(image.shape, piece.shape, strict=True))
        flattened = flatten_background(piece, diameter_px, GRID_DIAMETER_PX)
        corner = np.array([left, top], float)
        return cls(flattened, *(_within(flattened, picks.reshape(-1, 2) - corner) for picks in (kept, dropped)))

    def detections(self) -> CropDetections:
        """The kept picks, as if a head had seen them and nothing else."""
        chance = np.full(len(self.kept), KEPT_CHANCE, np.float32)
        return CropDetections(self.flattened.pixels.numpy(), self.flattened.area, self.kept, chance)

    def patches(self) -> NDArray[np.float32]:
        """Cut out all judged picks: shape (N, 2 REACH + 1, 2 REACH + 1)."""
        return cut_patches(self.flattened.pixels.numpy(), np.concatenate([self.kept, self.dropped]))

    def example(self, model: PickingModel, head: Head) -> Example:
        """What the head reads there, and what it should say; candidates that nobody has judged are left out."""
        with torch.inference_mode():
            features = extract_features(self.flattened, model, StepTimer())
            xy, chance = find_candidates(features, self.flattened, head)
        inside = features.inside_cells
        rows, columns = inside.shape
        doubtful = _far_from(xy[chance >= DOUBT], np.concatenate([self.kept, self.dropped]))
        judged = inside & ~_near(doubtful, rows, columns)
        target = torch.cat([draw_target(self.kept, rows, columns), judged[None].float()])
        known = torch.from_numpy(self.kept).float()
        return Example(features.pixels[0].half(), features.cells[0].half(), target.half(), known)


def refine_head(
    model: PickingModel,
    head: Head,
    micrographs: Sequence[JudgedMicrograph],
    *,
    work: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Head:
    """Train a head on micrographs with judged picks.

    Parameters
    ----------
    model : PickingModel
        On the CPU.
    head : Head
        On the CPU; stays as it is.
    work : Path, optional
        Folder that keeps what is done, so that a second call with the same input goes on where the first was stopped.
    progress : callable
        Told how many of how many steps are done; a micrograph counts as one, too.

    Returns
    -------
    Head
        Its figure of merit is calibrated as before.

    Raises
    ------
    Interrupted
        When `should_stop` says True.
    """
    specimen = describe_specimen([micrograph.detections() for micrograph in micrographs])
    makers: dict[str, Callable[[], Example]] = {
        f"judged-{number}": partial(one.example, model, head) for number, one in enumerate(micrographs)
    }
    if specimen is not None:
        for number in range(SCENES):
            makers[f"own-{number}"] = partial(make_own_example, model, specimen, np.random.default_rng([0, number]))
    before = len(makers) + len(OTHER_SCENES)
    total = before + SETTINGS.steps
    made: list[Example] = []
    for name, make in makers.items():
        if should_stop():
            raise Interrupted("stopped while refining; run the same command again")
        progress(len(made), total)
        made.append(keep_example(work / f"{name}.safetensors" if work else None, make))
    others = make_examples(
        model, OTHER_SCENES, work, lambda done, _: progress(len(made) + done, total), should_stop, SIDE_PX, SEEN_SCENES
    )
    real, simulated = made[: len(micrographs)], made[len(micrographs) :] + others
    trained = train_head(
        real * _repeats(real, simulated) + simulated,
        SETTINGS,
        start=head,
        checkpoint=work / HEAD_FILE if work else None,
        progress=lambda done, steps, loss: progress(before + done, total),
        should_stop=should_stop,
    )
    return part_way(head, trained, SHARE)


def _repeats(real: Sequence[Example], simulated: Sequence[Example]) -> int:
    """How often to list the real micrographs so that they give REAL_SHARE of the crops, which go by side."""
    taught, made = (sum(float(np.sqrt(one.target[0].numel())) for one in some) for some in (real, simulated))
    return max(1, round(made / taught * REAL_SHARE / (1 - REAL_SHARE)))


def _within(flattened: FlattenedMicrograph, picks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those of micrograph positions (N, 2) that lie on the image, in grid pixels."""
    xy = flattened.frame.to_grid(picks)
    rows, columns = flattened.pixels.shape
    return np.asarray(xy[((xy > -0.5) & (xy < (columns - 0.5, rows - 0.5))).all(1)])


def _far_from(xy: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(xy) or not len(others):
        return xy
    return np.asarray(xy[cKDTree(others).query(xy)[0] >= JUDGED_DISTANCE * GRID_DIAMETER_PX])


def _near(xy: NDArray[np.float64], rows: int, columns: int) -> Tensor:
    """Tell the cells (rows, columns) close to one of the grid positions (N, 2); bool."""
    if not len(xy):
        return torch.zeros(rows, columns, dtype=torch.bool)
    down, across = np.mgrid[:rows, :columns]
    centres = np.stack([across, down], -1).reshape(-1, 2) * CELL_PX + (CELL_PX - 1) / 2
    near = cKDTree(xy).query(centres)[0] < DOUBT_RADIUS * GRID_DIAMETER_PX
    return torch.from_numpy(near.reshape(rows, columns))
