"""Reading references and picks: what is understood, and what is refused with a reason."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.evaluation.tables import read_picks, read_reference
from cryoemmae_plugin.star import format_table

STAR = "data_particles\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_row_without_coordinates_is_a_micrograph_without_particles(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", "micrograph,x,y,diameter\na/one.mrc,1,2,30\ntwo.mrc,,,40\n001.mrc,3,4,30\n")
    reference = read_reference(path)
    assert reference["one"].xy.tolist() == [[1.0, 2.0]]
    assert len(reference["two"].xy) == 0
    assert set(reference) == {"one", "two", "001"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("micrograph,x,y\na,1,2\n", "'diameter' is missing"),
        ("micrograph,x,y,diameter\na,one,2,3\n", "must be numbers"),
        ("micrograph,x,y,diameter\na,1,2,0\n", "line 2: the diameter must be greater than 0"),
        ("micrograph,x,y,diameter\na,1,2,inf\n", "line 2: diameter is 'inf'"),
        ("micrograph,x,y,diameter\n,1,2,3\n", "line 2: no micrograph"),
        ("micrograph,x,y,diameter\na,1,,3\n", "line 2: one of x and y is missing"),
        ("micrograph;x;y;diameter\na;1;2;3\n", "with commas between them"),
        ("micrograph,x,y,diameter\n" + "a" * 200_000 + ",1,2,3\n", "line 1: cannot be read as a CSV table"),
        ("", "'micrograph' is missing"),
    ],
)
def test_a_reference_that_is_none_says_why(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_reference(write(tmp_path / "r.csv", text))


def test_picks_without_a_score_have_nan(tmp_path: Path) -> None:
    picks = read_picks([write(tmp_path / "p.star", STAR + "a/one.mrc 1 2\n")], ["one"])
    assert np.isnan(picks["one"].score).all()


def test_a_star_without_names_belongs_to_the_micrograph_it_is_called_after(tmp_path: Path) -> None:
    text = "data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1 2\n3 4\n"
    path = write(tmp_path / "mic_10_autopick.star", text)
    assert list(read_picks([path], ["mic_1", "mic_10"])) == ["mic_10"]


def test_min_score_leaves_out_the_rest(tmp_path: Path) -> None:
    text = STAR + "_rlnAutopickFigureOfMerit #4\na.mrc 1 2 0.4\na.mrc 1 2 0.6\n"
    assert len(read_picks([write(tmp_path / "p.star", text)], ["a"], 0.5)["a"].xy) == 1


@pytest.mark.parametrize(("text", "message"), [("hello", "not a STAR file"), (STAR + "a.mrc one 2\n", "not a number")])
def test_a_star_that_holds_no_picks_says_so(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_picks([write(tmp_path / "p.star", text)], ["a"])


def test_a_star_without_a_pick_is_fine(tmp_path: Path) -> None:
    assert read_picks([write(tmp_path / "p.star", STAR + "\n")], ["a"]) == {}


def test_a_missing_star_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.star: no such file"):
        read_picks([tmp_path / "gone.star"], ["a"])


NAMES = ["Grid2_-60.0_001", "Grid2_10.0", "Grid2_10.5", "00255", "255", "x(1)", "anna's", "a#1", "TOMO_[0.0]_DW", "NA"]


@pytest.mark.parametrize("suffix", ["", ".mrc", ".mrc.gz", ".tif"])
@pytest.mark.parametrize("number", ["", "000000123456789012345_"])
def test_every_name_finds_its_picks(tmp_path: Path, suffix: str, number: str) -> None:
    rows = "".join(f"{number}{name}{suffix},{index},2,30\n" for index, name in enumerate(NAMES))
    reference = read_reference(write(tmp_path / "r.csv", "micrograph,x,y,diameter\n" + rows))
    picked = [(f"M/{name}.mrc", index, 2) for index, name in enumerate(NAMES)]
    columns = ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY")
    picks = read_picks([write(tmp_path / "p.star", format_table("particles", columns, picked))], reference)
    assert {name: scored.xy[0, 0] for name, scored in picks.items()} == {
        number + name: index for index, name in enumerate(NAMES)
    }


TWO_GRIDS = "micrograph,x,y,diameter\nM/grid1/0001.mrc,1,2,30\nM/grid2/0001.mrc,3,4,30\n"


def test_equal_names_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    reference = read_reference(write(tmp_path / "r.csv", TWO_GRIDS))
    star = write(tmp_path / "p.star", STAR + "grid2/0001.mrc 3 4\n/data/M/grid1/0001.mrc 1 2\n")
    picks = read_picks([star], reference)
    assert {name: scored.xy.tolist() for name, scored in picks.items()} == {
        "M/grid1/0001": [[1.0, 2.0]],
        "M/grid2/0001": [[3.0, 4.0]],
    }


def test_a_folder_that_the_reference_does_not_have_is_a_stranger(tmp_path: Path) -> None:
    reference = read_reference(write(tmp_path / "r.csv", "micrograph,x,y,diameter\ngrid1/0001.mrc,1,2,30\n"))
    picks = read_picks([write(tmp_path / "p.star", STAR + "grid2/0001.mrc 3 4\ngrid1/0001.mrc 1 2\n")], reference)
    assert picks["0001"].xy.tolist() == [[1.0, 2.0]]
    assert len(picks) == 2


@pytest.mark.parametrize(
    ("reference", "picks"),
    [
        (TWO_GRIDS, "0001.mrc 1 2\n"),
        (TWO_GRIDS, "a/grid1/0001.mrc 1 2\nb/grid1/0001.mrc 1 2\n"),
        ("micrograph,x,y,diameter\n0001,1,2,30\n", "grid1/0001.mrc 1 2\ngrid2/0001.mrc 1 2\n"),
    ],
)
def test_equal_names_that_cannot_be_told_apart_are_refused(tmp_path: Path, reference: str, picks: str) -> None:
    known = read_reference(write(tmp_path / "r.csv", reference))
    with pytest.raises(InputError, match="the folders do not tell which is which"):
        read_picks([write(tmp_path / "p.star", STAR + picks)], known)


def test_nothing_in_common_is_an_error_with_two_names(tmp_path: Path) -> None:
    reference = read_reference(write(tmp_path / "r.csv", "micrograph,x,y,diameter\nsession_1,1,2,30\n"))
    with pytest.raises(InputError, match=r"picks are of 'M/other\.mrc', the reference has 'session_1'"):
        read_picks([write(tmp_path / "p.star", STAR + "M/other.mrc 1 2 \n")], reference)


def test_a_file_of_a_longer_name_is_not_taken_for_a_shorter_one(tmp_path: Path) -> None:
    text = "data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1 2\n"
    with pytest.raises(InputError, match="no micrograph with picks is in the reference"):
        read_picks([write(tmp_path / "mic_10_autopick.star", text)], ["mic_1"])


def test_tables_that_never_end_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match="not a regular file"):
            read_reference(path)


@settings(
    derandomize=True, max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(st.sampled_from('micrograph,xydet01.-e"\n\r\0 '), max_size=60) | st.binary(max_size=100))
def test_no_content_makes_the_reader_fail_otherwise(tmp_path: Path, content: str | bytes) -> None:
    head = b"micrograph,x,y,diameter\n" if isinstance(content, str) else b""
    (tmp_path / "r.csv").write_bytes(head + (content.encode() if isinstance(content, str) else content))
    with suppress(InputError):
        assert all(reference.diameter > 0 for reference in read_reference(tmp_path / "r.csv").values())
