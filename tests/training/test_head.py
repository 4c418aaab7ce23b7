"""Training the head: known answers, resumed exactly, balanced."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cryoemmae_plugin.core.default import GRID_DIAMETER_PX
from cryoemmae_plugin.core.encoder import Encoder, EncoderConfig
from cryoemmae_plugin.core.flattening import flatten_background
from cryoemmae_plugin.core.head import CELL_PX, Head
from cryoemmae_plugin.core.picker import CandidatePicker
from cryoemmae_plugin.errors import Interrupted
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.simulate import SimulationSettings, simulate
from cryoemmae_plugin.training.examples import Example, cut_window, draw_target, make_examples
from cryoemmae_plugin.training.head import (
    HeadSettings,
    answer,
    best_least_evidence,
    calibrate,
    draw_batch,
    label,
    mean_head,
    train_head,
)
from cryoemmae_plugin.training.scenes import training_scene
from cryoemmae_plugin.weights import ModelCard, load_model, save_model

EMBED_DIM = 4
SETTINGS = HeadSettings(steps=60, batch=2, warmup=5, crop_cells=48)


def example(seed: int, particles: int = 14, rows: int = 52, columns: int = 60) -> Example:
    """Dark discs on noise; tokens and clusters say nothing."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(0, 0.5, (rows * CELL_PX, columns * CELL_PX)).astype(np.float32)
    cells = np.stack([c.ravel() for c in np.meshgrid(np.arange(25, 225, 32), np.arange(20, 190, 32))], 1)
    xy = rng.permutation(cells)[:particles] + rng.uniform(-4, 4, (particles, 2))
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    for cx, cy in xy:
        pixels[np.hypot(x - cx, y - cy) < 10] -= 2
    fine = torch.from_numpy(np.stack([pixels, np.zeros_like(pixels)]))
    target = torch.cat([draw_target(xy, rows, columns), torch.ones(1, rows, columns)])
    return Example(
        fine.half(), torch.zeros(1 + EMBED_DIM, rows, columns).half(), target.half(), torch.from_numpy(xy).float()
    )


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return [example(seed) for seed in range(4)]


@pytest.fixture(scope="module")
def trained(examples: list[Example]) -> Head:
    return train_head(examples, SETTINGS)


@pytest.mark.slow
def test_a_trained_head_finds_discs_where_they_are(trained: Head, examples: list[Example]) -> None:
    head = calibrate(copy.deepcopy(trained), examples)
    fresh = example(99)
    found = answer(head, fresh)
    picked = head.score(torch.from_numpy(found.log_odds)).numpy() >= 0.5
    assert found.particle[picked].sum() >= 12
    assert picked.sum() <= 16


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_same_head(examples: list[Example], tmp_path: Path) -> None:
    settings = HeadSettings(steps=8, batch=2, warmup=2, checkpoint_steps=3, crop_cells=32)
    whole = train_head(examples, settings)
    seen: list[int] = []
    with pytest.raises(Interrupted):
        train_head(
            examples,
            settings,
            checkpoint=tmp_path / "head.pt",
            progress=lambda done, total, loss: seen.append(done),
            should_stop=lambda: len(seen) >= 5,
        )
    resumed = train_head(
        examples, settings, checkpoint=tmp_path / "head.pt", progress=lambda d, t, loss: seen.append(d)
    )
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8]
    for (name, mine), theirs in zip(whole.arrays().items(), resumed.arrays().values(), strict=True):
        assert torch.equal(mine, theirs), name


def test_the_mean_of_two_heads_lies_halfway_and_is_not_balanced_yet() -> None:
    heads = []
    for seed in range(2):
        torch.manual_seed(seed)
        heads.append(Head(EMBED_DIM).eval())
        heads[-1].calibration.copy_(torch.tensor([2.0, 0.5, 6.0]))
    mean = mean_head(*heads)
    for name, weight in mean.named_parameters():
        first, second = (dict(head.named_parameters())[name] for head in heads)
        torch.testing.assert_close(weight, (first + second) / 2, msg=name)
    assert mean.calibration.tolist() == [1.0, 0.0, 0.0]
    assert heads[0].calibration.tolist() == [2.0, 0.5, 6.0], "the first is left as it is"
    assert not torch.equal(heads[0].out[-1].weight, heads[1].out[-1].weight)


def test_a_turned_crop_points_to_the_same_centres() -> None:
    """Where a target says that it is near a centre, its offset leads to the middle of its heat."""
    large = [example(seed, rows=96 + 4, columns=96 + 9) for seed in range(2)]
    _, _, targets = draw_batch(large, 8, 96, np.random.default_rng(3))
    for target in targets:
        rows, columns = torch.nonzero(target[0] > 0.9, as_tuple=True)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            if not (2 < row < 96 - 3 and 2 < column < 96 - 3):
                continue
            dx, dy = target[1, row, column], target[2, row, column]
            right, left = target[0, row, column + 1], target[0, row, column - 1]
            below, above = target[0, row + 1, column], target[0, row - 1, column]
            assert abs(dx) < 0.05 or (dx > 0) == bool(right > left)
            assert abs(dy) < 0.05 or (dy > 0) == bool(below > above)


@pytest.mark.slow
def test_a_balanced_head_picks_as_many_as_there_are(trained: Head) -> None:
    held_out = [example(seed) for seed in range(10, 16)] + [example(20, particles=0)]
    head = calibrate(copy.deepcopy(trained), held_out)
    found = [answer(head, one) for one in held_out]
    picks = sum(int((head.score(torch.from_numpy(a.log_odds)) >= 0.5).sum()) for a in found)
    assert picks == pytest.approx(sum(a.known for a in found), rel=0.1)


