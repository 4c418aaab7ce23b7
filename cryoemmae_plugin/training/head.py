"""Fix the default mode's head on simulated micrographs, and make 0.5 its balanced point on others of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cryoemmae_plugin.core.default import GRID_DIAMETER_PX, LEAST_DISTANCE, LEAST_SCORE
from cryoemmae_plugin.core.head import (
    CELL_PX,
    CLUSTER_LAYERS,
    UNCALIBRATED,
    Head,
    are_few_and_clear,
    calibrate_micrograph,
    evidence,
    find_centres,
    score_cells,
)
from cryoemmae_plugin.core.suppression import non_maximum_suppression
from cryoemmae_plugin.device import multiplies_bfloat16
from cryoemmae_plugin.errors import Interrupted
from cryoemmae_plugin.training.checkpoint import read_checkpoint, restoring, write_checkpoint
from cryoemmae_plugin.training.examples import Example
from cryoemmae_plugin.training.optimizer import AdamW

NOISE_CHANCE, NOISE = 0.25, (0.1, 0.4)
"""Share of the crops whose pixels get noise added, and how much."""
BLIND_CHANCES = {"cluster": 0.15, "cells": 0.15, "response": 0.25}
"""Share of the crops in which the head must do without the clusters, all of the embedding, the matched filter: each
fails on some specimens, and none shall be trusted blindly."""
GAIN_CHANCE, GAIN = 0.3, 0.12
"""Share of the crops whose pixels are rescaled, and the deviation of the factor's logarithm."""
OFFSET_WEIGHT, HEAT_WEIGHT = 0.5, 10.0
CLIP_NORM = 2.0
LARGEST_LOG_ODDS = 30.0
HIT_RADIUS = 0.3
"""A candidate within this distance of a known centre, in diameters, and no other being nearer, is a particle."""
MOST_EVIDENCE = 30.0
"""A micrograph with more is never taken to show no particle."""
NEXT_TO_NOTHING = 0.003
"""Difference in worth that a few hundred micrographs do not tell."""
WORTHLESS_PICKS = 2
"""An empty micrograph with so many picks is as bad as one whose particles were all missed."""


@dataclass(frozen=True)
class HeadSettings:
    """How a head is trained.

    Attributes
    ----------
    rate : float
        Peak learning rate of AdamW; it rises over `warmup` steps and falls as a cosine.
    crop_cells : int
        Side of the crops that it is trained on: 16 particle diameters, so that they show what the micrograph shows.
    """

    steps: int = 6000
    batch: int = 4
    rate: float = 3e-3
    least_rate: float = 1e-5
    warmup: int = 50
    weight_decay: float = 1e-2
    seed: int = 0
    checkpoint_steps: int = 200
    crop_cells: int = 96


def train_head(
    examples: Sequence[Example],
    settings: HeadSettings | None = None,
    start: Head | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[int, int, float], None] = lambda done, total, loss: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Head:
    """Train a head; not calibrated yet.

    Parameters
    ----------
    start : Head, optional
        One to train further. Where its encoder's tokens have another size, the layer that reads them begins anew.
    checkpoint : Path, optional
        File to go on from, and to keep the state in.
    progress : callable
        Told steps done, steps in all, and the running loss.

    Raises
    ------
    Interrupted
        When `should_stop` says True; the checkpoint is up to date.
    """
    settings = settings or HeadSettings()
    head = _begin(start, examples[0].cells.shape[0] - CLUSTER_LAYERS, settings.seed)
    optimizer = AdamW(head.parameters(), settings.weight_decay)
    done, running = _resume(checkpoint, head, optimizer)
    examples = [_at_least(example, settings.crop_cells) for example in examples]
    for step in range(done, settings.steps):
        stop = should_stop()
        if checkpoint and step > done and (stop or step % settings.checkpoint_steps == 0):
            _keep(checkpoint, head, optimizer, step, running)
        if stop:
            raise Interrupted("stopped while the head was trained; run the same command again to go on")
        rng = np.random.default_rng([settings.seed, step])
        loss = _loss(head, *draw_batch(examples, settings.batch, settings.crop_cells, rng))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(head.parameters(), CLIP_NORM)
        optimizer.step(learning_rate(step, settings))
        running = loss.item() if math.isnan(running) else 0.98 * running + 0.02 * loss.item()
        progress(step + 1, settings.steps, running)
    return head.eval().requires_grad_(False)


