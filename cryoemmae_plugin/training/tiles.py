"""Where training tiles come from. A draw depends on the step alone, so that a resumed run sees the same tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cryoemmae_plugin.errors import ImageError

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
    if not variance > 0:
        raise ImageError("the training micrographs have no contrast: all pixels are alike; check the files")
    return mean, math.sqrt(variance)


class GridTiles:
    """The published scheme: every image cut into a fixed grid of tiles, shuffled in each epoch."""

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
    """Crops at random places, in the eight symmetries of a square, at random scales.

    Parameters
    ----------
    images : sequence of Tensor (rows, columns)
        Preprocessed micrographs.
    scales : tuple of float
        Smallest and largest side of a crop, in tiles; drawn log-uniformly, one a step. A scale of 2 shows particles at
        half their size.
    native_share : float
        Share of the steps at scale 1, where pixels stay as they are.
    """

    def __init__(
        self,
        images: Sequence[Tensor],
        scales: tuple[float, float] = (1.0, 2.0),
        native_share: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.mean, self.std = _mean_and_std(images)
        self._scales, self._native_share, self._seed = scales, native_share, seed
        grown = [_grow(image, math.ceil(TILE_PX * scales[1])) for image in images]
        self._flat = torch.cat([image.reshape(-1) for image in grown])
        self._shape = torch.tensor([image.shape for image in grown])
        sizes = torch.tensor([image.numel() for image in grown])
        self._start = sizes.cumsum(0) - sizes
        self._weight = sizes.double().sqrt()  # large micrographs more often, yet not in proportion
        self._tiles = max(1, sum(image.numel() for image in images) // TILE_PX**2)

    def __len__(self) -> int:
        """Tiles in one epoch: as many as cover the images once."""
        return self._tiles

    def to(self, device: torch.device) -> RandomCrops:
        """Keep the pixels on a device. Returns itself."""
        self._flat = self._flat.to(device)
        return self

    def draw(self, step: int, batch: int) -> Tensor:
        """Return the tiles of a step, float32 (batch, 1, 64, 64), standardised."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        side = round(TILE_PX * self._draw_scale(generator))
        which = torch.multinomial(self._weight, batch, replacement=True, generator=generator)
        corner = (torch.rand(batch, 2, generator=generator) * (self._shape[which] - side + 1)).long()
        width = self._shape[which, 1]
        first = self._start[which] + corner[:, 0] * width + corner[:, 1]
        flips = torch.randint(0, 2, (3, batch), generator=generator)
        layout = torch.stack([first, width, *flips]).to(self._flat.device)  # all else happens there
        crops = self._flat[_pixel_indices(layout, side)][:, None]
        if side != TILE_PX:
            crops = F.interpolate(crops, (TILE_PX, TILE_PX), mode="bilinear", antialias=True, align_corners=False)
        return (crops - self.mean) / self.std

    def _draw_scale(self, generator: torch.Generator) -> float:
        chance, position = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        if chance < self._native_share:
            return 1.0
        low, high = (math.log(scale) for scale in self._scales)
        return math.exp(low + (high - low) * position)


def _pixel_indices(layout: Tensor, side: int) -> Tensor:
    """Where the pixels of crops lie in the flat images; shape (N, side, side).

    Parameters
    ----------
    layout : Tensor, shape (5, N), int64
        First pixel, width of the image, and 1 for each: mirror up-down, mirror left-right, transpose.
    """
    first, width, upside_down, mirrored, transposed = layout[:, :, None, None]
    line = torch.arange(side, device=layout.device)
    down, across = line[:, None], line
    rows = torch.where(upside_down == 1, side - 1 - down, down)
    columns = torch.where(mirrored == 1, side - 1 - across, across)
    indices = first + rows * width + columns
    return torch.where(transposed == 1, indices.transpose(1, 2), indices)


def _grow(image: Tensor, least: int) -> Tensor:
    """Mirror an image outwards until both sides have at least `least` pixels."""
    while min(image.shape) < least:
        rows, columns = image.shape
        below, right = (min(n - 1, max(0, least - n)) for n in (rows, columns))
        image = F.pad(image[None, None], (0, right, 0, below), mode="reflect")[0, 0]
    return image