def test_candidates_are_labelled_one_to_one() -> None:
    known = np.array([[10.0, 10.0], [40.0, 10.0]])
    candidates = np.array([[11.0, 10.0], [9.0, 11.0], [60.0, 60.0]])
    assert label(candidates, known, 7.0).sum() == 1
    assert label(candidates[:0], known, 7.0).tolist() == []


def test_examples_are_made_once_and_can_be_stopped(tiny_model: Path, tmp_path: Path) -> None:
    model = load_model(tiny_model)
    seeds = [seed for seed in range(90_000, 90_040) if np.prod(training_scene(seed).shape) < 500_000][:2]
    first = make_examples(model, seeds, tmp_path)
    stamps = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*.safetensors"))]
    again = make_examples(model, seeds, tmp_path)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*.safetensors"))] == stamps
    assert all(torch.equal(a.cells, b.cells) for a, b in zip(first, again, strict=True))
    with pytest.raises(Interrupted):
        make_examples(model, seeds, tmp_path / "other", should_stop=lambda: True)


def test_a_window_has_its_particles_where_the_whole_has_them() -> None:
    scene = SimulationSettings(shape=(400, 620), pixel_size_A=4.0, diameter_A=160.0, n_particles=30, contrast=1.5)
    made = simulate(scene, 4)
    whole = flatten_background(torch.from_numpy(made.image), made.diameter_px, GRID_DIAMETER_PX)
    window, centres = cut_window(whole, made.xy, 200, np.random.default_rng(1))
    assert window.pixels.shape == (200, 200)
    corner = (whole.frame.to_grid(made.xy) - centres)[0]
    left, top = np.rint(corner).astype(int)
    np.testing.assert_allclose(whole.frame.to_grid(made.xy) - centres, np.broadcast_to(corner, centres.shape))
    assert left > 0
    torch.testing.assert_close(window.pixels, whole.pixels[top : top + 200, left : left + 200])
    np.testing.assert_allclose(window.frame.to_grid(centres), centres)
    narrow, all_of_them = cut_window(whole, made.xy, 300, np.random.default_rng(1))
    assert narrow.pixels.shape == (240, 300), "what is smaller than the window is taken whole"
    assert len(all_of_them) == len(made.xy)


def test_a_micrograph_shows_nothing_below_the_evidence_that_tells_best() -> None:
    empty = [(np.full(4, 1.0 + 0.05 * at), 0.25, 0) for at in range(20)]
    full = [(np.full(8, 1.5 + 0.05 * at), 0.8, 10) for at in range(20)]
    assert 7.5 < best_least_evidence(empty + full) < 12.5
    assert best_least_evidence(20 * empty + full) == best_least_evidence(empty + full)
    assert best_least_evidence(full) < 12.5


def test_a_head_that_reads_tokens_of_another_size_begins_with_what_it_knew_of_pixels() -> None:
    torch.manual_seed(0)
    start = Head(EMBED_DIM).eval()
    other = [replace(example(seed), cells=torch.randn(1 + 7, 52, 60).half()) for seed in range(2)]
    still = HeadSettings(steps=1, batch=2, rate=0.0, least_rate=0.0)
    begun = train_head(other, still, start=start)
    assert begun.embed_dim == 7
    assert torch.equal(begun.body[0].conv.weight, start.body[0].conv.weight)
    assert not begun.cells[-1].weight.any()
    pixels = torch.randn(1, 2, 40 * CELL_PX, 40 * CELL_PX)
    begun.load_state_dict({k: v for k, v in start.state_dict().items() if not k.startswith("cells.")}, strict=False)
    with torch.no_grad():
        start.cells[-1].weight.zero_()
        nothing = [torch.zeros(1, 1 + dim, 40, 40) for dim in (7, EMBED_DIM)]
        inside = torch.ones(1, 40, 40)
        torch.testing.assert_close(begun(pixels, nothing[0], inside), start(pixels, nothing[1], inside))


def test_tokens_of_patches_that_are_two_cells_wide_stay_in_place_in_crops() -> None:
    fine = example(3, rows=104, columns=100)
    cells = torch.nn.functional.avg_pool2d(fine.target[None, :1].float(), 2)[0].expand(1 + EMBED_DIM, -1, -1)
    coarse = replace(fine, cells=cells.half())
    _, tokens, target = draw_batch([coarse], 12, 96, np.random.default_rng(2))
    shown = tokens[:, 1].abs().amax((1, 2)) > 0  # in some crops the embedding is hidden
    assert shown.any()
    expected = torch.nn.functional.avg_pool2d(target[:, :1], 2)[:, 0]
    torch.testing.assert_close(tokens[shown, 1], expected[shown], atol=2e-3, rtol=0)
    small = train_head(
        [replace(example(4), cells=torch.zeros(1 + EMBED_DIM, 26, 30).half())], replace(SETTINGS, steps=2)
    )
    assert isinstance(small, Head)


def test_a_model_with_patches_two_cells_wide_picks(tmp_path: Path) -> None:
    config = EncoderConfig(patch_px=2 * CELL_PX, embed_dim=16, depth=1)
    card = ModelCard(name="wide", modes=("default",), encoder=config, mean=0.0, std=1.0, particle_cluster=0)
    torch.manual_seed(0)
    head = Head(16).arrays()
    save_model(tmp_path, card, Encoder(config).state_dict(), {"centroids": torch.randn(4, 16), **head})
    model, scene = load_model(tmp_path), SimulationSettings(shape=(300, 420), pixel_size_A=4.0, diameter_A=160.0)
    made = simulate(scene, 1)
    picks = CandidatePicker(model, PickerSettings(diameter_A=160.0)).pick(made.image, 4.0)
    assert len(picks) > 0
    assert (picks.xy >= 0).all()
    assert (picks.xy <= [419, 299]).all()