def _begin(start: Head | None, embed_dim: int, seed: int) -> Head:
    """Copy the head to train further, or make a new one."""
    if start is None:
        head = _new(embed_dim, seed)
    elif start.embed_dim == embed_dim:
        head = copy.deepcopy(start).requires_grad_(True)
    else:
        head = _for_other_tokens(start, embed_dim)
    head.calibration.copy_(torch.tensor(UNCALIBRATED))
    return head.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _new(embed_dim: int, seed: int) -> Head:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = Head(embed_dim)
    last = head.out[-1]
    assert isinstance(last, torch.nn.Conv2d)
    assert last.bias is not None
    torch.nn.init.constant_(last.bias[:1], -3.0)  # most cells hold no centre
    return head


def _for_other_tokens(start: Head, embed_dim: int) -> Head:
    """Copy a head but for the layer that reads tokens, which have another size: it begins as if it saw none."""
    head = Head(embed_dim)
    state = {name: tensor for name, tensor in start.state_dict().items() if not name.startswith("cells.0.")}
    state["cells.1.weight"] = torch.zeros_like(head.state_dict()["cells.1.weight"])
    head.load_state_dict(state, strict=False)
    return head


def mean_head(first: Head, second: Head, share: float = 0.5) -> Head:
    """Average the weights of two heads, one trained on from the other, `share` being the second's; not calibrated yet.

    What a head has learned on many scenes outlasts a short training on few that way.
    """
    mean = copy.deepcopy(first)
    with torch.no_grad():
        for mine, theirs in zip(mean.state_dict().values(), second.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, share)
    mean.calibration.copy_(torch.tensor(UNCALIBRATED))
    return mean


def part_way(head: Head, trained: Head, share: float) -> Head:
    """Return a head `share` of the way to what training has made of it; it keeps its calibration, and is for use."""
    between = mean_head(head, trained, share)
    between.calibration.copy_(head.calibration)
    return between.eval().requires_grad_(False)


def learning_rate(step: int, settings: HeadSettings) -> float:
    """Rise linearly, then fall as a cosine."""
    fall = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return max(settings.rate * min(1.0, (step + 1) / settings.warmup) * fall, settings.least_rate)


