"""Figures of one picker on one set, with confidence intervals from resampled micrographs.

The rules are those of :mod:`cryoemmae_plugin.evaluation.metrics`. An interval holds 95 % of the figures of 1000 sets
drawn from the micrographs at hand, with replacement; it says how far the figure depends on which micrographs these
happen to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.evaluation.metrics import (
    RULES,
    Reference,
    Rule,
    Scored,
    average_precision,
    evaluate,
    match,
)

RESAMPLES = 1000
RESAMPLING_SEED = 20260101
INTERVAL = (2.5, 97.5)
RANK_STEP = 0.02
"""Thresholds are tried at every so many picks, relative to the number of reference particles..."""
MOST_PICKS = 4.0
"""...up to so many times that number."""
FIGURES = ("iou06", "half_d", "ap", "ap_picks", "mean_iou", "best_iou06", "best_half_d")


@dataclass(frozen=True)
class Figure:
    """A measured value and its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SetScore:
    """One picker on one set.

    Attributes
    ----------
    figures : dict of str to Figure
        On a set with particles: ``iou06``, ``half_d`` (F1 at the default threshold), ``ap`` (of all candidates),
        ``ap_picks`` (of those above the default threshold, all that a STAR of picks shows), ``mean_iou``,
        ``best_iou06`` and ``best_half_d`` (F1, each at the threshold best for it on this set); on one without:
        ``false_picks`` (per micrograph).
    samples : dict of str to ndarray, shape (RESAMPLES,)
        The same on resampled sets.
    best_at : float
        Threshold of ``best_half_d``; NaN on a set without particles.
    offset : tuple of float
        Mean (x, y) of right picks from their particles, in pixels: far from 0 where coordinates are in another frame.
    """

    set: str
    picker: str
    micrographs: int
    picks_each: float
    seconds_each: float
    best_at: float
    offset: tuple[float, float]
    figures: dict[str, Figure]
    samples: dict[str, NDArray[np.float64]]

    def as_json(self) -> dict[str, object]:
        """Everything but the samples."""
        return {key: value for key, value in asdict(self).items() if key != "samples"}


def score_set(
    name: str,
    picker: str,
    reference: Mapping[str, Reference],
    candidates: Mapping[str, Scored],
    default_threshold: float,
    seconds_each: float,
) -> SetScore:
    """Score one picker's candidates on one set.

    Parameters
    ----------
    reference, candidates : mapping of str
        By the stem of the micrograph; `candidates` with scores, those below the default threshold included.
    default_threshold : float
        Candidates of at least this score are what the picker picks unasked.
    """
    picks = above(candidates, default_threshold)
    positive = sorted(stem for stem, ref in reference.items() if len(ref.xy))
    if positive:
        figures, samples, best_at = _with_particles(positive, reference, candidates, default_threshold)
    else:
        counts = np.array([len(picks[stem].xy) for stem in sorted(reference)], float)
        drawn = counts[_draws(len(counts))].mean(axis=1)
        figures, samples, best_at = {"false_picks": _figure(counts.mean(), drawn)}, {"false_picks": drawn}, float("nan")
    each = float(np.mean([len(picks[stem].xy) for stem in reference]))
    offset = _mean_offset(reference, picks)
    return SetScore(name, picker, len(reference), each, seconds_each, best_at, offset, figures, samples)


def above(candidates: Mapping[str, Scored], threshold: float) -> dict[str, Scored]:
    """Return the candidates with at least this score."""
    return {
        stem: Scored(found.xy[found.score >= threshold], found.score[found.score >= threshold])
        for stem, found in candidates.items()
    }


def mean_over_sets(scores: list[SetScore], figure: str) -> Figure:
    """Mean of one figure over sets, each set counting the same; NaN where no set has it."""
    having = [score for score in scores if figure in score.figures]
    if not having:
        return Figure(float("nan"), float("nan"), float("nan"))
    value = float(np.mean([score.figures[figure].value for score in having]))
    return _figure(value, np.mean([score.samples[figure] for score in having], axis=0))


