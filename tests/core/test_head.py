"""The head: its geometry, its place in a model folder, the peaks of its score."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryoemmae_plugin.core.default import away_from_smear
from cryoemmae_plugin.core.head import (
    CELL_PX,
    F1_SHIFT,
    F1_SLOPE,
    VERSION,
    Head,
    calibrate_micrograph,
    expected_f1,
    find_centres,
    head_inputs,
    reject_empty,
    score_cells,
    total_log_odds,
    whole_cells,
)
from cryoemmae_plugin.core.suppression import non_maximum_suppression


def random_head(embed_dim: int = 6, tells: bool = True) -> Head:
    """A head of random weights; whether it `tells` each cell what the whole micrograph shows."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = Head(embed_dim)
        for buffer in head.buffers():
            if buffer.dtype.is_floating_point and buffer.ndim == 1 and len(buffer) > 2:
                buffer.uniform_(0.5, 1.5)
        if tells:
            torch.nn.init.normal_(head.context.mlp[-1].weight, std=0.2)
    return head.eval()


def layers(rows: int, columns: int, embed_dim: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(rows * CELL_PX - 1, columns * CELL_PX - 2, generator=generator)
    tokens = torch.randn(rows, columns, embed_dim, generator=generator)
    return head_inputs(pixels, 4 * pixels, tokens, torch.rand(rows, columns, generator=generator))


def everywhere(cells: torch.Tensor) -> torch.Tensor:
    return torch.ones(1, *cells.shape[-2:], dtype=torch.bool)


def test_layers_cover_whole_cells_and_a_strong_response_is_cut() -> None:
    pixels, cells = layers(5, 9)
    assert pixels.shape == (1, 2, 5 * CELL_PX, 9 * CELL_PX)
    assert cells.shape == (1, 7, 5, 9)
    assert not pixels[:, :, -1].any()
    assert not pixels[..., -2:].any()
    assert pixels[0, 1].abs().max() <= 10 / 3 + 1e-6


def test_patches_two_cells_wide_lie_over_the_cells_that_they_cover() -> None:
    pixels, sigmas = torch.zeros(2, 64, 96)
    tokens = torch.zeros(8, 12, 6)
    tokens[2, 5] = 1.0
    fine, coarse = head_inputs(pixels, sigmas, tokens, torch.zeros(8, 12), 2 * CELL_PX)
    assert fine.shape[-2:] == (64, 96)
    assert coarse.shape[-2:] == (8, 12)
    head = random_head(tells=False)
    with torch.no_grad():
        inside = torch.ones(1, 16, 24)
        change = head(fine, coarse, inside)[0] - head(fine, coarse * 0 + coarse[:, :, :1, :1], inside)[0]
    assert change.shape == (1, 16, 24)
    row, column = divmod(int(change[0].abs().argmax()), 24)
    assert 3 <= row <= 6
    assert 9 <= column <= 12


def test_a_head_survives_its_model_folder() -> None:
    head = random_head()
    head.calibration.copy_(torch.tensor([1.3, -0.4, 7.0]))
    again = Head.from_arrays(head.arrays())
    with torch.inference_mode():
        pixels, cells = layers(12, 20)
        answers = (each(pixels, cells, everywhere(cells)) for each in (head, again))
        for mine, theirs in zip(*answers, strict=True):
            assert torch.allclose(mine, theirs, atol=1e-6)
    assert torch.equal(head.calibration, again.calibration)


@pytest.mark.parametrize("change", ["version", "missing"])
def test_a_head_of_another_form_is_refused(change: str) -> None:
    arrays = random_head().arrays()
    if change == "version":
        arrays["head.version"] = torch.tensor(VERSION + 1.0)
    else:
        del arrays["head.out.2.weight"]
    with pytest.raises(RuntimeError, match="its head"):
        Head.from_arrays(arrays)


def test_a_cell_is_judged_alike_wherever_it_lies() -> None:
    head = random_head(tells=False)
    pixels, cells = layers(70, 80)
    with torch.inference_mode():
        whole, _ = head(pixels, cells, everywhere(cells))
        part = pixels[..., 4 * CELL_PX :, 8 * CELL_PX :], cells[..., 4:, 8:]
        shifted, _ = head(*part, everywhere(part[1]))
    assert torch.allclose(whole[0, 36, 44], shifted[0, 32, 36], atol=1e-4)


def test_what_lies_far_away_tells_how_to_judge_a_cell_unless_it_is_no_image() -> None:
    head = random_head()
    pixels, cells = layers(30, 120)
    other = pixels.clone()
    other[..., 80 * CELL_PX :] *= 3
    inside = everywhere(cells)
    with torch.inference_mode():
        near, changed = (head(image, cells, inside)[0][0, 15, 20] for image in (pixels, other))
        inside[..., 70:] = False
        blind, still = (head(image, cells, inside)[0][0, 15, 20] for image in (pixels, other))
    assert abs(near - changed) > 1e-3
    assert torch.allclose(blind, still, atol=1e-5)


def test_whole_cells_lie_inside_with_all_their_pixels() -> None:
    inside = torch.ones(10, 15, dtype=torch.bool)
    inside[5, 6] = False
    cells = whole_cells(inside, 3, 4)
    assert cells[:2, 0].all()
    assert not cells[1, 1]
    assert not cells[2].any(), "the last row of cells reaches beyond the frame"
    assert not cells[:, 3].any()


def test_centres_are_peaks_of_the_score_at_their_offset() -> None:
    score = torch.zeros(10, 16)
    score[3, 7], score[3, 8], score[8, 2] = 0.9, 0.5, 0.3
    offset = torch.zeros(2, 10, 16)
    offset[0, 3, 7], offset[1, 3, 7] = 0.25, -0.5
    xy, found = find_centres(score, offset, 0.2)
    order = np.argsort(-found)
    assert found[order] == pytest.approx([0.9, 0.3])
    assert xy[order] == pytest.approx(np.array([[7.25 * 4 + 1.5, 2.5 * 4 + 1.5], [2 * 4 + 1.5, 8 * 4 + 1.5]]))


def test_evidence_is_the_log_odds_of_what_is_better_than_even() -> None:
    assert total_log_odds(np.array([0.75, 0.5, 0.2, 0.9], np.float32)) == pytest.approx(np.log(3) + np.log(9), rel=1e-5)
    assert total_log_odds(np.zeros(0, np.float32)) == 0.0
    assert np.isfinite(total_log_odds(np.ones(2, np.float32)))


def test_with_too_little_evidence_nothing_is_picked_but_all_is_kept_in_order() -> None:
    score = np.array([0.9, 0.75, 0.6, 0.45], np.float32)
    doubted = reject_empty(score, 5.0)
    assert doubted.max() < 0.5
    assert (np.diff(doubted) < 0).all()
    odds = score / (1 - score)
    np.testing.assert_allclose(doubted / (1 - doubted) / odds, 0.1, rtol=1e-4)
    assert reject_empty(score, 3.0) is score
    assert reject_empty(score[3:], 5.0)[0] == score[3]
    assert len(reject_empty(score[:0], 5.0)) == 0


def test_many_unclear_candidates_are_ice_however_much_they_add_up_to() -> None:
    grains = np.array([0.8, *[0.6] * 40], np.float32)
    assert total_log_odds(grains) > 3 * 5.0
    assert reject_empty(grains, 5.0).max() < 0.5
    particles = np.array([0.8, *[0.65] * 30, *[0.55] * 10], np.float32)
    assert reject_empty(particles, 5.0) is particles
    assert reject_empty(grains, 0.0) is grains, "a head that is not balanced judges nothing"


def test_a_clear_particle_or_two_are_not_taken_for_ice_but_unclear_or_many_are() -> None:
    one_clear = np.array([0.98, 0.3, 0.1], np.float32)
    assert reject_empty(one_clear, 6.0) is one_clear
    unclear = np.array([0.9, 0.6, 0.45], np.float32)
    assert reject_empty(unclear, 6.0).max() < 0.5
    apart = np.array([0.8, 0.7, 0.1], np.float32)
    assert reject_empty(apart, 6.0) is apart
    alone = np.array([0.6], np.float32)
    assert reject_empty(alone, 6.0) is alone
    beside_many = np.array([0.98, 0.55, 0.55, 0.55], np.float32)
    assert reject_empty(beside_many, 6.0).max() < 0.5


def test_the_f1_to_expect_is_that_of_the_best_choice() -> None:
    assert expected_f1(np.array([0.8, 0.5, 0.1])) == pytest.approx(2 * 1.3 / (2 + 1.4), rel=1e-3)
    assert expected_f1(np.array([1.0, 1.0, 0.0])) == pytest.approx(1.0, rel=1e-3)
    assert expected_f1(np.zeros(0)) == 0.0
    assert expected_f1(np.zeros(3)) == 0.0


def test_the_balanced_point_follows_half_the_expected_f1() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        chance = rng.beta(0.4, 1.0, 200).astype(np.float32)
        chance[0] = 0.9
        ranked = np.sort(chance.astype(float))[::-1]
        half = float((ranked.cumsum() / (np.arange(1, 201) + ranked.sum())).max())
        log_odds = np.log(chance / (1 - chance))
        at_half = np.log(half / (1 - half))
        picked = calibrate_micrograph(chance) >= 0.5
        assert np.array_equal(picked, log_odds >= F1_SHIFT + F1_SLOPE * at_half)
        assert 5 < picked.sum() < 195


def test_what_is_clear_keeps_its_figure_of_merit_and_what_is_in_doubt_gains() -> None:
    clear = np.array([0.99] * 50 + [0.03] * 5, np.float32)
    np.testing.assert_allclose(calibrate_micrograph(clear), clear, atol=0.02)
    doubtful = np.linspace(0.95, 0.02, 100, dtype=np.float32)
    gained = calibrate_micrograph(doubtful)
    assert (np.diff(gained) < 0).all()
    assert (gained > doubtful).all()
    assert (gained >= 0.5).sum() > (doubtful >= 0.5).sum()


def test_beside_a_few_clear_particles_nothing_is_picked_that_was_not_before() -> None:
    clear = np.array([0.99, *np.linspace(0.45, 0.02, 60)], np.float32)
    assert calibrate_micrograph(clear) is clear
    many = np.array([*np.linspace(0.99, 0.7, 4), *np.linspace(0.45, 0.02, 60)], np.float32)
    assert (calibrate_micrograph(many) >= 0.5).sum() > 4


def test_no_balance_makes_picks_where_there_are_none() -> None:
    nothing = np.array([0.5, 0.49, 0.3], np.float32)
    assert calibrate_micrograph(nothing) is nothing
    assert len(calibrate_micrograph(nothing[:0])) == 0


def test_smeared_borders_are_left_by_the_distance_and_a_bare_frame_is_not() -> None:
    valid = torch.ones(40, 60, dtype=torch.bool)
    assert away_from_smear(valid, 12).all()
    valid[:, 50:] = False
    inside = away_from_smear(valid, 12)
    assert inside[20, 38]
    assert not inside[20, 39]
    assert inside[0, 0]


def test_the_better_of_two_close_candidates_is_kept_and_of_equals_the_first() -> None:
    xy = np.array([[0.0, 0.0], [5.0, 0.0], [9.0, 0.0], [30.0, 0.0], [32.0, 0.0]])
    score = np.array([0.2, 0.9, 0.4, 0.5, 0.5], np.float32)
    assert non_maximum_suppression(xy, score, 6.0).tolist() == [1, 3]
    assert non_maximum_suppression(xy[:0], score[:0], 6.0).tolist() == []


def test_a_micrograph_upside_down_gets_the_same_verdict_upside_down() -> None:
    head = random_head()
    pixels, cells = layers(12, 20)
    with torch.inference_mode():
        inside = everywhere(cells)[0]
        log_odds, offset = score_cells(head, pixels, cells, inside)
        turned, offset_turned = score_cells(head, pixels.flip(-2, -1), cells.flip(-2, -1), inside)
    assert torch.allclose(turned.flip(-2, -1), log_odds, atol=1e-5)
    assert torch.allclose(-offset_turned.flip(-2, -1), offset, atol=1e-5)
    single, _ = head(pixels, cells, everywhere(cells))
    assert not torch.allclose(single[0], log_odds, atol=1e-3)
