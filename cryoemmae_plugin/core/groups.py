"""Groups of picks that look alike: what each group's class average shows, and which group a pick is in.

The averages are made once, of a sample of a data set's picks, and kept with the adapted model. Each pick then belongs
to the group whose average, turned, fits it best.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cryoemmae_plugin.core.class_averages import ANGLES, REACH, average_classes, soft_mask, turned

PREFIX = "groups."
"""Names of a model's arrays about groups begin with this."""
LEAST_PICKS = 60
"""Fewer picks are not grouped."""
MOST_PICKS = 1200
MASK_RADIUS = 0.75
"""Picks are compared within this radius, in diameters."""
ALIKE = 0.9
"""Averages that correlate by at least this are one group."""
LEAST_SHARE = 0.03
"""An average of a smaller share of the picks is no group of its own."""
EDGE_SHARE = 0.5
"""An average is an edge where a plane explains at least this share of it."""
ICE_CONTRAST = 2.0
"""An average with so many times the contrast of the particle's is ice or another dense thing..."""
FAINT_CONTRAST = 0.5
"""...and one with less than this share of it shows nothing that its picks have in common."""
PARTICLE, EDGE, ICE, UNCLEAR = KINDS = ("particle", "edge", "ice", "unclear")
"""What a group looks like; the particle is what the largest group shows that is no edge."""
STEP = 2
"""Picks are compared at every so many pixels, after smoothing: what is finer is noise."""
_BATCH = 512


@dataclass(frozen=True)
class Groups:
    """Groups of picks.

    Attributes
    ----------
    averages : Tensor, shape (K, 2 REACH + 1, 2 REACH + 1)
        Class averages, masked, particles dark.
    number : Tensor, shape (K,), int64
        Group of each average, from 1: the largest group is the first.
    kinds : tuple of str
        What each group looks like, one of :data:`KINDS`.
    shares : tuple of float
        Share of the sample in each.
    """

    averages: Tensor
    number: Tensor
    kinds: tuple[str, ...]
    shares: tuple[float, ...]

    def assign(self, pixels: Tensor, xy: NDArray[np.float64]) -> NDArray[np.int32]:
        """The group (N,) of each pick (N, 2) in a flattened micrograph (rows, columns)."""
        views = _all_turned(_standardised(self.averages, soft_mask(MASK_RADIUS)))
        templates = F.normalize(_coarse(views.flatten(0, 1)).reshape(*views.shape[:2], -1), dim=2)
        smooth = _smooth(F.pad(pixels.cpu(), (REACH, REACH, REACH, REACH))[None])[0]
        limits = [n - 1 for n in pixels.shape[::-1]]
        corner = torch.from_numpy(np.clip(np.rint(xy), 0, limits).astype(np.int64).reshape(-1, 2))
        offset = torch.arange(0, 2 * REACH + 1, STEP)
        found = []
        for start in range(0, len(corner), _BATCH):
            x, y = corner[start : start + _BATCH].T
            patches = smooth[y[:, None, None] + offset[:, None], x[:, None, None] + offset].flatten(1)
            match = torch.einsum("nd,kad->nka", patches, templates).amax(2)
            found.append(self.number[match.argmax(1)].numpy())
        return np.concatenate([np.zeros(0, np.int32), *found]).astype(np.int32)

    def describe(self) -> str:
        """Say which groups there are."""
        named = (
            f"{n} {kind} ({share:.0%})" for n, (kind, share) in enumerate(zip(self.kinds, self.shares, strict=True), 1)
        )
        return f"Picks are grouped by what they look like: {', '.join(named)}"

    def arrays(self) -> dict[str, Tensor]:
        """The tensors that a model folder keeps."""
        kinds = torch.tensor([KINDS.index(kind) for kind in self.kinds])
        named = {"averages": self.averages, "number": self.number, "kinds": kinds, "shares": torch.tensor(self.shares)}
        return {PREFIX + name: tensor.float().contiguous() for name, tensor in named.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor]) -> Groups | None:
        """The groups among a model's arrays; None where it has none."""
        if f"{PREFIX}averages" not in arrays:
            return None
        averages, number, kinds, shares = (arrays[PREFIX + name] for name in ("averages", "number", "kinds", "shares"))
        names = tuple(KINDS[int(kind)] for kind in kinds)
        return cls(averages.float(), number.long(), names, tuple(float(share) for share in shares))


