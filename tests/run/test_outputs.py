"""The files for other programs hold what the store holds."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import starfile

from cryoemmae_plugin.errors import StoreError
from cryoemmae_plugin.picks.boxes import write_box
from cryoemmae_plugin.run.formats import Format, existing_formats
from cryoemmae_plugin.run.outputs import write_outputs
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import ResultStore, RunRecord
from cryoemmae_plugin.types import Micrograph, Picks


def at(threshold: float) -> Selection:
    return Selection(threshold, diameter_A=20.0, edge_distance=0.0, min_distance=0.0)


@pytest.fixture
def store(tmp_path: Path, record: RunRecord) -> ResultStore:
    store = ResultStore.create(tmp_path / "out", record)
    for index, name in enumerate(["b mic.mrc", "a.mrc", "empty.mrc"]):
        n = 3 * (index < 2)
        picks = Picks(
            np.arange(2.0 * n).reshape(n, 2) + index + 0.25,
            np.array([0.9, 0.5, 0.2], np.float32)[:n],
            np.ones(n, np.float32),
            (40, 60),
        )
        store.save(Micrograph(tmp_path / name, None, name[:-4]), picks, 2.0, 1)
    return store


def test_star_and_csv_hold_the_picks_above_the_threshold(store: ResultStore, tmp_path: Path) -> None:
    totals = write_outputs(store, at(0.5))
    assert (totals.picked, totals.empty, totals.picks) == (2, 1, 4)
    blocks = starfile.read(store.folder / "picks.star", always_dict=True)
    table = blocks["particles"]
    assert list(table) == ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"]
    assert table["rlnMicrographName"].tolist() == [str(tmp_path / "a.mrc")] * 2 + [str(tmp_path / "b mic.mrc")] * 2
    assert table["rlnCoordinateX"].tolist() == [1.25, 3.25, 0.25, 2.25]
    assert table["rlnCoordinateY"].tolist() == [2.25, 4.25, 1.25, 3.25]
    assert table["rlnAutopickFigureOfMerit"].tolist() == [0.9, 0.5, 0.9, 0.5]
    with (store.folder / "picks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["x"]) for row in rows] == table["rlnCoordinateX"].tolist()
    assert {row["diameter"] for row in rows} == {"10.00"}


def test_no_pick_at_all_is_still_a_star_that_can_be_read(store: ResultStore) -> None:
    assert write_outputs(store, at(1.0)).picks == 0
    assert len(starfile.read(store.folder / "picks.star")) == 0


def test_boxes_are_lower_left_corners_around_the_centre(tmp_path: Path) -> None:
    picks = Picks(np.array([[100.4, 50.0]]), np.ones(1, np.float32), np.ones(1, np.float32), (200, 200))
    write_box(tmp_path / "mic.box", picks, 31.0)
    x, y, width, height = map(int, (tmp_path / "mic.box").read_text().split())
    assert (width, height) == (32, 32)
    assert (x + width / 2, y + height / 2) == (100, 50)


def test_boxes_of_an_earlier_threshold_do_not_stay(store: ResultStore) -> None:
    write_outputs(store, at(0.0), {Format.EMAN})
    assert len((store.folder / "boxes" / "a.box").read_text().splitlines()) == 3
    write_outputs(store, at(0.6), {Format.EMAN})
    assert len((store.folder / "boxes" / "a.box").read_text().splitlines()) == 1
    assert (store.folder / "boxes" / "empty.box").read_text() == ""


def test_boxes_of_others_are_left_alone(store: ResultStore) -> None:
    theirs = store.folder / "boxes" / "theirs.box"
    theirs.parent.mkdir()
    theirs.write_text("theirs")
    assert not existing_formats(store.folder)
    for _ in range(2):
        write_outputs(store, at(0.5), {Format.EMAN})
    assert existing_formats(store.folder) == {Format.EMAN}
    assert theirs.read_text() == "theirs"
    assert sorted(path.name for path in theirs.parent.glob("*.box")) == [
        "a.box",
        "b mic.box",
        "empty.box",
        "theirs.box",
    ]
    store.path_of("a").unlink()
    write_outputs(store, at(0.5), {Format.EMAN})
    assert sorted(path.name for path in theirs.parent.glob("*.box")) == ["b mic.box", "empty.box", "theirs.box"]


def test_a_box_file_of_others_is_not_replaced(store: ResultStore) -> None:
    theirs = store.folder / "boxes" / "a.box"
    theirs.parent.mkdir()
    theirs.write_text("theirs")
    with pytest.raises(StoreError, match=r"a\.box: there already, and not written by this program"):
        write_outputs(store, at(0.5), {Format.EMAN})
    assert theirs.read_text() == "theirs"


@pytest.mark.parametrize("name", ["data_s1/m.mrc", "grid#1.mrc", "two words.mrc", "00255.mrc", "x(1)[2].mrc"])
def test_names_come_back_from_starfile(store: ResultStore, name: str) -> None:
    store.save(Micrograph(Path(name), None, "a"), store.load("a").picks, 2.0, 1)
    write_outputs(store, at(0.0))
    assert name in set(starfile.read(store.folder / "picks.star")["rlnMicrographName"])
