"""The benchmark's scripts: figures with known answers, stored picks that are used again only where they fit."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cryoemmae_plugin.evaluation.metrics import Reference, Scored
from cryoemmae_plugin.simulate import Scene, SimulationSettings

DIAMETER = 20.0


def grid(rows: int, columns: int) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2) * 3.0 * DIAMETER + 30


def perfect(xy: np.ndarray) -> Scored:
    return Scored(xy, np.linspace(0.9, 0.6, len(xy)))


def with_false(scored: Scored, count: int, score: float) -> Scored:
    false = np.stack([np.arange(count) * 50.0, np.full(count, 5000.0)], axis=1)
    return Scored(np.concatenate([scored.xy, false]), np.concatenate([scored.score, np.full(count, score)]))


class TestScores:
    def test_perfect_picks_score_one_with_certainty(self, script):
        xy = grid(3, 4)
        truth = {"a": Reference(xy, DIAMETER), "b": Reference(xy, DIAMETER)}
        score = script("scoring").score_set("s", "p", truth, {"a": perfect(xy), "b": perfect(xy)}, 0.5, 1.0)
        for name in script("scoring").FIGURES:
            figure = score.figures[name]
            assert (figure.value, figure.low, figure.high) == (1, 1, 1), name
        assert score.picks_each == 12

    def test_interval_spans_what_micrographs_differ_by(self, script):
        xy = grid(3, 4)
        truth = {name: Reference(xy, DIAMETER) for name in "abcd"}
        found = {"a": perfect(xy), "b": perfect(xy), "c": perfect(xy[:6]), "d": perfect(xy[:6])}
        figure = script("scoring").score_set("s", "p", truth, found, 0.5, 1.0).figures["half_d"]
        half = 2 * 6 / 18
        assert figure.value == pytest.approx((1 + half) / 2)
        assert figure.low == pytest.approx(half)
        assert figure.high == pytest.approx(1)

    def test_best_threshold_leaves_out_what_the_default_lets_in(self, script):
        xy = grid(3, 4)
        found = {"a": with_false(perfect(xy), 12, 0.55)}
        score = script("scoring").score_set("s", "p", {"a": Reference(xy, DIAMETER)}, found, 0.5, 1.0)
        assert score.figures["half_d"].value == pytest.approx(24 / 36)
        assert score.figures["best_half_d"].value == pytest.approx(1)
        assert 0.55 < score.best_at <= 0.6

    def test_best_threshold_may_be_below_the_default(self, script):
        xy = grid(3, 4)
        score = script("scoring").score_set("s", "p", {"a": Reference(xy, DIAMETER)}, {"a": perfect(xy)}, 0.8, 1.0)
        assert score.figures["half_d"].value < 0.6
        assert score.figures["best_half_d"].value == pytest.approx(1)

    def test_half_a_radius_off_counts_for_one_rule_only(self, script):
        xy = grid(3, 4)
        off = Scored(xy + np.array([0.45 * DIAMETER, 0]), np.ones(len(xy)))
        figures = script("scoring").score_set("s", "p", {"a": Reference(xy, DIAMETER)}, {"a": off}, 0.5, 1.0).figures
        assert figures["half_d"].value == 1
        assert figures["iou06"].value == 0

    def test_a_shift_of_all_picks_is_told(self, script):
        xy = grid(3, 4)
        shifted = Scored(xy + np.array([0.0, -3.0]), np.ones(len(xy)))
        score = script("scoring").score_set("s", "p", {"a": Reference(xy, DIAMETER)}, {"a": shifted}, 0.5, 1.0)
        assert score.offset == pytest.approx((0, -3))

    def test_every_pick_on_an_empty_micrograph_is_false(self, script):
        nothing = Reference(np.zeros((0, 2)), DIAMETER)
        found = {"a": perfect(grid(1, 4)), "b": Scored(np.zeros((0, 2)), np.zeros(0))}
        score = script("scoring").score_set("s", "p", {"a": nothing, "b": nothing}, found, 0.5, 1.0)
        assert score.figures["false_picks"].value == 2
        assert "half_d" not in score.figures

    def test_mean_over_sets_counts_each_set_once(self, script):
        scoring = script("scoring")
        xy = grid(3, 4)
        good = scoring.score_set("g", "p", {"a": Reference(xy, DIAMETER)}, {"a": perfect(xy)}, 0.5, 1.0)
        truth = {name: Reference(xy, DIAMETER) for name in "abc"}
        bad = scoring.score_set("b", "p", truth, {name: with_false(perfect(xy), 12, 0.7) for name in truth}, 0.5, 1.0)
        assert scoring.mean_over_sets([good, bad], "half_d").value == pytest.approx((1 + 24 / 36) / 2)


class CountingPicker:
    name = store = "counting"
    default_threshold = 0.5

    def __init__(self, found: type, fingerprint: str = "first") -> None:
        self.fingerprint = fingerprint
        self.seen: list[str] = []
        self._found = found

    def pick(self, chosen, paths, work):
        for path in paths:
            self.seen.append(path.stem)
            yield self._found(path.stem, Scored(np.array([[1.0, 2.0]]), np.array([0.7])), 0.25)


@pytest.fixture
def chosen(script, tmp_path: Path):
    """A set of two files."""
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("a.b", "c"):
        (folder / f"{name}.mrc").touch()
    return script("sets").BenchmarkSet("some", folder, 40.0, 2.0)


class TestStoredPicks:
    def test_picks_are_used_again(self, script, chosen, tmp_path):
        pickers = script("pickers")
        first = pickers.pick_set(CountingPicker(pickers.Found), chosen, tmp_path)
        again = CountingPicker(pickers.Found)
        second = pickers.pick_set(again, chosen, tmp_path)
        assert again.seen == []
        assert sorted(first) == sorted(second) == ["a.b", "c"]
        np.testing.assert_array_equal(second["c"].candidates.xy, [[1, 2]])
        assert second["c"].seconds == 0.25

    def test_only_what_is_missing_is_picked(self, script, chosen, tmp_path):
        pickers = script("pickers")
        pickers.pick_set(CountingPicker(pickers.Found), chosen, tmp_path)
        (tmp_path / "counting" / "some" / "c.npz").unlink()
        again = CountingPicker(pickers.Found)
        pickers.pick_set(again, chosen, tmp_path)
        assert again.seen == ["c"]

    def test_picks_of_other_code_are_not_used(self, script, chosen, tmp_path):
        pickers = script("pickers")
        pickers.pick_set(CountingPicker(pickers.Found), chosen, tmp_path)
        changed = CountingPicker(pickers.Found, "second")
        pickers.pick_set(changed, chosen, tmp_path)
        assert changed.seen == ["a.b", "c"]

    def test_picks_of_other_images_are_not_used(self, script, chosen, tmp_path):
        pickers = script("pickers")
        pickers.pick_set(CountingPicker(pickers.Found), chosen, tmp_path)
        (chosen.folder / "c.mrc").write_bytes(b"other")
        again = CountingPicker(pickers.Found)
        pickers.pick_set(again, chosen, tmp_path)
        assert again.seen == ["a.b", "c"]

    def test_a_picker_that_leaves_one_out_ends_the_benchmark(self, script, chosen, tmp_path):
        pickers = script("pickers")
        picker = CountingPicker(pickers.Found)
        picker.pick = lambda chosen, paths, work: iter(())
        with pytest.raises(SystemExit, match=r"a\.b, c"):
            pickers.pick_set(picker, chosen, tmp_path)


class TestSets:
    def test_a_scene_becomes_several_micrographs_once(self, script, monkeypatch, tmp_path):
        sets = script("sets")
        settings = SimulationSettings(shape=(96, 128), pixel_size_A=4.0, diameter_A=80.0, n_particles=4)
        monkeypatch.setattr(sets, "benchmark_scenes", lambda: [Scene("tiny", settings), Scene("other", settings)])
        (made,) = sets.simulated_sets(tmp_path, ["tiny"])
        stems = [path.stem for path in made.micrographs()]
        assert stems == ["tiny_1", "tiny_2", "tiny_3"]
        assert made.diameter_px == 20
        reference = made.reference()
        assert not np.array_equal(reference["tiny_1"].xy, reference["tiny_2"].xy)
        before = made.micrographs()[0].stat().st_mtime_ns
        sets.simulated_sets(tmp_path, ["tiny"])
        assert made.micrographs()[0].stat().st_mtime_ns == before
        (made.folder / sets.RECIPE).write_text("another scene")
        sets.simulated_sets(tmp_path, ["tiny"])
        assert made.micrographs()[0].stat().st_mtime_ns > before

    def test_a_micrograph_without_rows_is_known_to_be_empty(self, chosen):
        (chosen.folder / "reference.csv").write_text("micrograph,x,y,diameter\nc.mrc,3,4,20\n")
        reference = chosen.reference()
        assert len(reference["c"].xy) == 1
        assert len(reference["a.b"].xy) == 0


class TestTable:
    def test_has_a_row_a_set_and_the_means(self, script, tmp_path):
        scoring, report, sets = script("scoring"), script("report"), script("sets")
        xy = grid(3, 4)
        nothing = Reference(np.zeros((0, 2)), DIAMETER)
        scores = [
            scoring.score_set("one", "p", {"a": Reference(xy, DIAMETER)}, {"a": perfect(xy)}, 0.5, 1.0),
            scoring.score_set("two", "p", {"a": Reference(xy, DIAMETER)}, {"a": perfect(xy[:6])}, 0.5, 1.0),
            scoring.score_set("void", "p", {"a": nothing}, {"a": perfect(xy)}, 0.5, 1.0),
        ]
        chosen = [sets.BenchmarkSet(name, tmp_path, 40.0, 2.0) for name in ("one", "two", "void")]
        lines = report.write_report(tmp_path, "table", scores, chosen).splitlines()
        assert [line.split("|")[1].strip() for line in lines[2:]] == ["one", "two", "void", "**mean, simulated**"]
        assert len({line.count("|") for line in lines}) == 1
        assert ".833" in lines[-1]
        assert "12.0" in lines[4]
        assert '"half_d"' in (tmp_path / "table.json").read_text()


class TestPictures:
    def test_pieces_know_what_was_found(self, script):
        pictures = script("pictures")
        reference = Reference(np.array([[50.0, 50.0], [150.0, 50.0]]), DIAMETER)
        picks = np.array([[52.0, 50.0], [100.0, 120.0]])
        (piece,) = pictures.cut(Path("a.mrc"), (180, 180), reference, picks)
        np.testing.assert_array_equal(piece.found, [[52, 50]])
        np.testing.assert_array_equal(piece.missed, [[150, 50]])
        np.testing.assert_array_equal(piece.false, [[100, 120]])
        assert piece.f1 == pytest.approx(0.5)

    def test_typical_and_worst_piece_are_told_apart(self, script):
        pictures = script("pictures")
        none = np.zeros((0, 2))

        def piece(found: int, false: int):
            return pictures.Piece(Path("a"), (0, 0), 10, np.zeros((found, 2)), none, np.zeros((false, 2)))

        pieces = [piece(9, 1), piece(18, 2), piece(2, 8), piece(30, 0)]
        typical, worst = pictures.typical_and_worst(pieces)
        assert len(typical.found) == 18
        assert len(worst.false) == 8
        typical, worst = pictures.typical_and_worst([piece(0, false) for false in (0, 3, 0, 9, 0)])
        assert (len(typical.false), len(worst.false)) == (0, 9)

    def test_picture_is_small_and_keeps_the_marks_colours(self, script, tmp_path):
        from PIL import Image

        pictures = script("pictures")
        noise = np.random.default_rng(0).integers(60, 200, (300, 400)).astype(np.uint8)
        picture = Image.fromarray(noise).convert("RGB")
        marks = (pictures.FOUND, pictures.MISSED, pictures.FALSE)
        for x, colour in enumerate(marks):
            picture.putpixel((x, 0), colour)
        pictures.write_small(picture, tmp_path / "p.png")
        assert (tmp_path / "p.png").stat().st_size <= pictures.MOST_BYTES
        with Image.open(tmp_path / "p.png") as written:
            assert tuple(written.convert("RGB").getpixel((x, 0)) for x in range(3)) == marks


class TestPeers:
    def test_relion_thresholds_become_the_scores_unit(self, script):
        log = script("peers").RelionLoG
        every = Scored(np.zeros((5, 2)), np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
        kept = Scored(np.zeros((3, 2)), np.array([0.3, 0.4, 0.5]))
        assert log._lowest(every, kept) == pytest.approx(0.25)
        assert log._lowest(every, every) == pytest.approx(0.05)

    def test_topaz_table_in_the_making_is_not_used(self, script, tmp_path):
        peers = script("peers")
        for n, name in enumerate(("a", "b")):
            path = tmp_path / f"{name}.coord"
            path.write_text("image_name\tx_coord\ty_coord\tscore\nm\t3\t4\t1.5\n")
            os.utime(path, (n, n))
        (tmp_path / peers.RUNNING).touch()
        peers._whole_tables(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["a.coord"]
        read = peers._read_topaz(tmp_path / "a.coord")
        np.testing.assert_array_equal(read.xy, [[3, 4]])
        np.testing.assert_array_equal(read.score, [1.5])

    @pytest.mark.relion
    @pytest.mark.slow
    def test_relion_finds_dark_discs_where_they_are(self, script, tmp_path):
        import shutil

        import mrcfile

        if shutil.which("relion_autopick") is None:
            pytest.skip("no relion_autopick on this machine")
        peers, sets = script("peers"), script("sets")
        centres = np.array([[60.0, 50.0], [130.0, 90.0], [200.0, 60.0], [70.0, 140.0]])  # not square: 240 × 180
        y, x = np.mgrid[:180, :240]
        image = np.random.default_rng(1).normal(size=(180, 240)).astype(np.float32)
        for cx, cy in centres:
            image[np.hypot(x - cx, y - cy) < 12] -= 3
        with mrcfile.new(tmp_path / "m.mrc") as mrc:
            mrc.set_data(image)
        chosen = sets.BenchmarkSet("discs", tmp_path, 48.0, 2.0)
        (found,) = peers.RelionLoG().pick(chosen, chosen.micrographs(), tmp_path / "work")
        best = found.candidates.xy[np.argsort(-found.candidates.score)[:4]]
        offset = best[np.lexsort(best.T)] - centres[np.lexsort(centres.T)]
        assert np.abs(offset).max() < 3
        assert np.abs(offset.mean(axis=0)).max() < 1.5


def test_variants_of_the_default_mode_return_all_candidates(script, tiny_model, tmp_path):
    from cryoemmae_plugin.weights import load_model

    model = load_model(str(tiny_model))
    image = np.random.default_rng(0).normal(size=(160, 192)).astype(np.float32)
    for name, variant in script("variants").VARIANTS.items():
        picks = variant(image, model, 24.0)
        assert picks.shape == (160, 192), name
        assert (np.diff(picks.score) <= 0).all(), name


@pytest.mark.slow
def test_command_line_is_scored_as_a_user_runs_it(script, tiny_model, monkeypatch, tmp_path):
    sets, pickers = script("sets"), script("pickers")
    settings = SimulationSettings(shape=(160, 192), pixel_size_A=4.0, diameter_A=96.0, n_particles=6)
    monkeypatch.setattr(sets, "benchmark_scenes", lambda: [Scene("tiny", settings)])
    monkeypatch.setattr(sets, "SEEDS_PER_SCENE", 1)
    (chosen,) = sets.simulated_sets(tmp_path, ["tiny"])
    found = pickers.pick_set(pickers.CommandLine(model=str(tiny_model)), chosen, tmp_path / "picks")
    accuracy = script("accuracy")
    score = accuracy.measure(pickers.CommandLine(model=str(tiny_model)), chosen, tmp_path / "picks")
    assert list(found) == ["tiny_1"]
    assert found["tiny_1"].seconds > 0
    assert score.micrographs == 1
    assert set(score.figures) == set(script("scoring").FIGURES)


@pytest.mark.slow
def test_a_gpu_session_in_small_leaves_what_completes_a_model(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Prepared from one small image, on the CPU, for about a second of training."""
    monkeypatch.syspath_prepend(repository / "benchmarks")
    monkeypatch.syspath_prepend(repository / "benchmarks" / "gpu")
    (tmp_path / "data" / "findem").mkdir(parents=True)
    pixels = np.random.default_rng(0).normal(128, 30, (200, 200)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "data" / "findem" / "a.png")
    prepared, out = tmp_path / "prepared", tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["prepare", "--data", str(tmp_path / "data"), "--out", str(prepared), "--wheels"])
    assert importlib.import_module("prepare").main() == 0
    session = importlib.import_module("session")
    monkeypatch.setitem(session.SHARES, "emmae-base", 1.0)
    words = ["--device", "cpu", "--minutes", "0.02", "--no-simulated", "--only", "emmae-base"]
    monkeypatch.setattr("sys.argv", ["session", "--prepared", str(prepared), "--out", str(out), *words])
    assert session.main() == 0
    assert {path.name for path in out.iterdir()} == {
        *("report.md", "report.json", "emmae-base.pt", "emmae-base-loss.csv"),
    }
    model, state = importlib.import_module("train_shipped").load_training(out / "emmae-base.pt", "default")
    assert model.encoder.config.patch_px == 8
    assert state["std"] > 0
    assert len(state["log"]) == json.loads((out / "report.json").read_text())["emmae-base"]["steps"]
