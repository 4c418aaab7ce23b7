"""The head: a network that separates particles from ice, carbon and contamination.

It reads embedding, clusters, matched filter and pixels around every cell. It is a small convolutional network, trained
on simulated micrographs, whose particles are known by construction, without annotations of real micrographs. It belongs
to the encoder whose tokens it was trained on.
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
VERSION = 2
"""Raised whenever the head's inputs or layers change, so that older tensors are refused."""
CELL_PX = 4
"""Grid pixels per cell of the head; the encoder's patches are as large, or a whole multiple of it."""
PIXEL_LAYERS = 2
"""Flattened pixels, matched filter."""
CLUSTER_LAYERS = 1
"""Share of the particle clusters; the tokens' dimensions follow."""
CHANNELS = 48
STEM_CHANNELS = 32
DILATIONS = (1, 1, 2, 1, 4, 1, 8, 2, 1)
"""Of the body's 3 x 3 convolutions: together they see 21 cells, three particles and a half, to every side."""
TAIL_DILATIONS = (1, 2, 1)
"""Number of convolutions after the context of the whole micrograph was added to each cell."""
KINDS, CONTEXT_UNITS = 4, 64
"""Kinds of cells that are counted and described over the whole micrograph; units that make something of it."""
LEAST_SHARE = 1e-3
MOST_CERTAIN = 1 - 1e-6
UNCALIBRATED = (1.0, 0.0, 0.0)
"""Slope, shift and least evidence of a head that is not balanced yet."""
F1_SLOPE, F1_SHIFT = 2.5, 0.5
"""The balanced point's log-odds, over those of half the F1 to expect, and at an F1 of 1: where much is in doubt there
are more particles than their chances tell."""
UNREACHABLE_DENSITY = 1e3
"""Density that no micrograph reaches, in particles per square diameter."""
MOST_FEW, CLEAR_LOG_ODDS, APART_LOG_ODDS = 3, 3.5, 2.0
"""So few candidates above 0.5 are particles, whatever is missing in total, where the best has such log-odds, or where
those of all others are so much lower: junk comes in all shades."""
LEAST_LOG_ODDS = -4.0
"""Candidates with less are not known."""
LEAST_MEDIAN = 0.5
"""Median log-odds of those above 0: where most are below, as among grains of ice, the best of them are no evidence."""
BEST_REJECTED_ODDS = 0.9
"""Odds of the best candidate on a micrograph that is taken to show no particle."""
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


