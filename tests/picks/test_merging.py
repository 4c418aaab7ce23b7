"""Merging picks of several programs, and telling frames apart: known answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryoemmae_plugin.cli.app import main
from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.picks.convert import compare_tables, load, reach_of
from cryoemmae_plugin.picks.matching import group
from cryoemmae_plugin.picks.merging import Source, align_names, merge, remove_duplicates, votes_of
from cryoemmae_plugin.picks.table import PickTable
from cryoemmae_plugin.picks.transform import Transform
from cryoemmae_plugin.simulate.place import place_centres

SHAPE = (700, 1100)


def table(xy: object, score: object = None, name: str = "mic.mrc", **more: object) -> PickTable:
    centres = np.array(xy, np.float64).reshape(-1, 2)
    merit = np.full(len(centres), np.nan) if score is None else np.array(score, np.float64)
    return PickTable(name, centres, merit, **{"diameter_px": 20.0, "pixel_size_A": 2.0, **more})  # type: ignore[arg-type]


def crowd(seed: int, count: int = 90) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return place_centres(count, (20, 20), (SHAPE[1] - 20, SHAPE[0] - 20), 40, np.zeros(SHAPE, bool), rng)


def test_groups_do_not_depend_on_the_order_of_sources() -> None:
    rng = np.random.default_rng(1)
    centres = crowd(1)
    sources = [
        centres[keep] + rng.normal(scale=2, size=(keep.sum(), 2)) for keep in rng.random((3, len(centres))) < 0.8
    ]
    there = group(sources, 12.0)
    back = group(sources[::-1], 12.0)[:, ::-1]
    assert {tuple(row) for row in there} == {tuple(row) for row in back}
    for column, source in enumerate(sources):
        used = there[there[:, column] >= 0, column]
        assert sorted(used) == list(range(len(source)))


def test_a_chain_is_not_one_particle() -> None:
    groups = group([np.array([[0.0, 0.0]]), np.array([[8.0, 0.0]]), np.array([[16.0, 0.0]])], 10.0)
    assert sorted(map(sorted, groups.tolist())) == [[-1, -1, 0], [-1, 0, 0]]


@pytest.mark.parametrize(("how", "expected"), [("union", 4), ("consensus", 2), ("intersection", 1)])
def test_merging_keeps_what_enough_sources_have(how: str, expected: int) -> None:
    sources = [
        Source("a", [table([[100, 100], [200, 100], [300, 100]], [0.9, 0.5, 0.1])]),
        Source("b", [table([[102, 100], [200, 104]], [7.0, 9.0])]),
        Source("c", [table([[101, 103], [400, 400]], None, "x/000123456_mic.mrc")]),
    ]
    (merged,) = merge(align_names(sources), reach_of("0.5"), votes_of(how, 3))  # type: ignore[arg-type]
    assert len(merged) == expected
    assert merged.xy[0].tolist() == [101, 101]
    assert merged.extras["cryoemmaeScore_b"][0] == 7.0
    assert np.isnan(merged.extras["cryoemmaeScore_c"][0])
    assert merged.score[0] == pytest.approx((1 + 0.5 + 1) / 3)


def test_sources_of_other_micrographs_are_refused() -> None:
    with pytest.raises(InputError, match=r"b has no micrograph of a: it has 'other.mrc'"):
        align_names([Source("a", [table([[1, 1]])]), Source("b", [table([[1, 1]], name="other.mrc")])])


def test_duplicates_leave_the_best_and_do_not_need_scores() -> None:
    assert remove_duplicates(table([[0, 0], [5, 0], [30, 0]], [0.1, 0.2, 0.1]), 10).xy.tolist() == [[5, 0], [30, 0]]
    assert remove_duplicates(table([[0, 0], [5, 0]]), 10).xy.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    "transform",
    [
        Transform(),
        Transform(flip_y=True),
        Transform(scale=4),
        Transform(scale=0.5),
        Transform(scale=2, flip_y=True),
        Transform(shift=(31, -17)),
        Transform(flip_y=True, shift=(-40, 12)),
    ],
    ids=Transform.options,
)
def test_the_frame_of_picks_is_found_again(transform: Transform) -> None:
    rng = np.random.default_rng(3)
    tables, others = [], []
    for number in range(3):
        true = crowd(number)
        seen = np.concatenate([true[:70], crowd(number + 50, 30)]) + rng.normal(scale=1.5, size=(100, 2))
        undone = seen - transform.shift
        undone[:, 1] = SHAPE[0] - 1 - undone[:, 1] if transform.flip_y else undone[:, 1]
        tables.append(table((undone + 0.5) / transform.scale - 0.5, name=f"{number}.mrc", shape=SHAPE))
        others.append(table(true, name=f"{number}.mrc"))
    finding = compare_tables(tables, others)
    assert finding is not None
    assert (finding.transform.scale, finding.transform.flip_y) == (transform.scale, transform.flip_y)
    assert np.allclose(finding.transform.shift, transform.shift, atol=1.5)
    assert finding.differs is not transform.is_identity
    assert finding.share > 0.65


def test_picks_that_have_nothing_in_common_are_in_no_other_frame() -> None:
    pairs = [
        [table(crowd(seed + number), name=f"{number}.mrc", shape=SHAPE) for number in range(3)] for seed in (0, 70)
    ]
    finding = compare_tables(*pairs)
    assert finding is not None
    assert not finding.differs


def test_the_commands_say_what_they_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"mic.mrc,{x:.2f},{y:.2f},20\n" for x, y in crowd(0)]
    flipped = [f"mic\t{x:.0f}\t{SHAPE[0] - 1 - y:.0f}\t0.5\n" for x, y in crowd(0)]
    (tmp_path / "a.csv").write_text("micrograph,x,y,diameter\n" + "".join(rows + rows[:5]))
    (tmp_path / "b.txt").write_text("image_name\tx_coord\ty_coord\tscore\n" + "".join(flipped))
    Path(tmp_path / "mic.mrc").write_bytes(b"")
    a, b, out = (str(tmp_path / name) for name in ("a.csv", "b.txt", "out.star"))
    assert main(["dedup", a, "--out", out]) == 0
    assert "5 duplicates left out" in capsys.readouterr().out
    assert main(["merge", a, f"topaz={b}", "--out", out, "--overwrite", "--diameter", "40"]) == 1
    assert "--pixel-size" in capsys.readouterr().err
    merge_both = ["merge", a, b, "--out", out, "--overwrite", "--diameter", "40", "--pixel-size", "2"]
    assert main(merge_both) == 0
    assert "flipped in y" in capsys.readouterr().err
    assert main([*merge_both, "--least", "3"]) == 2
    assert main(["merge", a, "--out", out]) == 2
    assert "two or more sources" in capsys.readouterr().err
    assert load([Path(out)]).picks > 150
    assert main(["convert", a, "--out", out, "--overwrite", "--shift=-5"]) == 2
    assert main(["convert", a, "--out", out, "--overwrite", "--shift=-3,4", "--check", a]) == 0
