"""The head: reads embedding, clusters, matched filter and pixels around every cell, and tells particles from the rest.

A small convolutional network, fixed on simulated micrographs, whose answers are known by construction; no annotation of
a real one. It belongs to the encoder whose tokens it has learned to read.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

PREFIX = "head."
"""Names of its tensors in a model's arrays begin with this."""
VERSION = 1
"""Raised whenever the head's inputs or layers change, so that older tensors are refused."""
CELL_PX = 4
"""Grid pixels per cell of the head, as of the encoders that it reads."""
PIXEL_LAYERS = 2
"""Conditioned pixels, matched filter."""
CLUSTER_LAYERS = 1
"""Share of the particle clusters; the tokens' dimensions follow."""
CHANNELS = 48
STEM_CHANNELS = 32
DILATIONS = (1, 1, 2, 1, 4, 1, 8, 2, 1)
"""Of the body's 3 x 3 convolutions: together they see 21 cells, three particles and a half, to every side."""
RESPONSE_SCALE = 3.0
RESPONSE_LIMITS = (-8.0, 10.0)


class Residual(nn.Module):
    """A convolution, added to what came in."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (batch, channels, rows, columns)."""
        out: Tensor = x + F.relu(self.norm(self.conv(x)))
        return out


class Head(nn.Module):
    """Layers of pixels and of cells to log-odds of a particle's centre in each cell, and where in it.

    Parameters
    ----------
    embed_dim : int
        Dimensions of the encoder's tokens.
    channels : int
        Width of the body.
    """

    calibration: Tensor

    def __init__(self, embed_dim: int, channels: int = CHANNELS) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        layers = CLUSTER_LAYERS + embed_dim
        self.stem = nn.Sequential(
            nn.Conv2d(PIXEL_LAYERS, STEM_CHANNELS, CELL_PX, stride=CELL_PX),
            nn.BatchNorm2d(STEM_CHANNELS),
            nn.ReLU(),
            nn.Conv2d(STEM_CHANNELS, channels, 3, padding=1),
        )
        self.cells = nn.Sequential(nn.BatchNorm2d(layers, affine=False), nn.Conv2d(layers, channels, 1))
        self.body = nn.Sequential(*(Residual(channels, dilation) for dilation in DILATIONS))
        self.out = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 3, 1))
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))

    def forward(self, pixels: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Judge every cell.

        Parameters
        ----------
        pixels : Tensor, shape (batch, PIXEL_LAYERS, CELL_PX * rows, CELL_PX * columns)
        cells : Tensor, shape (batch, CLUSTER_LAYERS + embed_dim, rows, columns)

        Returns
        -------
        log_odds : Tensor, shape (batch, rows, columns)
        offset : Tensor, shape (batch, 2, rows, columns)
            From the cell's centre to the particle's, x and y, in cells.
        """
        out = self.out(self.body(self.stem(pixels) + self.cells(cells)))
        return out[:, 0], out[:, 1:]

    def score(self, log_odds: Tensor) -> Tensor:
        """Turn log-odds into figures of merit in 0..1: slope and shift of `calibration` make 0.5 the balanced point."""
        slope, shift = self.calibration
        return torch.sigmoid(slope * log_odds + shift)

    def arrays(self) -> dict[str, Tensor]:
        """Return the tensors that a model folder keeps."""
        state = {name: tensor for name, tensor in self.state_dict().items() if not name.endswith("num_batches_tracked")}
        return {PREFIX + name: tensor.float().contiguous() for name, tensor in state.items()} | {
            f"{PREFIX}version": torch.tensor(float(VERSION))
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor]) -> Head:
        """Build the head from a model's arrays.

        Raises
        ------
        KeyError
            If the model has none.
        RuntimeError
            If it is of another version or its tensors do not fit.
        """
        state = {name.removeprefix(PREFIX): t for name, t in arrays.items() if name.startswith(PREFIX)}
        version = int(state.pop("version"))
        if version != VERSION:
            raise RuntimeError(f"its head has version {version}, this release reads version {VERSION}")
        channels, layers = state["cells.1.weight"].shape[:2]
        head = cls(layers - CLUSTER_LAYERS, channels)
        missing, unexpected = head.load_state_dict(state, strict=False)
        missing = [name for name in missing if not name.endswith("num_batches_tracked")]
        if missing or unexpected:
            raise RuntimeError(f"its head lacks {missing} and has {unexpected}")
        return head.eval().requires_grad_(False)


def head_layers(pixels: Tensor, sigmas: Tensor, tokens: Tensor, cluster: Tensor) -> tuple[Tensor, Tensor]:
    """Stack what the head reads, both for a batch of one.

    Parameters
    ----------
    pixels, sigmas : Tensor, shape (height, width)
        Conditioned pixels, and the matched filter's response in deviations.
    tokens : Tensor, shape (rows, columns, embed_dim)
        Embedding.
    cluster : Tensor, shape (rows, columns)
        Share of the particle clusters, 0 to 1.

    Returns
    -------
    pixels : Tensor, shape (1, PIXEL_LAYERS, CELL_PX * rows, CELL_PX * columns)
        0 beyond the frame.
    cells : Tensor, shape (1, CLUSTER_LAYERS + embed_dim, rows, columns)
    """
    rows, columns = cluster.shape
    height, width = pixels.shape
    fine = torch.stack([pixels, sigmas.clamp(*RESPONSE_LIMITS) / RESPONSE_SCALE])
    fine = F.pad(fine, (0, columns * CELL_PX - width, 0, rows * CELL_PX - height))
    coarse = torch.cat([(2 * cluster - 1)[None], tokens.permute(2, 0, 1)])
    return fine[None], coarse[None]


def judge_cells(head: Head, pixels: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Judge one micrograph upright and upside down, and take the mean: orientation means nothing, and errors differ.

    Parameters
    ----------
    head : Head
    pixels, cells : Tensor
        As :func:`head_layers` gives them.

    Returns
    -------
    log_odds : Tensor, shape (rows, columns)
    offset : Tensor, shape (2, rows, columns)
    """
    upright, way = head(pixels, cells)
    turned, way_turned = (out.flip(-2, -1) for out in head(pixels.flip(-2, -1), cells.flip(-2, -1)))
    return (upright[0] + turned[0]) / 2, (way[0] - way_turned[0]) / 2


def find_centres(score: Tensor, offset: Tensor, least: float) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Find the cells that no neighbour exceeds.

    Parameters
    ----------
    score : Tensor, shape (rows, columns)
    offset : Tensor, shape (2, rows, columns)
        From a cell's centre to the particle's, x and y, in cells.
    least : float
        Least score.

    Returns
    -------
    xy : ndarray, shape (N, 2)
        Centres (column, row) in grid pixels.
    score : ndarray, shape (N,)
    """
    highest = F.max_pool2d(score[None, None], 3, stride=1, padding=1)[0, 0]
    y, x = torch.nonzero((score == highest) & (score >= least), as_tuple=True)
    centre = torch.stack([x + offset[0, y, x], y + offset[1, y, x]], dim=1).double()
    return (centre * CELL_PX + (CELL_PX - 1) / 2).cpu().numpy(), score[y, x].float().cpu().numpy()