class Context(nn.Module):
    """Adds the context of the whole micrograph to each cell.

    One dark blob may be a particle or a grain of ice; a hundred that are alike are particles, a hundred of all sizes
    are not. Of each kind of cell, which the network chooses, the share, the mean features and their deviation are taken
    over the micrograph, and scale and shift the features of every cell.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        described = KINDS * (2 * channels + 1)
        self.kinds = nn.Conv2d(channels, KINDS, 1)
        self.norm = nn.BatchNorm1d(described)
        self.mlp = nn.Sequential(nn.Linear(described, CONTEXT_UNITS), nn.ReLU(), nn.Linear(CONTEXT_UNITS, 2 * channels))
        nn.init.zeros_(self.mlp[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.mlp[-1].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """Keep the shape (batch, channels, rows, columns); only cells `inside` (batch, rows, columns) are counted."""
        with torch.autocast(x.device.type, enabled=False):
            features, counted = x.float(), inside.float()
            kinds = torch.sigmoid(self.kinds(features)) * counted[:, None]
            total = kinds.sum((2, 3)).clamp(min=LEAST_SHARE)
            mean = torch.einsum("bkrc,bdrc->bkd", kinds, features) / total[..., None]
            square = torch.einsum("bkrc,bdrc->bkd", kinds, features.square()) / total[..., None]
            deviation = (square - mean.square()).clamp(min=1e-4).sqrt()
            share = torch.log(total / counted.sum((1, 2)).clamp(min=1)[:, None] + LEAST_SHARE)
            described = torch.cat([mean.flatten(1), deviation.flatten(1), share], 1)
            scale, shift = self.mlp(self.norm(described))[..., None, None].chunk(2, 1)
        told: Tensor = x * (1 + scale) + shift
        return told


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
    least_density: Tensor

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
        self.context = Context(channels)
        self.tail = nn.Sequential(*(Residual(channels, dilation) for dilation in TAIL_DILATIONS))
        self.out = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 3, 1))
        self.register_buffer("calibration", torch.tensor(UNCALIBRATED))
        self.register_buffer("least_density", torch.tensor(UNREACHABLE_DENSITY))

    def forward(self, pixels: Tensor, cells: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Score every cell.

        Parameters
        ----------
        pixels : Tensor, shape (batch, PIXEL_LAYERS, CELL_PX * rows, CELL_PX * columns)
        cells : Tensor, shape (batch, CLUSTER_LAYERS + embed_dim, rows / n, columns / n)
            Where the encoder's patches are n cells wide.
        inside : Tensor, shape (batch, rows, columns)
            Not 0 where there is image: these cells are the context of the micrograph.

        Returns
        -------
        log_odds : Tensor, shape (batch, rows, columns)
        offset : Tensor, shape (batch, 2, rows, columns)
            From the cell's centre to the particle's, x and y, in cells.
        """
        fine, coarse = self.stem(pixels), self.cells(cells)
        if coarse.shape != fine.shape:
            coarse = F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
        near = self.body(fine + coarse)
        out = self.out(self.tail(self.context(near, inside)))
        return out[:, 0], out[:, 1:]

    def score(self, log_odds: Tensor) -> Tensor:
        """Turn log-odds into figures of merit in 0..1: slope and shift of `calibration` make 0.5 the balanced point."""
        slope, shift, _ = self.calibration
        return torch.sigmoid(slope * log_odds + shift)

    @property
    def least_log_odds(self) -> float:
        """Total log-odds below which a micrograph counts as empty, see :func:`evidence`.

        Unless it shows the `least_density` of them, in particles per square diameter: what is known of the data set.
        """
        return float(self.calibration[2])

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
        state.setdefault("least_density", torch.tensor(UNREACHABLE_DENSITY))
        if version != VERSION:
            raise RuntimeError(f"its head has version {version}, this release reads version {VERSION}")
        channels, layers = state["cells.1.weight"].shape[:2]
        head = cls(layers - CLUSTER_LAYERS, channels)
        missing, unexpected = head.load_state_dict(state, strict=False)
        missing = [name for name in missing if not name.endswith("num_batches_tracked")]
        if missing or unexpected:
            raise RuntimeError(f"its head lacks {missing} and has {unexpected}")
        head.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return head.eval().requires_grad_(False)


def head_inputs(
    pixels: Tensor, sigmas: Tensor, tokens: Tensor, cluster: Tensor, patch_px: int = CELL_PX
) -> tuple[Tensor, Tensor]:
    """Stack what the head reads, both for a batch of one.

    Parameters
    ----------
    pixels, sigmas : Tensor, shape (height, width)
        Flattened pixels, and the matched filter's response in deviations.
    tokens : Tensor, shape (rows, columns, embed_dim)
        Embedding.
    cluster : Tensor, shape (rows, columns)
        Share of the particle clusters, 0 to 1.
    patch_px : int
        Grid pixels per token.

    Returns
    -------
    pixels : Tensor, shape (1, PIXEL_LAYERS, patch_px * rows, patch_px * columns)
        0 beyond the frame.
    cells : Tensor, shape (1, CLUSTER_LAYERS + embed_dim, rows, columns)
    """
    rows, columns = (n * patch_px for n in cluster.shape)
    height, width = pixels.shape
    fine = torch.stack([pixels, sigmas.clamp(*RESPONSE_LIMITS) / RESPONSE_SCALE])
    fine = F.pad(fine, (0, columns - width, 0, rows - height))
    coarse = torch.cat([(2 * cluster - 1)[None], tokens.permute(2, 0, 1)])
    return fine[None], coarse[None]


def whole_cells(inside: Tensor, rows: int, columns: int) -> Tensor:
    """Tell the cells (rows, columns) all of whose pixels are `inside` (height, width), a mask of grid pixels; bool."""
    height, width = inside.shape
    outside = 1 - F.pad(inside.float(), (0, columns * CELL_PX - width, 0, rows * CELL_PX - height))
    return F.max_pool2d(outside[None], CELL_PX)[0] < 0.5


