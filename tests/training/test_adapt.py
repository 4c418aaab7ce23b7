"""Adapting a head to a data set: what it keeps, what it changes, and that it can be stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cryoemmae_plugin.core.crop_detection import CropDetections
from cryoemmae_plugin.core.picker import load_head
from cryoemmae_plugin.errors import Interrupted
from cryoemmae_plugin.training import adapt as module
from cryoemmae_plugin.training.adapt import SEEN_SCENES, SIDE_PX, adapt_head
from cryoemmae_plugin.training.examples import see_scene
from cryoemmae_plugin.training.head import HeadSettings
from cryoemmae_plugin.training.specimen import describe_specimen
from cryoemmae_plugin.weights import Model, load_model

MakeSighting = Callable[..., CropDetections]


@pytest.fixture
def model(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setattr(module, "SCENES", 2)
    monkeypatch.setattr(module, "OTHER_SCENES", range(99_000, 99_001))
    monkeypatch.setattr(module, "SETTINGS", HeadSettings(steps=3, batch=2, rate=1e-3, crop_cells=32))
    return load_model(tiny_model)


@pytest.mark.slow
def test_an_adapted_head_is_another_one_with_the_same_calibration(model: Model, detections: MakeSighting) -> None:
    head = load_head(model)
    head.calibration.copy_(torch.tensor([1.3, -0.2, 6.0]))
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    told: list[tuple[int, int]] = []
    adapted = adapt_head(model, head, [detections(s) for s in range(2)], progress=lambda *step: told.append(step))
    assert adapted is not None
    assert told == [(n, 6) for n in range(7)]
    assert torch.equal(adapted.calibration, head.calibration)
    assert not torch.equal(adapted.state_dict()["out.2.weight"], before["out.2.weight"])
    assert all(torch.equal(tensor, head.state_dict()[name]) for name, tensor in before.items())
    again = adapt_head(model, head, [detections(s) for s in range(2)])
    assert again is not None
    assert all(
        torch.equal(a, b) for a, b in zip(adapted.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_too_few_picks_leave_the_head_as_it_is(model: Model, detections: MakeSighting) -> None:
    assert adapt_head(model, load_head(model), [detections(0, particles=20)]) is None


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 1, 2, 4])
def test_it_stops_when_asked(model: Model, detections: MakeSighting, steps: int) -> None:
    asked = iter([False] * steps + [True] * 9)
    with pytest.raises(Interrupted, match="again"):
        adapt_head(model, load_head(model), [detections(s) for s in range(2)], should_stop=lambda: next(asked))


def test_a_scene_of_its_own_is_seen_whole(model: Model, detections: MakeSighting) -> None:
    specimen = describe_specimen([detections(s) for s in range(2)])
    assert specimen is not None
    example = module.make_own_example(model, specimen, np.random.default_rng(0))
    assert example.pixels.shape[1:] == (SIDE_PX, SIDE_PX)
    assert len(example.xy)
    rows, columns = (example.xy[:, axis].div(4).long() for axis in (1, 0))
    assert bool((example.target[0, rows, columns] > 0.5).all())
    assert float(example.target[4].min()) == 1


@pytest.mark.slow
def test_the_scenes_that_ship_are_what_the_simulator_draws() -> None:
    shipped = range(99_000, 99_016)  # of the module itself, before the fixture makes them fewer
    assert {path.stem for path in SEEN_SCENES.iterdir()} == {str(seed) for seed in shipped}
    kept, drawn = see_scene(shipped[0], SIDE_PX, SEEN_SCENES), see_scene(shipped[0], SIDE_PX)
    torch.testing.assert_close(kept.pixels, drawn.pixels, atol=0.02, rtol=0)
    assert torch.equal(kept.valid, drawn.valid)
    torch.testing.assert_close(kept.xy, drawn.xy)
