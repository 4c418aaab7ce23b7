"""What is measured at a candidate, with known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryoemmae_plugin.core.condition import Conditioned
from cryoemmae_plugin.core.evidence import Evidence
from cryoemmae_plugin.core.features import FEATURES, Candidates, darkness, log_decoy_share, measure
from cryoemmae_plugin.core.geometry import MicrographFrame
from cryoemmae_plugin.core.template import Response, RoundTemplate, disc_weights


def candidates(matched: list[float], decoys: list[float]) -> Candidates:
    values = np.array(matched)
    xy = np.stack([30.0 + 20 * np.arange(len(values)), np.full(len(values), 40.0)], axis=1)
    return Candidates(xy, values.astype(np.float32), values, np.array(decoys, np.float32))


def scene() -> tuple[Conditioned, Response, Evidence]:
    pixels = torch.zeros(80, 120)
    rows, columns = torch.meshgrid(torch.arange(80.0), torch.arange(120.0), indexing="ij")
    pixels[torch.hypot(columns - 30, rows - 40) < 12] = -5.0
    valid = torch.ones(80, 120, dtype=torch.bool)
    frame = MicrographFrame((80, 120), (80, 120))
    evidence = Evidence(torch.zeros(20, 30), torch.zeros(20, 30), 4)
    return Conditioned(pixels, valid, frame, 24.0), Response(-pixels, -pixels, RoundTemplate(0.7)), evidence


def test_the_decoy_share_is_counted_above_each_candidate() -> None:
    share = log_decoy_share(candidates([5.0, 4.0, 3.0, 2.5], [3.2, 2.6, 2.2]))
    expected = np.log([1 / 2, 1 / 3, 2 / 4, 3 / 5])
    assert share == pytest.approx(np.minimum.accumulate(expected[::-1])[::-1])


def test_as_many_decoys_as_candidates_is_chance() -> None:
    assert log_decoy_share(candidates([3.0, 2.5, 2.2], [3.1, 2.6, 2.3])).max() >= 0


def test_without_candidates_there_is_nothing_to_measure() -> None:
    conditioned, response, evidence = scene()
    nothing = Candidates(np.zeros((0, 2)), np.zeros(0, np.float32), np.zeros(0), np.zeros(0, np.float32))
    assert measure(nothing, conditioned, response, evidence).shape == (0, len(FEATURES))
    assert darkness(nothing, conditioned).shape == (0,)


def test_a_disc_that_is_too_dark_for_protein_is_noticed() -> None:
    conditioned, response, evidence = scene()
    measured = measure(candidates([5.0, 2.0, 2.0], []), conditioned, response, evidence)
    extreme, wide = (measured[:, FEATURES.index(name)] for name in ("extreme", "wide_darkness"))
    assert extreme[0] > 0.95
    assert extreme[2] == pytest.approx(0, abs=1e-5)
    assert wide[0] > wide[2] > -1e-6


def test_darkness_is_the_mean_of_the_disc() -> None:
    conditioned, _, _ = scene()
    found = darkness(candidates([5.0, 2.0, 2.0], []), conditioned)
    assert found[0] == pytest.approx(5.0, abs=0.2)
    assert found[2] == pytest.approx(0.0, abs=1e-4)


def test_a_disc_weighs_one_and_is_symmetric() -> None:
    weights = disc_weights(24.0)
    assert float(weights.sum()) == pytest.approx(1.0)
    assert torch.equal(weights, weights.flip(0, 1))
