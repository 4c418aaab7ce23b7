"""Particles of several sizes through a run: settings, results, files, another threshold."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from cryoemmae_plugin.core.suppression import non_maximum_suppression
from cryoemmae_plugin.errors import SettingsError
from cryoemmae_plugin.picks.boxes import read_box
from cryoemmae_plugin.picks.reading import read_picks
from cryoemmae_plugin.run.formats import Format
from cryoemmae_plugin.run.outputs import write_outputs
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import ResultStore, RunRecord
from cryoemmae_plugin.settings import PickerSettings, RequestedSettings, sizes_of
from cryoemmae_plugin.types import Micrograph, Picks

SIZED = Picks(
    np.array([[50.0, 50.0], [50.0, 90.0], [150.0, 100.0], [10.0, 10.0]]),
    np.array([0.9, 0.8, 0.6, 0.55], np.float32),
    np.ones(4, np.float32),
    (200, 300),
    diameter_A=np.array([90.0, 90.0, 220.0, 90.0]),
)


def record(diameter: float | str) -> RunRecord:
    settings = RequestedSettings(diameter_A=diameter).with_diameter(diameter)
    return RunRecord(version="0", model_name="m", model_sha256="ab", settings=settings)


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    store = ResultStore.create(tmp_path / "picks", record("90,220"))
    path = tmp_path / "mic.mrc"
    path.write_bytes(b"image")
    store.save(Micrograph(path, 3.0, "mic"), SIZED, 3.0, 5)
    return store


@pytest.mark.parametrize(
    ("text", "sizes"), [("90,220", (90, 220)), ("220, 90".replace(" ", ""), (90, 220)), ("90-220", (90, 141, 220))]
)
def test_a_list_and_a_range_are_sizes(text: str, sizes: tuple[float, ...]) -> None:
    settings = RequestedSettings(diameter_A=text).with_diameter(text)
    assert (settings.sizes_A, settings.diameter_A) == (sizes, 220)


@pytest.mark.parametrize("text", ["90,95", "0,90", "220-90", "1,2,4,8,16,32,64,128,256", "90,220-300", "90,20000"])
def test_sizes_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        sizes_of(text)


def test_paper_mode_takes_one_size() -> None:
    with pytest.raises(SettingsError, match="give one diameter"):
        RequestedSettings(diameter_A="90,220", mode="paper")


def test_one_size_leaves_no_trace_of_sizes() -> None:
    settings = PickerSettings(diameter_A=120)
    assert "sizes_A" not in settings.model_dump()
    assert "sizes_A" not in settings.model_dump_json()
    assert "sizes" not in " ".join(record(120.0).comparable())
    assert PickerSettings.model_validate_json(settings.model_dump_json()) == settings


def test_other_sizes_are_another_run(store: ResultStore) -> None:
    assert store.record.comparable()["$diameter_A"] == "90,220"
    assert store.record.fingerprint != record("90,140,220").fingerprint


def test_results_keep_the_size_of_each_candidate(store: ResultStore) -> None:
    assert store.record == ResultStore.open(store.folder).record
    loaded = store.load("mic").picks
    assert loaded.diameter_A is not None
    assert loaded.diameter_A.tolist() == SIZED.diameter_A.tolist()  # type: ignore[union-attr]


def test_each_pick_keeps_its_own_distances(store: ResultStore) -> None:
    chosen = Selection.of(store.record.settings).picks(store.load("mic"))
    assert chosen.xy.tolist() == [[50, 50], [50, 90], [150, 100]]  # the last one lies within its radius of the edge
    xy, score = np.array([[0.0, 0.0], [30.0, 0.0]]), np.array([1.0, 0.5], np.float32)
    assert len(non_maximum_suppression(xy, score, np.array([20.0, 30.0]))) == 2
    assert len(non_maximum_suppression(xy, score, np.array([20.0, 50.0]))) == 1


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_every_file_has_the_sizes(store: ResultStore, threshold: float) -> None:
    selection = Selection.of(store.record.settings, threshold)
    totals = write_outputs(store, selection, list(Format))
    sizes = [90.0, 90.0, 220.0][: totals.picks]
    assert totals.by_diameter_A == ({"90": 2, "220": 1} if threshold == 0.5 else {"90": 2})
    for name in ("picks.star", "cryosparc.star"):
        rows = [
            line.split() for line in (store.folder / name).read_text().splitlines() if line[:1] not in ("", "_", "#")
        ]
        assert [float(row[4]) for row in rows if len(row) > 4] == sizes
    with (store.folder / "picks.csv").open() as file:
        assert [float(row["diameter"]) for row in csv.DictReader(file)] == pytest.approx(
            [size / 3 for size in sizes], abs=0.01
        )
    (relion,) = [table for path in store.folder.glob("relion/**/mic_autopick.star") for table in read_picks(path)]
    assert len(relion) == len(sizes)
    boxes = read_box(store.folder / "boxes" / "mic.box")
    assert np.abs(boxes.xy - SIZED.xy[: len(sizes)]).max() <= 0.5


def test_a_summary_counts_each_size(store: ResultStore) -> None:
    from cryoemmae_plugin.run.summary import RunLog, read_summary, write_summary

    selection = Selection.of(store.record.settings)
    totals = write_outputs(store, selection)
    write_summary(store.folder, store.record, RunLog(selection), totals, "done", "cpu")
    assert read_summary(store.folder)["total"]["by_diameter_A"] == {"90": 2, "220": 1}
    assert json.dumps(read_summary(store.folder)["settings"]["sizes_A"]) == "[90.0, 220.0]"