def _with_particles(
    stems: list[str], reference: Mapping[str, Reference], candidates: Mapping[str, Scored], default_threshold: float
) -> tuple[dict[str, Figure], dict[str, NDArray[np.float64]], float]:
    truth = {stem: reference[stem] for stem in stems}
    picks = above(candidates, default_threshold)
    at_default = evaluate(truth, picks)
    thresholds = _thresholds(truth, candidates, default_threshold)
    curves = {rule: _f1_curves(truth, candidates, thresholds, rule) for rule in RULES}
    draws = _draws(len(stems))
    values: dict[str, float] = {rule: at_default.mean[rule].f1 for rule in RULES}
    samples = {
        rule: np.array([row.rules[rule].f1 for row in at_default.micrographs])[draws].mean(axis=1) for rule in RULES
    }
    for key, ranked in (("ap", candidates), ("ap_picks", picks)):
        values[key] = evaluate(truth, ranked).average_precision
        samples[key] = _sampled_average_precision(truth, ranked, draws)
    values["mean_iou"] = at_default.mean_iou
    samples["mean_iou"] = np.array([row.mean_iou for row in at_default.micrographs])[draws].mean(axis=1)
    for rule, curve in curves.items():
        values[f"best_{rule}"] = float(curve.mean(axis=0).max())
        samples[f"best_{rule}"] = np.array([curve[draw].mean(axis=0).max() for draw in draws])
    best_at = float(thresholds[curves["half_d"].mean(axis=0).argmax()])
    return {key: _figure(value, samples[key]) for key, value in values.items()}, samples, best_at


def _mean_offset(reference: Mapping[str, Reference], picks: Mapping[str, Scored]) -> tuple[float, float]:
    """Where right picks lie from their particles, on average; NaN without any."""
    offsets = [np.zeros((0, 2))]
    for stem, ref in reference.items():
        i, j = match(ref.xy, picks[stem].xy, ref.diameter, "half_d").T
        offsets.append(picks[stem].xy[j] - ref.xy[i])
    together = np.concatenate(offsets)
    if not len(together):
        return float("nan"), float("nan")
    x, y = together.mean(axis=0)
    return float(x), float(y)


def _thresholds(
    truth: Mapping[str, Reference], candidates: Mapping[str, Scored], default_threshold: float
) -> NDArray[np.float64]:
    """Thresholds worth trying: the default, and the scores at ranks from a few picks to far too many."""
    ranked = np.sort(np.concatenate([candidates[stem].score for stem in truth]))[::-1]
    total = sum(len(ref.xy) for ref in truth.values())
    ranks = np.unique((np.arange(RANK_STEP, MOST_PICKS, RANK_STEP) * total).astype(int))
    return np.unique(np.append(ranked[ranks[ranks < len(ranked)]], default_threshold))


def _f1_curves(
    truth: Mapping[str, Reference], candidates: Mapping[str, Scored], thresholds: NDArray[np.float64], rule: Rule
) -> NDArray[np.float64]:
    """F1 of each micrograph at each threshold, shape (micrographs, thresholds)."""
    out = np.zeros((len(truth), len(thresholds)))
    for row, (stem, ref) in enumerate(truth.items()):
        found = candidates[stem]
        for column, threshold in enumerate(thresholds):
            xy = found.xy[found.score >= threshold]
            out[row, column] = 2 * len(match(ref.xy, xy, ref.diameter, rule)) / (len(ref.xy) + len(xy))
    return out


def _sampled_average_precision(
    truth: Mapping[str, Reference], candidates: Mapping[str, Scored], draws: NDArray[np.intp]
) -> NDArray[np.float64]:
    hits, scores, counts = [], [], []
    for stem, ref in truth.items():
        found = candidates[stem]
        hit = np.zeros(len(found.xy), bool)
        hit[match(ref.xy, found.xy, ref.diameter, "half_d")[:, 1]] = True
        hits.append(hit)
        scores.append(found.score)
        counts.append(len(ref.xy))
    return np.array(
        [
            average_precision(
                np.concatenate([scores[n] for n in draw]),
                np.concatenate([hits[n] for n in draw]),
                sum(counts[n] for n in draw),
            )
            for draw in draws
        ]
    )


def _draws(micrographs: int) -> NDArray[np.intp]:
    """Which micrographs each resampled set holds, shape (RESAMPLES, micrographs); the same at every call."""
    return np.random.default_rng(RESAMPLING_SEED).integers(0, micrographs, (RESAMPLES, micrographs))


def _figure(value: float, samples: NDArray[np.float64]) -> Figure:
    if np.isnan(samples).all():
        return Figure(float(value), float("nan"), float("nan"))
    low, high = np.nanpercentile(samples, INTERVAL)
    return Figure(float(value), float(low), float(high))