def score_cells(head: Head, pixels: Tensor, cells: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Score one micrograph upright and upside down, and take the mean, since the errors differ.

    Parameters
    ----------
    pixels, cells : Tensor
        As :func:`head_inputs` gives them.
    inside : Tensor, shape (rows, columns), bool
        Cells that are the context of the micrograph, see :func:`whole_cells`.

    Returns
    -------
    log_odds : Tensor, shape (rows, columns)
    offset : Tensor, shape (2, rows, columns)
    """
    pixels, cells = (layer.to(memory_format=torch.channels_last) for layer in (pixels, cells))
    upright, way = head(pixels, cells, inside[None])
    upside_down = (layer.flip(-2, -1) for layer in (pixels, cells, inside[None]))
    turned, way_turned = (out.flip(-2, -1) for out in head(*upside_down))
    return (upright[0] + turned[0]) / 2, (way[0] - way_turned[0]) / 2


def log_odds_of_picks(score: NDArray[np.floating]) -> NDArray[np.float64]:
    """Turn those figures of merit (N,) that are above 0.5 back into log-odds, shape (M,)."""
    return np.asarray(np.log(_odds(score[score > 0.5])), np.float64)


def total_log_odds(score: NDArray[np.floating]) -> float:
    """Add up what speaks for particles on a micrograph: the log-odds of the figures of merit (N,) above 0.5."""
    return float(log_odds_of_picks(score).sum())


def evidence(log_odds: NDArray[np.floating]) -> float:
    """Tell what speaks for particles on one micrograph: the sum of the log-odds (N,) above 0, if most are clear."""
    picks = log_odds[log_odds > 0]
    return float(picks.sum()) if len(picks) and np.median(picks) >= LEAST_MEDIAN else 0.0


def reject_empty(score: NDArray[np.float32], least_log_odds: float) -> NDArray[np.float32]:
    """Lower the figures of merit (N,) below 0.5 together, their order kept, where there is too little evidence.

    One to three clear particles are evidence enough.
    """
    odds = _odds(score)
    log_odds = np.log(odds)
    if score.max(initial=0.0) <= 0.5 or evidence(log_odds) >= least_log_odds or are_few_and_clear(log_odds):
        return score
    return _from_odds(odds / odds.max() * BEST_REJECTED_ODDS)


def are_few_and_clear(log_odds: NDArray[np.floating]) -> bool:
    """Tell whether one to three candidates are clear: by their own log-odds, or apart from those of all others.

    Parameters
    ----------
    log_odds : ndarray, shape (N,)
        Of all candidates of a micrograph; those above 0 are picks.
    """
    picks, others = log_odds[log_odds > 0], log_odds[log_odds <= 0]
    if not 0 < len(picks) <= MOST_FEW:
        return False
    best_other = float(others.max(initial=LEAST_LOG_ODDS))
    return float(picks.max()) >= CLEAR_LOG_ODDS or float(picks.min()) - best_other >= APART_LOG_ODDS


def expected_f1(score: NDArray[np.floating]) -> float:
    """F1 to expect of the best choice among candidates whose chances (N,) of being a particle are known; 0 of none.

    Of n particles that the chances add up to, the best k candidates hold as many as their own chances add up to.
    """
    best_first = np.sort(score.astype(np.float64))[::-1]
    picks = np.arange(1, len(best_first) + 1)
    f1 = 2 * best_first.cumsum() / (picks + best_first.sum() + LEAST_SHARE)
    return float(f1.max(initial=0.0))


def calibrate_micrograph(score: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shift the figures of merit (N,) of one micrograph such that from 0.5 on its picks are worth most.

    Taken as chances, they are worth most from half the F1 that is to be expected (Lipton, Elkan and Naryanaswamy 2014,
    Optimal thresholding of classifiers to maximize F1 measure): from 0.5 where everything is clear, from less where
    much is in doubt. There they are too low as chances, hence `F1_SLOPE`. Nothing changes on a micrograph without one
    above 0.5, or with a few clear ones: what is left is junk then.
    """
    if score.max(initial=0.0) <= 0.5 or are_few_and_clear(np.log(_odds(score))):
        return score
    half = expected_f1(score) / 2
    return _from_odds(_odds(score) * ((1 - half) / half) ** F1_SLOPE / np.exp(F1_SHIFT))


def _odds(score: NDArray[np.floating]) -> NDArray[np.float64]:
    certain = score.astype(np.float64).clip(max=MOST_CERTAIN)
    return np.asarray(certain / (1 - certain), np.float64)


def _from_odds(odds: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(odds / (1 + odds), np.float32)


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