def _loss(head: Head, pixels: Tensor, cells: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the heat over what its entropy makes unavoidable, and the error of the way to the centre."""
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=multiplies_bfloat16(pixels.device)):
        log_odds, offset = head(pixels, cells, target[:, 4])
    heat, way, near, judged = target[:, 0], target[:, 1:3], target[:, 3] * target[:, 4], target[:, 4]
    entropy = F.binary_cross_entropy(heat, heat, reduction="none")
    surplus = F.binary_cross_entropy_with_logits(log_odds.float(), heat, reduction="none") - entropy
    miss = F.smooth_l1_loss(offset.float(), way, reduction="none").sum(1)
    heat_loss = (surplus * judged).sum() / judged.sum().clamp(min=1)
    return HEAT_WEIGHT * heat_loss + OFFSET_WEIGHT * (miss * near).sum() / near.sum().clamp(min=1)


def draw_batch(
    examples: Sequence[Example], batch: int, crop_cells: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw crops, turned and mirrored at random: pixels, cells and target, stacked."""
    sides = np.array([example.target[0].numel() for example in examples]) ** 0.5
    crops = [_crop(examples[at], crop_cells, rng) for at in rng.choice(len(examples), batch, p=sides / sides.sum())]
    pixels, cells, target = (torch.stack(layers) for layers in zip(*crops, strict=True))
    return pixels.to(memory_format=torch.channels_last), cells.to(memory_format=torch.channels_last), target


def _crop(example: Example, side: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns = example.target.shape[1:]
    patch = rows // example.cells.shape[1]  # cells a token
    row, column = (patch * int(rng.integers((n - side) // patch + 1)) for n in (rows, columns))
    down, across = slice(row, row + side), slice(column, column + side)
    fine_down, fine_across = (slice(s.start * CELL_PX, s.stop * CELL_PX) for s in (down, across))
    coarse_down, coarse_across = (slice(s.start // patch, s.stop // patch) for s in (down, across))
    pixels = example.pixels[:, fine_down, fine_across].float()
    cells, target = example.cells[:, coarse_down, coarse_across].float(), example.target[:, down, across].float()
    if rng.random() < 0.5:
        pixels, cells, target = pixels.flip(-1), cells.flip(-1), _mirrored(target)
    quarters = int(rng.integers(4))
    pixels, cells = torch.rot90(pixels, quarters, (1, 2)), torch.rot90(cells, quarters, (1, 2))
    for _ in range(quarters):
        target = _turned(target)
    if rng.random() < NOISE_CHANCE:
        noise = rng.standard_normal(pixels.shape[1:], np.float32) * np.float32(rng.uniform(*NOISE))
        pixels = torch.stack([pixels[0] + torch.from_numpy(noise), *pixels[1:]])
    if rng.random() < GAIN_CHANCE:
        pixels = pixels * float(np.exp(rng.normal(0, GAIN)))
    return *_blinded(pixels, cells, rng), target


def _blinded(pixels: Tensor, cells: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Hide some of what the head reads, at random."""
    hide = {name for name, chance in BLIND_CHANCES.items() if rng.random() < chance}
    if "response" in hide:
        pixels = torch.cat([pixels[:1], torch.zeros_like(pixels[1:])])
    if "cells" in hide:
        cells = torch.zeros_like(cells)
    elif "cluster" in hide:
        cells = torch.cat([torch.zeros_like(cells[:CLUSTER_LAYERS]), cells[CLUSTER_LAYERS:]])
    return pixels, cells


def _mirrored(target: Tensor) -> Tensor:
    """Mirror a target left to right: the way along x changes its sign."""
    heat, dx, dy, near, judged = target.flip(-1)
    return torch.stack([heat, -dx, dy, near, judged])


def _turned(target: Tensor) -> Tensor:
    """Turn a target by a quarter, as `torch.rot90` does: x becomes -y, y becomes x."""
    heat, dx, dy, near, judged = torch.rot90(target, 1, (1, 2))
    return torch.stack([heat, dy, -dx, near, judged])


def _at_least(example: Example, cells: int) -> Example:
    """Extend an example to so many cells on each side, by cells that are not judged."""
    rows, columns = example.target.shape[1:]
    down, across = max(0, cells - rows), max(0, cells - columns)
    if not down and not across:
        return example
    patch = rows // example.cells.shape[1]
    return Example(
        F.pad(example.pixels, (0, across * CELL_PX, 0, down * CELL_PX)),
        F.pad(example.cells, (0, across // patch, 0, down // patch)),
        F.pad(example.target, (0, across, 0, down)),
        example.xy,
    )


def _keep(checkpoint: Path, head: Head, optimizer: AdamW, step: int, running: float) -> None:
    state = {"head": head.state_dict(), "optimizer": optimizer.state_dict()}
    write_checkpoint(checkpoint, state | {"step": step, "running": running})


def _resume(checkpoint: Path | None, head: Head, optimizer: AdamW) -> tuple[int, float]:
    """Load what an earlier call has left; steps done and running loss."""
    if checkpoint is None or not checkpoint.exists():
        return 0, math.nan
    state = read_checkpoint(checkpoint)
    with restoring(checkpoint):
        head.load_state_dict(state["head"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"]), float(state["running"])


@dataclass(frozen=True)
class Answer:
    """What a head found in one example.

    Attributes
    ----------
    log_odds : ndarray, shape (N,)
        Of the candidates, best first.
    particle : ndarray, shape (N,), bool
        Whether each is one.
    known : int
        Particles there are.
    """

    log_odds: NDArray[np.float64]
    particle: NDArray[np.bool_]
    known: int


def answer(head: Head, example: Example) -> Answer:
    """Find the candidates of an example, and tell which of them are particles."""
    with torch.inference_mode():
        log_odds, offset = score_cells(
            head, example.pixels[None].float(), example.cells[None].float(), example.target[4] > 0.5
        )
    judged = log_odds.masked_fill(example.target[4] < 0.5, -LARGEST_LOG_ODDS)
    xy, found = find_centres(judged, offset, -LARGEST_LOG_ODDS / 2)
    keep = non_maximum_suppression(xy, found, LEAST_DISTANCE * GRID_DIAMETER_PX)
    known = example.xy.double().numpy()
    return Answer(found[keep].astype(float), label(xy[keep], known, HIT_RADIUS * GRID_DIAMETER_PX), len(known))


def label(candidates: NDArray[np.float64], known: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    """Tell which candidates (N, 2) are particles: one to one with the known centres (M, 2), within `radius`."""
    particle = np.zeros(len(candidates), bool)
    if len(candidates) and len(known):
        distance = cdist(candidates, known)
        rows, columns = linear_sum_assignment(np.minimum(distance, radius))
        particle[rows[distance[rows, columns] < radius]] = True
    return particle


def calibrate(head: Head, examples: Sequence[Example]) -> Head:
    """Set what turns log-odds into figures of merit, on examples that it was not trained on.

    The slope is that of a logistic regression. The shift puts 0.5 where picks are worth most, see :func:`_worth`: close
    to where precision equals recall, on the side of precision, because empty micrographs count. Where a micrograph is
    then taken to show no particle is also set such that picks are worth most, once those of the others are balanced.
    """
    answers = [answer(head, example) for example in examples]
    slope = _logistic_slope(answers)
    thresholds = np.linspace(-4, 4, 161)
    worth = np.convolve([_mean_worth(answers, t) for t in thresholds], np.ones(9) / 9, mode="same")
    best = float(thresholds[4 + int(worth[4:-4].argmax())])
    least = best_least_evidence(
        [(slope * (a.log_odds - best), _worth(a, _balanced(slope * (a.log_odds - best))), a.known) for a in answers]
    )
    head.calibration.copy_(torch.tensor([slope, -slope * best, least]))
    return head


def _balanced(log_odds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which candidates are picked, given the log-odds (N,) of their figures of merit before the balance."""
    score = np.asarray(1 / (1 + np.exp(-log_odds)), np.float32)
    picked, stored = np.zeros(len(score), bool), score >= LEAST_SCORE
    picked[stored] = calibrate_micrograph(score[stored]) >= 0.5
    return picked


def best_least_evidence(judged: Sequence[tuple[NDArray[np.float64], float, int]]) -> float:
    """Evidence below which it is worth most to pick nothing: the middle of those that are worth as much.

    Micrographs with and without particles count the same together, however many there are of each.

    Parameters
    ----------
    judged : sequence of (log-odds of the figures of merit, worth of the picks, known particles)
        One a micrograph.
    """
    total = np.array([np.inf if are_few_and_clear(found) else evidence(found) for found, _, _ in judged])
    worth, nothing = np.array([worth for _, worth, _ in judged]), np.array([known == 0 for _, _, known in judged])
    share = np.where(nothing, 1 / max(1, nothing.sum()), 1 / max(1, (~nothing).sum()))
    least = np.linspace(0, MOST_EVIDENCE, 61)
    mean = np.array([np.average(np.where(total < at, nothing, worth), weights=share) for at in least])
    smooth = np.convolve(np.pad(mean, 3, mode="edge"), np.ones(7) / 7, mode="valid")
    best, worse = int(smooth.argmax()), np.flatnonzero(smooth < smooth.max() - NEXT_TO_NOTHING)
    first, last = max(worse[worse < best], default=-1) + 1, min(worse[worse > best], default=len(least)) - 1
    return float(least[first] + least[last]) / 2


def _mean_worth(answers: Sequence[Answer], threshold: float) -> float:
    return float(np.mean([_worth(a, a.log_odds >= threshold) for a in answers]))


def _worth(found: Answer, picked: NDArray[np.bool_]) -> float:
    """F1 of the picks of one micrograph; without a particle, 1 for no pick, 0 from `WORTHLESS_PICKS` on."""
    if not found.known:
        return max(0.0, 1 - float(picked.sum()) / WORTHLESS_PICKS)
    return 2 * float(found.particle[picked].sum()) / (float(picked.sum()) + found.known)


def _logistic_slope(answers: Sequence[Answer]) -> float:
    """How steeply the chance of being a particle rises with the log-odds."""
    log_odds = torch.from_numpy(np.concatenate([a.log_odds for a in answers]))
    particle = torch.from_numpy(np.concatenate([a.particle for a in answers])).double()
    weight = torch.cat([torch.full((len(a.particle),), max(a.known, 20) ** -0.5).double() for a in answers])
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(line[0] * log_odds + line[1], particle, weight)
        torch.autograd.backward(value)
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return float(line[0].detach())