def make_groups(patches: NDArray[np.float32], seed: int = 0) -> Groups | None:
    """Average picks that look alike, and group the averages; None where there are too few.

    Parameters
    ----------
    patches : ndarray, shape (N, 2 REACH + 1, 2 REACH + 1)
        Picks, cut out as :func:`cut_patches` does.
    """
    if len(patches) < LEAST_PICKS:
        return None
    rng = np.random.default_rng(seed)
    chosen = patches[rng.permutation(len(patches))[:MOST_PICKS]]
    averages, shares = average_classes(chosen, soft_mask(MASK_RADIUS), rng)
    number = _joined(averages, shares)
    sizes = np.array([shares[number == n].sum() for n in range(number.max() + 1)])
    order = np.argsort(-sizes, kind="stable")
    number = np.argsort(order)[number]
    kinds = _kinds(averages, shares, number)
    return Groups(
        torch.from_numpy(averages).float(),
        torch.from_numpy(number + 1),
        kinds,
        tuple(round(float(size), 4) for size in sizes[order]),
    )


def _joined(averages: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.intp]:
    """Which averages (K, side, side) are alike: a number (K,) from 0 for each; a small one goes with its likest."""
    large = shares >= LEAST_SHARE
    if len(averages) < 2:
        return np.zeros(len(averages), np.intp)
    unit = _standardised(torch.from_numpy(averages).float(), soft_mask(MASK_RADIUS))
    likeness = torch.einsum("nd,kad->nka", unit.flatten(1), _all_turned(unit).flatten(2)).amax(2).numpy()
    distance = 1 - np.clip((likeness + likeness.T) / 2, 0, 1)
    np.fill_diagonal(distance, 0)
    number = fcluster(linkage(squareform(distance, checks=False), "average"), 1 - ALIKE, "distance")
    for small in np.flatnonzero(~large):
        number[small] = number[large][distance[small][large].argmin()]
    return np.asarray(np.unique(number, return_inverse=True)[1].reshape(-1), np.intp)


def _kinds(averages: NDArray[np.float64], shares: NDArray[np.float64], number: NDArray[np.intp]) -> tuple[str, ...]:
    """What each group looks like."""
    inside = soft_mask(MASK_RADIUS).numpy() > 0.5
    values = averages[:, inside]
    contrast, edge = values.std(1), np.array([_plane_share(one, inside) for one in averages])
    groups = range(number.max() + 1)
    mean = {n: np.average(contrast[number == n], weights=shares[number == n]) for n in groups}
    is_edge = {n: np.average(edge[number == n], weights=shares[number == n]) >= EDGE_SHARE for n in groups}
    particle = next((mean[n] for n in groups if not is_edge[n]), mean[0])

    def kind(n: int) -> str:
        if is_edge[n]:
            return EDGE
        if mean[n] >= ICE_CONTRAST * particle:
            return ICE
        return UNCLEAR if mean[n] < FAINT_CONTRAST * particle else PARTICLE

    return tuple(kind(n) for n in groups)


def _plane_share(average: NDArray[np.float64], inside: NDArray[np.bool_]) -> float:
    """Share of an average's variance that a plane explains."""
    down, across = (axis[inside] for axis in np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1].astype(float))
    values = average[inside] - average[inside].mean()
    design = np.stack([down - down.mean(), across - across.mean()], 1)
    fitted = design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return float((fitted**2).sum() / max((values**2).sum(), 1e-12))


def _standardised(averages: Tensor, mask: Tensor) -> Tensor:
    """Averages (K, side, side) of mean 0 inside the mask, and length 1."""
    inside = averages * mask
    inside = inside - inside.sum((1, 2), keepdim=True) / mask.sum() * mask
    unit: Tensor = inside / inside.square().sum((1, 2), keepdim=True).sqrt().clamp(min=1e-6)
    return unit


def _smooth(images: Tensor) -> Tensor:
    return F.avg_pool2d(images[:, None], 3, stride=1, padding=1)[:, 0]


def _coarse(images: Tensor) -> Tensor:
    """Every so many pixels of images (N, side, side), smoothed, as they are compared."""
    return _smooth(images)[:, ::STEP, ::STEP]


def _all_turned(averages: Tensor) -> Tensor:
    """Averages (K, side, side) at all orientations: (K, ANGLES, side, side), each of length 1."""
    turns = torch.arange(ANGLES) * (2 * torch.pi / ANGLES)
    every = torch.stack([turned(averages, turn.expand(len(averages))) for turn in turns], 1)
    return F.normalize(every.flatten(2), dim=2).view_as(every)
