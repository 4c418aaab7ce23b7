"""Refining a head by picks that were kept and dropped: what it is shown, what it keeps, and that it can be stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cryoemmae_plugin.core.default import GRID_DIAMETER_PX
from cryoemmae_plugin.core.picker import load_head
from cryoemmae_plugin.errors import Interrupted
from cryoemmae_plugin.training import refine as module
from cryoemmae_plugin.training.head import HeadSettings
from cryoemmae_plugin.training.refine import JudgedMicrograph, refine_head
from cryoemmae_plugin.weights import Model, load_model

DIAMETER_PX = 30.0
KEPT, DROPPED = np.array([(100.0, 80.0), (200.0, 150.0)]), np.array([(300.0, 90.0)])


@pytest.fixture
def model(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setattr(module, "SCENES", 1)
    monkeypatch.setattr(module, "OTHER_SCENES", range(99_000, 99_001))
    monkeypatch.setattr(module, "SETTINGS", HeadSettings(steps=3, batch=2, rate=1e-3, crop_cells=32))
    return load_model(tiny_model)


@pytest.fixture
def judged() -> JudgedMicrograph:
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((300, 400)).astype(np.float32))
    return JudgedMicrograph.cut(image, DIAMETER_PX, KEPT, DROPPED)


def test_kept_picks_are_particles_in_the_example_and_dropped_ones_are_not(
    model: Model, judged: JudgedMicrograph
) -> None:
    example = judged.example(model, load_head(model))
    scale = GRID_DIAMETER_PX / DIAMETER_PX
    assert np.allclose(example.xy.numpy(), (KEPT + 0.5) * scale - 0.5, atol=0.1)
    for (x, y), heat in [*((one, True) for one in KEPT), (DROPPED[0], False)]:
        row, column = (int((at + 0.5) * scale / 4) for at in (y, x))
        assert (float(example.target[0, row, column]) > 0.5) == heat


def test_candidates_that_nobody_has_judged_are_left_out_and_judged_ones_are_not(
    model: Model, judged: JudgedMicrograph, monkeypatch: pytest.MonkeyPatch
) -> None:
    unjudged = np.array([(160.0, 200.0)])
    at = np.concatenate([judged.kept, judged.dropped, unjudged])
    monkeypatch.setattr(module, "find_candidates", lambda *_: (at, np.full(len(at), 0.4, np.float32)))
    example = judged.example(model, load_head(model))
    cells = [(int((y + 0.5) / 4), int((x + 0.5) / 4)) for x, y in at]
    assert [float(example.target[4, row, column]) for row, column in cells] == [1, 1, 1, 0]


def test_the_middle_of_a_large_micrograph_is_cut_with_its_picks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIELD_DIAMETERS", 8)
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((300, 400)).astype(np.float32))
    judged = JudgedMicrograph.cut(image, DIAMETER_PX, KEPT, DROPPED)  # x from 80 to 320, y from 30 to 270
    assert len(judged.kept) == 2
    assert np.allclose(judged.kept[1], ((200 - 80 + 0.5) * 0.8 - 0.5, (150 - 30 + 0.5) * 0.8 - 0.5))
    assert len(JudgedMicrograph.cut(image, DIAMETER_PX, KEPT - (60, 0), DROPPED).kept) == 1


def test_a_refined_head_is_another_one_with_the_same_calibration(model: Model, judged: JudgedMicrograph) -> None:
    head = load_head(model)
    head.calibration.copy_(torch.tensor([1.3, -0.2, 6.0]))
    told: list[tuple[int, int]] = []
    refined = refine_head(model, head, [judged], progress=lambda *step: told.append(step))
    assert told[0] == (0, 5)
    assert told[-1] == (5, 5)
    assert torch.equal(refined.calibration, head.calibration)
    assert not torch.equal(refined.state_dict()["out.2.weight"], head.state_dict()["out.2.weight"])


def test_it_stops_when_asked(model: Model, judged: JudgedMicrograph) -> None:
    asked = iter([False, False, True])
    with pytest.raises(Interrupted, match="again"):
        refine_head(model, load_head(model), [judged], should_stop=lambda: next(asked))
