"""A result file: every digit comes back, other programs can read it, and half a file is not taken for a whole one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import starfile
from hypothesis import given
from hypothesis import strategies as st

from cryoemmae_plugin.run.record import Result, Source, format_result, parse_header, parse_result, rounded
from cryoemmae_plugin.types import Picks


def a_result(n: int = 7, name: str = "Micrographs/mic.mrc") -> Result:
    rng = np.random.default_rng(n)
    picks = Picks(
        rng.random((n, 2)) * 4096, rng.random(n).astype(np.float32), rng.normal(size=n).astype(np.float32), (400, 600)
    )
    return Result("mic", name, Source(Path(f"/data/{name}"), 12345, 10**18), 1.0651234567, "abc", rounded(picks))


def assert_same(a: Result, b: Result) -> None:
    for key in ("uid", "micrograph", "source", "pixel_size_A", "fingerprint"):
        assert getattr(a, key) == getattr(b, key)
    assert a.picks.shape == b.picks.shape
    for key in ("xy", "score", "power"):
        x, y = getattr(a.picks, key), getattr(b.picks, key)
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("n", [0, 1, 500])
def test_what_is_written_is_read_again(n: int) -> None:
    result = a_result(n)
    assert_same(parse_result("mic", format_result(result)), result)


@pytest.mark.parametrize("name", ["a b.mrc", "it's.mrc", 'a"b c.mrc', "#1.mrc", "_x.mrc", "Ångström.mrc", "data_x.mrc"])
def test_any_file_name_survives(name: str) -> None:
    result = a_result(2, name)
    assert parse_result("mic", format_result(result)).micrograph == name


@given(st.lists(st.floats(-1e5, 1e5), min_size=2, max_size=20))
def test_rounding_twice_changes_nothing(values: list[float]) -> None:
    n = len(values) // 2
    flat = np.array(values[: 2 * n])
    once = rounded(
        Picks(flat.reshape(n, 2), np.abs(np.sin(flat[:n])).astype(np.float32), flat[n:].astype(np.float32), (9, 9))
    )
    result = Result("u", "m", Source(Path("s"), 1), 1.0, "f", once)
    assert_same(parse_result("u", format_result(result)), result)
    assert format_result(parse_result("u", format_result(result))) == format_result(result)


@pytest.mark.parametrize("n", [0, 9])
def test_a_file_cut_anywhere_is_not_a_result(n: int) -> None:
    text = format_result(a_result(n))
    for length in range(len(text)):
        with pytest.raises(ValueError):
            parse_result("mic", text[:length])


def test_other_formats_are_refused_by_number() -> None:
    text = format_result(a_result()).replace("format 1", "format 99")
    with pytest.raises(ValueError, match="format 99"):
        parse_header(text)


def test_a_star_library_reads_it_too(tmp_path: Path) -> None:
    result = a_result(4, "a b.mrc")
    path = tmp_path / "mic.star"
    path.write_text(format_result(result))
    blocks = starfile.read(path)
    assert blocks["micrograph"]["rlnMicrographName"] == "a b.mrc"
    np.testing.assert_array_equal(blocks["candidates"]["rlnCoordinateX"], result.picks.xy[:, 0])
