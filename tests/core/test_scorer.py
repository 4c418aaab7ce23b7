"""The scorer and the rules around it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryoemmae_plugin.core.default import drop_close
from cryoemmae_plugin.core.scorer import Scorer
from cryoemmae_plugin.training.scorer import Example, balance, fit_scorer, label


def examples() -> list[Example]:
    """Particles have a larger second measurement than noise; the classes overlap."""
    rng = np.random.default_rng(0)
    out = []
    for _ in range(6):
        particle = rng.random(300) < 0.3
        measured = rng.normal(0, 1, (300, 3)).astype(np.float32)
        measured[particle, 1] += 2.5
        xy = np.stack(np.meshgrid(np.arange(20), np.arange(15)), -1).reshape(-1, 2) * 50.0
        out.append(Example(measured, particle, xy, int(particle.sum()) + 5))
    return out


def test_a_scorer_survives_its_model_folder() -> None:
    scorer = fit_scorer(examples())
    again = Scorer.from_arrays(scorer.arrays())
    measured = examples()[0].measured
    assert np.abs(scorer.score(measured) - again.score(measured)).max() < 1e-5


def test_a_fitted_scorer_ranks_particles_first() -> None:
    scorer, example = fit_scorer(examples()), examples()[0]
    score = scorer.score(example.measured)
    assert score[example.particle].mean() > score[~example.particle].mean() + 0.5


def mean_f1(cases: list[Example], scorer: Scorer, threshold: float) -> float:
    values = []
    for case in cases:
        picked = scorer.score(case.measured) >= threshold
        values.append(2 * (picked & case.particle).sum() / (picked.sum() + case.known))
    return float(np.mean(values))


def test_one_half_is_the_best_threshold() -> None:
    cases = examples()
    scorer = fit_scorer(cases)
    best = max(mean_f1(cases, scorer, threshold) for threshold in np.linspace(0.02, 0.98, 49))
    assert mean_f1(cases, scorer, 0.5) > best - 0.01


def test_picks_on_empty_micrographs_raise_the_bar() -> None:
    cases = examples()
    empty = [Example(c.measured[~c.particle], c.particle[~c.particle], c.xy[~c.particle], 0) for c in cases]
    without, with_empty = balance(fit_scorer(cases), cases), balance(fit_scorer(cases), cases + empty)
    assert with_empty.score(cases[0].measured).mean() < without.score(cases[0].measured).mean()


def test_balancing_does_not_change_the_ranking() -> None:
    cases = examples()
    scorer = fit_scorer(cases)
    measured = cases[0].measured
    with torch.no_grad():
        scorer.layers[-1].bias += 3.0  # type: ignore[union-attr, operator]
    shifted = balance(scorer, cases)
    assert (np.argsort(scorer.score(measured)) == np.argsort(shifted.score(measured))).mean() > 0.99


def test_fitting_twice_gives_the_same_scorer() -> None:
    measured = examples()[0].measured
    assert np.array_equal(fit_scorer(examples()).score(measured), fit_scorer(examples()).score(measured))


def test_each_known_particle_labels_one_candidate_within_reach() -> None:
    candidates = np.array([[10.0, 10.0], [12.0, 10.0], [40.0, 40.0], [80.0, 80.0]])
    known = np.array([[11.9, 10.0], [41.0, 40.0], [95.0, 80.0]])
    assert label(candidates, known, 7.0).tolist() == [False, True, True, False]
    assert not label(candidates, np.zeros((0, 2)), 7.0).any()


def test_of_two_close_candidates_the_better_stays() -> None:
    xy = np.array([[0.0, 0.0], [3.0, 0.0], [50.0, 0.0]])
    assert drop_close(xy, np.array([0.2, 0.9, 0.5], np.float32), 10.0).tolist() == [1, 2]


def test_of_two_equal_candidates_one_stays() -> None:
    assert len(drop_close(np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([0.5, 0.5], np.float32), 10.0)) == 1


def test_nothing_to_score_gives_nothing() -> None:
    scorer = fit_scorer(examples())
    assert scorer.score(np.zeros((0, 3), np.float32)).shape == (0,)
    assert len(drop_close(np.zeros((0, 2)), np.zeros(0, np.float32), 5.0)) == 0


def test_a_model_without_a_scorer_is_named() -> None:
    with pytest.raises(KeyError):
        Scorer.from_arrays({"centroids": torch.zeros(4, 8)})
