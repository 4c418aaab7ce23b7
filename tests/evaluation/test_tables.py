"""Reading references and picks: what is understood, and what is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.evaluation.tables import read_picks, read_reference

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
        ("micrograph,x,y,diameter\na,1,2,0\n", "greater than 0"),
        ("", "cannot be read"),
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


@pytest.mark.parametrize(("text", "message"), [("hello", "rlnCoordinateX"), (STAR + "a.mrc one 2\n", "not a number")])
def test_a_star_that_holds_no_picks_says_so(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_picks([write(tmp_path / "p.star", text)], ["a"])


def test_a_star_without_a_pick_is_fine(tmp_path: Path) -> None:
    assert read_picks([write(tmp_path / "p.star", STAR + "\n")], ["a"]) == {}


def test_a_missing_star_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.star: no such file"):
        read_picks([tmp_path / "gone.star"], ["a"])
