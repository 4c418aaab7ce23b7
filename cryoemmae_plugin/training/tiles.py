"""Where training tiles come from. A draw depends on the step alone, so that a resumed run sees the same tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

TILE_PX = 64


class TileSource(Protocol):
    """Gives standardised training tiles."""

    mean: float
    std: float

    def __len__(self) -> int:
        """Tiles in one epoch."""

    def to(self, device: torch.device) -> TileSource:
        """Keep the pixels on a device, where tiles are cut from now on; the same tiles on any. Returns itself."""

    def draw(self, step: int, batch: int) -> Tensor:
        """Return the tiles of a step, float32 (batch, 1, 64, 64), standardised, on the device of the pixels."""


def _mean_and_std(images: Sequence[Tensor]) -> tuple[float, float]:
    count = sum(image.numel() for image in images)
    mean = sum(float(image.sum(dtype=torch.float64)) for image in images) / count
    variance = sum(float(((image.double() - mean) ** 2).sum()) for image in images) / count
    if variance <= 0:
        raise ValueError("the training images are constant")
    return mean, math.sqrt(variance)


class GridTiles:
    """The published scheme: every image cut into a fixed grid of tiles, shuffled anew each epoch."""

    def __init__(self, images: Sequence[Tensor], seed: int = 0) -> None:
        self.mean, self.std = _mean_and_std(images)
        cut = [image.unfold(0, TILE_PX, TILE_PX).unfold(1, TILE_PX, TILE_PX) for image in images]
        self._tiles = torch.cat([tiles.reshape(-1, 1, TILE_PX, TILE_PX) for tiles in cut])
        self._seed = seed

    def __len__(self) -> int:
        """Tiles in one epoch."""
        return len(self._tiles)

    def to(self, device: torch.device) -> GridTiles:
        """Keep the pixels on a device. Returns itself."""
        self._tiles = self._tiles.to(device)
        return self

    def draw(self, step: int, batch: int) -> Tensor:
        """Return the tiles of a step, float32 (batch, 1, 64, 64), standardised."""
        steps = max(1, len(self) // batch)
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step // steps)
        order = torch.randperm(len(self), generator=generator).to(self._tiles.device)
        chosen = order[(step % steps) * batch :][:batch]
        return (self._tiles[chosen] - self.mean) / self.std


class RandomCrops:
    """Crops at random places, scales, rotations and mirrorings: what the default mode is trained on.

    Parameters
    ----------
    images : sequence of Tensor (rows, columns)
        Flattened micrographs in which every particle has the diameter `diameter_px`.
    diameter_px : float
        That diameter.
    diameters_px : tuple of float
        Smallest and largest particle diameter wanted in a tile; drawn log-uniformly, one a step.
    repeat : int
        Crops in an epoch, in multiples of what would cover the images once.
    """

    def __init__(
        self,
        images: Sequence[Tensor],
        diameter_px: float,
        diameters_px: tuple[float, float],
        seed: int = 0,
        repeat: int = 1,
    ) -> None:
        self.mean, self.std = _mean_and_std(images)
        self._diameter_px, self._diameters_px, self._seed = diameter_px, diameters_px, seed
        least = math.ceil(TILE_PX * diameter_px / diameters_px[0])
        grown = [_grow(image, least) for image in images]
        self._flat = torch.cat([image.reshape(-1) for image in grown])
        self._shape = torch.tensor([image.shape for image in grown])
        sizes = torch.tensor([image.numel() for image in grown])
        self._start = sizes.cumsum(0) - sizes
        self._weight = sizes.double().sqrt()  # large micrographs more often, yet not in proportion
        self._tiles = max(1, repeat * int(sizes.sum()) // TILE_PX**2)

    def __len__(self) -> int:
        """Tiles in one epoch."""
        return self._tiles

    def to(self, device: torch.device) -> RandomCrops:
        """Keep the pixels on a device. Returns itself."""
        self._flat = self._flat.to(device)
        return self

    def draw(self, step: int, batch: int) -> Tensor:
        """Return the tiles of a step, float32 (batch, 1, 64, 64), standardised."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        low, high = (math.log(d) for d in self._diameters_px)
        wanted = math.exp(low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64)))
        side = round(TILE_PX * self._diameter_px / wanted)
        which = torch.multinomial(self._weight, batch, replacement=True, generator=generator)
        room = self._shape[which] - side + 1
        corner = (torch.rand(batch, 2, generator=generator) * room).long()
        width = self._shape[which, 1]
        at = self._start[which] + corner[:, 0] * width + corner[:, 1]
        at, width = torch.stack([at, width]).to(self._flat.device)[:, :, None, None]  # all else happens there
        line = torch.arange(side, device=self._flat.device)
        crops = self._flat[at + line[:, None] * width + line][:, None]
        turn, mirror = torch.randint(0, 4, (2,), generator=generator).tolist()
        crops = torch.rot90(crops, turn, (2, 3))
        crops = crops.flip(3) if mirror % 2 else crops
        tiles = F.interpolate(crops, (TILE_PX, TILE_PX), mode="bilinear", antialias=True, align_corners=False)
        return (tiles - self.mean) / self.std


def _grow(image: Tensor, least: int) -> Tensor:
    """Mirror an image outwards until both sides have at least `least` pixels."""
    while min(image.shape) < least:
        rows, columns = image.shape
        below, right = (min(n - 1, max(0, least - n)) for n in (rows, columns))
        image = F.pad(image[None, None], (0, right, 0, below), mode="reflect")[0, 0]
    return image
