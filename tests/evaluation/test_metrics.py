"""The two matching rules and the figures made of them, on answers known by hand and against the independent scorer."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile

from cryoemmae_plugin.evaluation.metrics import Reference, Rule, Scored, average_precision, box_iou, evaluate, match
from cryoemmae_plugin.evaluation.tables import read_picks, read_reference


def array(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, float).reshape(-1, 2)


def test_box_iou_of_a_shift_along_one_axis() -> None:
    # boxes of side 10, 2 apart: 80 shared of 120
    np.testing.assert_allclose(box_iou(array((2, 0), (0, 0), (10, 0), (30, 30)), 10), [80 / 120, 1, 0, 0])


@pytest.mark.parametrize(("rule", "last", "first"), [("half_d", 5.0, 5.001), ("iou06", 2.5, 2.501)])
def test_the_limit_of_each_rule_belongs_to_it(rule: Rule, last: float, first: float) -> None:
    # iou06 along one axis: (10 - s) * 10 / (200 - (10 - s) * 10) >= 0.6 for s <= 2.5
    assert len(match(array((0, 0)), array((last, 0)), 10, rule)) == 1
    assert len(match(array((0, 0)), array((first, 0)), 10, rule)) == 0


def test_matching_is_one_to_one_and_the_closest_pair_goes_first() -> None:
    pairs = match(array((0, 0), (4, 0)), array((3, 0), (5.5, 0)), 10, "half_d")
    assert sorted(map(tuple, pairs.tolist())) == [(1, 0)]  # 1 px; then nothing within 5 px is left for the other
    assert len(match(array((0, 0)), array((1, 0), (-1, 0)), 10, "half_d")) == 1


def test_perfect_missing_and_doubled_picks() -> None:
    xy = array((50, 50), (150, 50), (50, 150), (150, 150))
    result = evaluate(
        {"all": Reference(xy, 20.0), "none": Reference(xy, 20.0), "double": Reference(xy, 20.0)},
        {"all": Scored(xy, np.ones(4)), "double": Scored(np.vstack([xy, xy]), np.ones(8))},
    )
    scores = {score.micrograph: score.rules["iou06"] for score in result.micrographs}
    assert (scores["all"].recall, scores["all"].precision, scores["all"].f1) == (1, 1, 1)
    assert (scores["none"].recall, scores["none"].precision, scores["none"].f1) == (0, 0, 0)
    assert (scores["double"].recall, scores["double"].precision) == (1, 0.5)
    assert result.mean["half_d"].recall == pytest.approx(2 / 3)
    assert result.mean_iou == pytest.approx(2 / 3)


def test_average_precision_by_hand() -> None:
    hit = np.array([True, False, True, False])
    assert average_precision(np.array([0.9, 0.8, 0.7, 0.6]), hit, 4) == pytest.approx((1 + 2 / 3) / 4)
    assert math.isnan(average_precision(np.array([0.9, np.nan]), hit[:2], 4))


def test_micrographs_without_a_particle_count_false_picks_and_nothing_else() -> None:
    nothing = Reference(np.zeros((0, 2)), 20.0)
    result = evaluate({"a": nothing, "b": nothing}, {"a": Scored(array((1, 1), (9, 9), (5, 5)), np.ones(3))})
    assert (result.negatives, result.false_picks) == (2, 1.5)
    assert result.micrographs == ()
    assert math.isnan(result.mean["iou06"].f1)


@pytest.fixture
def scorer(repository: Path) -> Path:
    path = repository.parent / "shared" / "tools" / "score_picks.py"
    if not path.is_file():
        pytest.skip("the independent scorer ../shared/tools/score_picks.py is not there to compare with")
    return path


@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_the_independent_scorer(
    scorer: Path, tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    reference, picks = [], []
    for index in range(6):
        n = int(rng.integers(1, 60))
        xy = rng.random((n, 2)) * 500
        diameter = 40 if index % 2 else 60
        reference += [(f"mic.{index}.mrc", x, y, diameter) for x, y in xy]
        if index == 5:
            continue  # a micrograph without picks
        found = np.vstack([xy[rng.random(n) < 0.8] + rng.normal(0, 8, 2), rng.random((10, 2)) * 500])
        picks += [
            (f"else/mic.{index}.mrc", x, y, s) for (x, y), s in zip(found, rng.random(len(found)).round(2), strict=True)
        ]
    truth, star = tmp_path / "reference.csv", tmp_path / "picks.star"
    pd.DataFrame(reference, columns=["micrograph", "x", "y", "diameter"]).to_csv(truth, index=False)
    names = ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"]
    starfile.write({"particles": pd.DataFrame(picks, columns=names)}, star)

    theirs = _run_scorer(scorer, [str(truth), str(star), "--json"], capsys, monkeypatch)
    loaded = read_reference(truth)
    ours = evaluate(loaded, read_picks([star], loaded))

    assert len(ours.micrographs) == len(theirs["micrographs"]) == 6
    for mine, other in zip(ours.micrographs, theirs["micrographs"], strict=True):
        assert mine.micrograph == other["micrograph"]
        assert (mine.reference, mine.picks) == (other["reference"], other["picks"])
        assert mine.mean_iou == pytest.approx(other["mean_iou"], abs=1e-9)
        for rule, score in mine.rules.items():
            for what in ("recall", "precision", "f1"):
                assert getattr(score, what) == pytest.approx(other[f"{rule}_{what}"], abs=1e-9)
    for rule, score in ours.mean.items():
        assert score.f1 == pytest.approx(theirs["mean"][f"{rule}_f1"], abs=1e-9)
    assert ours.average_precision == pytest.approx(theirs["mean"]["ap"], abs=1e-9)
    assert 0.2 < ours.mean["half_d"].f1 < 0.99  # neither trivial


def _run_scorer(
    path: Path, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    import json

    spec = importlib.util.spec_from_file_location("independent_scorer", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [str(path), *words])
    capsys.readouterr()
    module.main()
    loaded: dict[str, object] = json.loads(capsys.readouterr().out)
    return loaded
