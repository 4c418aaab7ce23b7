"""Score picks against reference coordinates.

Two rules say when a pick has found a reference particle; both match one to one, the closest pair first:

iou06
    boxes of side = diameter around the two overlap with an IoU of at least 0.6 (Zamanos et al. 2025);
half_d
    the two centres are at most half a diameter apart (the looser rule of most other papers).

Recall, precision and F1 are means over the micrographs that have reference particles; one without picks counts 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryoemmae_plugin.picks.matching import close_pairs

Rule = Literal["iou06", "half_d"]
RULES: tuple[Rule, ...] = ("iou06", "half_d")
MIN_IOU = 0.6


@dataclass(frozen=True)
class Reference:
    """Where the particles of one micrograph are.

    Attributes
    ----------
    xy : ndarray, shape (N, 2)
        Centres in pixels; none at all means that the micrograph is known to hold no particle.
    diameter : float
        Particle diameter in pixels.
    micrograph : str
        Its name in the table, with folder and suffix.
    """

    xy: NDArray[np.float64]
    diameter: float
    micrograph: str = ""


@dataclass(frozen=True)
class Scored:
    """Picks of one micrograph: `xy`, shape (N, 2), in pixels and `score`, shape (N,), NaN where there is none."""

    xy: NDArray[np.float64]
    score: NDArray[np.float64]


@dataclass(frozen=True)
class RuleScore:
    """Recall, precision and F1 under one rule."""

    recall: float
    precision: float
    f1: float


@dataclass(frozen=True)
class MicrographScore:
    """How well the picks of one micrograph meet its reference."""

    micrograph: str
    reference: int
    picks: int
    mean_iou: float
    rules: Mapping[Rule, RuleScore]


@dataclass(frozen=True)
class Evaluation:
    """A set of micrographs scored.

    Attributes
    ----------
    micrographs : tuple of MicrographScore
        Those with reference particles, by name.
    mean : RuleScore by rule
        Means over `micrographs`.
    mean_iou : float
        Mean over micrographs of the mean IoU of each reference particle with its nearest pick.
    average_precision : float
        Under half_d, pooled over all micrographs and ranked by score; NaN where a pick has no score.
    negatives : int
        Micrographs known to hold no particle.
    false_picks : float
        Mean picks on a negative micrograph; NaN when there is none.
    """

    micrographs: tuple[MicrographScore, ...]
    mean: Mapping[Rule, RuleScore]
    mean_iou: float
    average_precision: float
    negatives: int
    false_picks: float


def evaluate(reference: Mapping[str, Reference], picks: Mapping[str, Scored]) -> Evaluation:
    """Score picks against reference coordinates, both by micrograph; picks on unknown micrographs are left out."""
    nothing = Scored(np.zeros((0, 2)), np.zeros(0))
    scores: list[MicrographScore] = []
    hits: list[NDArray[np.bool_]] = []
    ranks: list[NDArray[np.float64]] = []
    for name in sorted(name for name, ref in reference.items() if len(ref.xy)):
        found = picks.get(name, nothing)
        score, hit = _score_micrograph(name, reference[name], found)
        scores.append(score)
        hits.append(hit)
        ranks.append(found.score)
    total = sum(score.reference for score in scores)
    negative = [len(picks.get(name, nothing).xy) for name, ref in reference.items() if not len(ref.xy)]
    return Evaluation(
        micrographs=tuple(scores),
        mean={rule: _mean_rule([score.rules[rule] for score in scores]) for rule in RULES},
        mean_iou=_mean([score.mean_iou for score in scores]),
        average_precision=average_precision(np.concatenate(ranks), np.concatenate(hits), total)
        if scores
        else float("nan"),
        negatives=len(negative),
        false_picks=_mean(negative),
    )


def match(reference: NDArray[np.float64], picks: NDArray[np.float64], diameter: float, rule: Rule) -> NDArray[np.intp]:
    """Pair reference particles with picks, one to one, the closest pair first.

    Parameters
    ----------
    reference, picks : ndarray, shapes (N, 2) and (M, 2)
        Centres in pixels.
    diameter : float
        Particle diameter in pixels.
    rule : {"iou06", "half_d"}
        What may be paired at all.

    Returns
    -------
    ndarray, shape (K, 2)
        Indices (reference, pick) of the pairs.
    """
    if rule == "half_d":
        return close_pairs(reference, picks, diameter / 2)
    return close_pairs(reference, picks, diameter, lambda offset: box_iou(offset, diameter) >= MIN_IOU)


def box_iou(offset: NDArray[np.float64], side: float) -> NDArray[np.float64]:
    """IoU of two squares of the same side whose centres are `offset`, shape (N, 2), apart; shape (N,)."""
    shared = np.maximum(side - np.abs(offset), 0.0)
    intersection = shared[:, 0] * shared[:, 1]
    iou: NDArray[np.float64] = intersection / (2 * side**2 - intersection)
    return iou


def average_precision(score: NDArray[np.float64], hit: NDArray[np.bool_], n_reference: int) -> float:
    """Sum of the precision at each hit over the number of reference particles; NaN without picks or without scores."""
    if not len(score) or np.isnan(score).any():
        return float("nan")
    ranked = hit[np.argsort(-score, kind="stable")]
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return float(precision[ranked].sum() / n_reference)


def _score_micrograph(name: str, reference: Reference, picks: Scored) -> tuple[MicrographScore, NDArray[np.bool_]]:
    """The score of one micrograph and, pick by pick, whether it is right under half_d."""
    n, m = len(reference.xy), len(picks.xy)
    pairs = {rule: match(reference.xy, picks.xy, reference.diameter, rule) for rule in RULES}
    hit = np.zeros(m, bool)
    hit[pairs["half_d"][:, 1]] = True
    mean_iou = 0.0
    if m:
        nearest = cKDTree(picks.xy).query(reference.xy)[1]
        mean_iou = float(box_iou(reference.xy - picks.xy[nearest], reference.diameter).mean())
    rules = {rule: _rule_score(len(pairs[rule]), n, m) for rule in RULES}
    return MicrographScore(micrograph=name, reference=n, picks=m, mean_iou=mean_iou, rules=rules), hit


def _rule_score(pairs: int, reference: int, picks: int) -> RuleScore:
    recall, precision = pairs / reference, pairs / picks if picks else 0.0
    return RuleScore(recall, precision, 2 * pairs / (reference + picks))


def _mean(values: list[float] | list[int]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _mean_rule(scores: list[RuleScore]) -> RuleScore:
    return RuleScore(
        _mean([s.recall for s in scores]), _mean([s.precision for s in scores]), _mean([s.f1 for s in scores])
    )
