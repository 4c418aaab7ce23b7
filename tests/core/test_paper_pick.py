"""The published method as a whole, with an encoder whose answer is known: how bright a patch is."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor, nn

from cryoemmae_plugin.core.encoder import EncoderConfig
from cryoemmae_plugin.core.paper.pick import pick_paper
from cryoemmae_plugin.core.timing import StepTimer


class PatchMean(nn.Module):
    """Stands in for an encoder: the mean of each patch, twice."""

    config = EncoderConfig()

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, tiles: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(tiles, 4).flatten(1)[..., None].expand(-1, -1, 2) * self.scale


@dataclass(frozen=True)
class BrightnessModel:
    encoder: PatchMean = field(default_factory=PatchMean)
    mean: float = 0.5
    std: float = 0.25
    centroids: Tensor = field(
        default_factory=lambda: torch.tensor([[1.0, 1.0], [0.0, 0.0], [-1.0, -1.0], [-1.9, -1.9]])
    )
    particle_cluster: int = 3


def particles(shape: tuple[int, int], diameter_px: float) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return an image of dark blobs at places off the pixel grid, and those places (x, y)."""
    rng = np.random.default_rng(0)
    ny, nx = shape
    step = 1.9 * diameter_px  # sparser ones cover less than the 4 % that the method asks for
    at = np.stack(np.meshgrid(np.arange(step / 2, nx - step / 2, step), np.arange(step / 2, ny - step / 2, step)), -1)
    xy = at.reshape(-1, 2) + rng.uniform(-0.15, 0.15, (at.size // 2, 2)) * diameter_px
    y, x = np.mgrid[:ny, :nx]
    image = rng.normal(size=shape) * 0.05
    for cx, cy in xy:
        image -= np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * (diameter_px / 4) ** 2))
    return image.astype(np.float32), xy


@pytest.mark.parametrize(("shape", "diameter_px"), [((600, 840), 40.0), ((901, 640), 58.0)])  # windows of 2 and of 4
def test_picks_lie_on_the_particles(shape: tuple[int, int], diameter_px: float) -> None:
    image, truth = particles(shape, diameter_px)
    picks = pick_paper(torch.from_numpy(image), BrightnessModel(), diameter_px)
    distance, nearest = cKDTree(truth).query(picks.xy)
    hits = distance < diameter_px / 4
    assert hits.sum() >= 0.8 * len(truth)
    offset = (picks.xy[hits] - truth[nearest[hits]]).mean(axis=0)
    assert np.abs(offset).max() < 0.02 * diameter_px
    assert picks.power[hits].mean() > 0.5


def test_picks_come_best_first_with_scores_in_range() -> None:
    image, _ = particles((600, 840), 40.0)
    picks = pick_paper(torch.from_numpy(image), BrightnessModel(), 40.0)
    assert (np.diff(picks.score) <= 0).all()
    assert picks.score.min() > 0
    assert picks.score.max() < 1
    assert picks.shape == (600, 840)


def test_timer_knows_the_four_steps() -> None:
    image, _ = particles((400, 400), 40.0)
    timer = StepTimer()
    pick_paper(torch.from_numpy(image), BrightnessModel(), 40.0, timer)
    assert list(timer.seconds) == ["preprocess", "encode", "cluster", "locate"]
    assert all(seconds > 0 for seconds in timer.seconds.values())


def test_nothing_in_the_particle_cluster_gives_no_pick() -> None:
    image, _ = particles((400, 500), 40.0)
    nowhere = torch.tensor([[0.0, 0.0], [1e3, -1e3]])
    picks = pick_paper(torch.from_numpy(image), BrightnessModel(centroids=nowhere, particle_cluster=1), 40.0)
    assert len(picks) == 0
    assert picks.shape == (400, 500)
