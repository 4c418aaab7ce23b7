"""Wrong settings are said once, on the terminal and in the summary; right ones raise no doubt."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray

QUICK = ("--no-adapt", "--report", "none", "--overlays", "none")


@pytest.fixture
def said(
    cryoemmae: Callable[..., int],
    particles_of_40_px: NDArray[np.float32],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., str]:
    """Pick one micrograph; the only warning, on the terminal as in the summary, or "" for none."""

    def pick(*options: object, sign: int = 1, candidates: int = 20, micrographs: int = 1) -> str:
        for number in range(micrographs):
            image = sign * particles_of_40_px
            image[0, 0] = candidates
            path = tmp_path / f"m{number}.mrc"
            with mrcfile.new(path, image, overwrite=True) as mrc:
                mrc.voxel_size = 4.0
        diameter = () if "--diameter" in options else ("--diameter", 160)
        words = (*diameter, *QUICK, *options)
        assert cryoemmae("pick", tmp_path / "m*.mrc", "--out", tmp_path / "out", "--overwrite", *words) == 0
        shown = capsys.readouterr().err.splitlines()
        noted = json.loads((tmp_path / "out" / "summary.json").read_text())["warnings"]
        assert len(shown) == len(noted) <= 1
        return shown[0] if shown else ""

    return pick


def test_the_right_ones_raise_no_doubt(said: Callable[..., str]) -> None:
    assert said() == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "size", "fits"),
    [
        (("--diameter", 320), "smaller than 320 Å at 4 Å/px", "a diameter of 1[4-9]0 Å"),
        (("--diameter", 80), "larger than 80 Å at 4 Å/px", "a diameter of 1[4-9]0 Å"),
        (("--pixel-size", 2), "smaller than 160 Å at 2 Å/px", r"a pixel size of (3\.[4-9]|4)"),
        (("--pixel-size", 8), "larger than 160 Å at 8 Å/px", r"a pixel size of (3\.[4-9]|4)"),
    ],
)
def test_a_size_off_by_two_is_said_with_what_would_fit(
    said: Callable[..., str], options: tuple[object, ...], size: str, fits: str
) -> None:
    text = said(*options)
    assert size in text
    assert "Check, in this order: --pixel-size, --diameter, --contrast" in text
    assert re.search(fits, text), text


@pytest.mark.slow
def test_inverted_contrast_is_said(said: Callable[..., str]) -> None:
    assert "--contrast bright would fit" in said(sign=-1)
    assert "--contrast dark would fit" in said("--contrast", "bright")


@pytest.mark.parametrize(
    ("micrographs", "where"),
    [
        (1, "this micrograph"),
        pytest.param(2, "any of 2 micrographs", marks=pytest.mark.slow),
        pytest.param(4, "the first 3 micrographs", marks=pytest.mark.slow),
    ],
)
def test_no_picks_are_said_once(said: Callable[..., str], micrographs: int, where: str) -> None:
    text = said(candidates=0, micrographs=micrographs)
    assert f"No picks in {where}. Check, in this order: --pixel-size, --diameter, --contrast" in text
    assert "there is not even a faint candidate" in text


@pytest.mark.slow
def test_candidates_below_the_threshold_are_said_where_there_are_no_picks(said: Callable[..., str]) -> None:
    text = said("--threshold", 0.999999, candidates=30, micrographs=1)
    assert re.search(
        r"very faint particles may be among the \d+ candidates a micrograph that --threshold 0.02 would", text
    )


@pytest.mark.slow
def test_crowds_are_said_at_the_end(said: Callable[..., str]) -> None:
    options = ("--threshold", 0, "--min-distance", 0, "--edge-distance", 0)
    assert "The picks are implausibly dense" in said(*options, candidates=600)
