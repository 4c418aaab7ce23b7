"""Groups of picks on their way through a run: stored, written for each program, and left out on request."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import starfile

from cryoemmae_plugin.cli import main
from cryoemmae_plugin.picks.relion_coordinates import format_coordinates
from cryoemmae_plugin.run.outputs import write_outputs
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import ResultStore, RunRecord
from cryoemmae_plugin.run.summary import saved_selection
from cryoemmae_plugin.settings import PURITY_THRESHOLD, PickerSettings
from cryoemmae_plugin.types import Micrograph, Picks

MakeMicrograph = Callable[..., Path]
GROUP = np.array([1, 3, 1, 2], np.int32)
PICKS = Picks(
    np.array([(20.0, 20.0), (60.0, 20.0), (20.0, 80.0), (62.0, 22.0)]),
    np.array([0.95, 0.9, 0.7, 0.3], np.float32),
    np.ones(4, np.float32),
    (100, 100),
    GROUP,
)


@pytest.fixture
def grouped(tmp_path: Path, record: RunRecord, make_micrograph: MakeMicrograph) -> ResultStore:
    """A result folder with one micrograph, its picks grouped."""
    path = make_micrograph(tmp_path / "a.mrc", shape=(100, 100))
    with ResultStore.create(tmp_path / "out", record) as store:
        store.save(Micrograph(path, 2.0, "a"), PICKS, 2.0, path.stat().st_size)
    return store


def test_the_group_of_each_pick_is_stored_and_read_back(grouped: ResultStore) -> None:
    read = grouped.load("a").picks
    assert read.group is not None
    assert read.group.tolist() == GROUP.tolist()
    assert read.above(0.8).group is not None
    assert grouped.holds(Micrograph(grouped.load("a").source.path, 2.0, "a"))


def test_a_dropped_group_is_left_out_and_shadows_nothing(grouped: ResultStore) -> None:
    result = grouped.load("a")
    rule = Selection(threshold=0.2, diameter_A=20.0, edge_distance=0.0, min_distance=0.5)
    assert rule.picks(result).xy.tolist() == [[20, 20], [60, 20], [20, 80]]
    other = Selection(threshold=0.2, diameter_A=20.0, edge_distance=0.0, min_distance=0.5, drop_group="1,3")
    assert other.picks(result).xy.tolist() == [[62, 22]]


def test_files_for_other_programs_carry_the_group(grouped: ResultStore) -> None:
    write_outputs(grouped, Selection.of(PickerSettings(diameter_A=20.0)))
    table = starfile.read(grouped.folder / "picks.star")
    assert table["rlnClassNumber"].tolist() == [1, 3, 1]
    rows = [line.split() for line in format_coordinates(PICKS).splitlines() if line[:1] == " "]
    assert [row[3] for row in rows] == ["1", "3", "1", "2"]


def test_rethreshold_drops_groups_and_takes_them_back(grouped: ResultStore) -> None:
    (grouped.folder / "summary.json").write_text(json.dumps({"settings": {"min_distance": 0.5}}))
    folder = str(grouped.folder)
    assert main(["rethreshold", folder, "--drop-group", "3"]) == 0
    assert starfile.read(grouped.folder / "picks.star")["rlnClassNumber"].tolist() == [1, 1]
    assert saved_selection(grouped.folder, grouped.record).dropped_groups == {3}
    assert main(["rethreshold", folder, "--purity", "high"]) == 0  # the group stays out
    selection = saved_selection(grouped.folder, grouped.record)
    assert (selection.threshold, selection.dropped_groups) == (PURITY_THRESHOLD["high"], {3})
    assert main(["rethreshold", folder, "--drop-group", "none", "--threshold", "0.5"]) == 0
    assert len(starfile.read(grouped.folder / "picks.star")) == 3


@pytest.mark.parametrize("words", [["--drop-group", "a"], ["--purity", "high", "--threshold", "0.4"]])
def test_what_makes_no_sense_is_refused(grouped: ResultStore, words: list[str]) -> None:
    assert main(["rethreshold", str(grouped.folder), *words]) == 2


def test_picks_without_groups_are_written_as_ever(
    tmp_path: Path, record: RunRecord, make_micrograph: MakeMicrograph
) -> None:
    path = make_micrograph(tmp_path / "a.mrc", shape=(100, 100))
    with ResultStore.create(tmp_path / "out", record) as store:
        store.save(Micrograph(path, 2.0, "a"), Picks(PICKS.xy, PICKS.score, PICKS.power, PICKS.shape), 2.0, 1)
        write_outputs(store, Selection.of(PickerSettings(diameter_A=20.0)))
    assert store.load("a").picks.group is None
    assert "rlnClassNumber" not in (store.folder / "picks.star").read_text()
    assert "rlnClassNumber" not in store.path_of("a").read_text()
