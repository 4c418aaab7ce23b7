"""One reader for all STAR files, as tolerant as RELION's, and a writer that RELION and starfile read back."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import starfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.star import (
    find_table,
    format_pairs,
    format_table,
    parse_star,
    quote,
    read_star,
    records_of,
    unquote,
)

OPTICS = (
    "data_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnMicrographPixelSize #3\n"
    "_rlnMicrographOriginalPixelSize #4\n_rlnVoltage #5\n_rlnSphericalAberration #6\n_rlnAmplitudeContrast #7\n"
    "opticsGroup1 1 4.0 4.0 300 2.7 0.1\n\n"
)
MICROGRAPHS = "data_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\nM/m0.mrc 1\nM/m1.mrc 1\n"
NORMAL = OPTICS + MICROGRAPHS
TWO = ["M/m0.mrc", "M/m1.mrc"]
LAYOUTS = {
    "normal": (NORMAL, TWO),
    "blank line after loop_": (NORMAL.replace("loop_\n", "loop_\n\n"), TWO),
    "blank line after labels": (NORMAL.replace("#2\nM/", "#2\n\nM/"), TWO),
    "blank line between labels": (NORMAL.replace("Name #1\n", "Name #1\n\n"), TWO),
    "blank line between rows": (NORMAL.replace("M/m1", "\nM/m1"), TWO),
    "comment between rows": (NORMAL.replace("M/m1", "# M/m9.mrc 1\nM/m1"), TWO),
    "comment after a row": (NORMAL.replace("m0.mrc 1", "m0.mrc 1 # good"), TWO),
    "comment after labels": (NORMAL.replace("#2\nM/", "#2\n# here\nM/"), TWO),
    "line ends of Windows": (NORMAL.replace("\n", "\r\n"), TWO),
    "byte order mark": ("\ufeff" + NORMAL, TWO),
    "tabs": (NORMAL.replace(" ", "\t"), TWO),
    "indented": (NORMAL.replace("M/", "  M/").replace("_rln", " _rln").replace("loop_", " loop_"), TWO),
    "labels without numbers": (NORMAL.replace(" #1", "").replace(" #2", ""), TWO),
    "no newline at the end": (NORMAL.rstrip(), TWO),
    "no blank line between blocks": (NORMAL.replace("\n\n", "\n"), TWO),
    "optics table behind": (MICROGRAPHS + "\n" + OPTICS, TWO),
    "the first of two blocks": (NORMAL + "\n" + MICROGRAPHS.replace("m1", "m9"), TWO),
    "double quotation marks": (NORMAL.replace("M/m1.mrc", '"M/two words.mrc"'), ["M/m0.mrc", "M/two words.mrc"]),
    "single quotation marks": (NORMAL.replace("M/m1.mrc", "'M/two words.mrc'"), ["M/m0.mrc", "M/two words.mrc"]),
    "# in a name": (NORMAL.replace("M/m1", "M/a#2"), ["M/m0.mrc", "M/a#2.mrc"]),
    "' in a name": (NORMAL.replace("M/m1", "anna's"), ["M/m0.mrc", "anna's.mrc"]),
    "a folder data_": (NORMAL.replace("M/", "data_s1/"), ["data_s1/m0.mrc", "data_s1/m1.mrc"]),
    "a name with _ in front": (NORMAL.replace("M/m1", "_m1"), ["M/m0.mrc", "_m1.mrc"]),
    "one column, a folder data_": (
        "data_\n\nloop_\n_rlnMicrographName\ndata_a/m0.mrc\ndata_a/m1.mrc\n\ndata_other\n\n_rlnX 1\n",
        ["data_a/m0.mrc", "data_a/m1.mrc"],
    ),
    "no rows": (OPTICS + MICROGRAPHS.partition("M/")[0], []),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_that_relion_reads_is_read(layout: str, tmp_path: Path) -> None:
    text, names = LAYOUTS[layout]
    (tmp_path / "m.star").write_bytes(text.encode())
    tables = read_star(tmp_path / "m.star")
    table = next(table for table in tables if "rlnMicrographName" in table)
    assert table.column("rlnMicrographName") == names


def test_pairs_are_a_table_of_one_row(tmp_path: Path) -> None:
    text = "data_general\n\n_rlnFinalResolution 3.5 # Angstrom\n_rlnNote 'two words'\n_rlnNothing\n\n" + MICROGRAPHS
    (tmp_path / "m.star").write_text(text)
    expected = {"rlnFinalResolution": "3.5", "rlnNote": "two words", "rlnNothing": ""}
    assert records_of(tmp_path / "m.star", "general") == [expected]
    assert records_of(tmp_path / "m.star", "absent") == []
    assert records_of(tmp_path / "absent.star", "general") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "m.star: the file is empty; write it again"),
        ("\0\1\2", "m.star: no line begins with data_"),
        (NORMAL + "M/m2.mrc\n", "m.star, line 20: 1 values where data_micrographs has 2 columns; complete the line"),
        (NORMAL.replace("M/m1", "M/two words"), "line 19: 3 values .*put a value with blanks in quotation marks"),
    ],
)
def test_a_broken_file_is_refused_with_line_and_way_out(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.star").write_text(text)
    with pytest.raises(InputError, match=message):
        read_star(tmp_path / "m.star")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.star")
    (tmp_path / "folder.star").mkdir()
    for path in (tmp_path / "pipe.star", Path("/dev/zero"), tmp_path / "folder.star"):
        with pytest.raises(InputError, match="cannot be read as a STAR file"):
            read_star(path)
    with pytest.raises(InputError, match="no such file"):
        read_star(tmp_path / "none.star")


@pytest.mark.parametrize("value", ["abc", "nan", "inf", "1e999", "9" * 400 + "e9", "1_0", "''"])
def test_a_value_that_is_no_number_is_named_with_its_line(value: str) -> None:
    table = find_table(parse_star(f"data_x\n\nloop_\n_rlnX\n1.5\n{value}\n", "m.star"), "x")
    assert table is not None
    with pytest.raises(InputError, match=r"m\.star, line 6: _rlnX is "):
        table.numbers("rlnX")
    with pytest.raises(InputError, match=r"m\.star: the table data_x has no column _rlnY"):
        table.numbers("rlnY")


NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from(" '\"#_\t$;"), max_size=30)


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, NAMES), min_size=1))
def test_what_is_written_is_read_again(rows: list[tuple[str, str]]) -> None:
    def survives(text: str) -> bool:  # a text with both quotation marks at the ends of words has no form in STAR
        return parse_star(f"data_\nloop_\n_a\nx\n{quote(text)}\n")[0].rows[1] == [text]

    kept = [row for row in rows if all(not ("'" in text and '"' in text) for text in row)]
    assert all(survives(text) for row in kept for text in row if "'" not in text and '"' not in text)
    kept = [row for row in kept if all(map(survives, row))]
    (table,) = parse_star(format_table("block", ("a", "b"), kept))
    assert [tuple(row) for row in table.rows] == kept
    if kept:
        (pairs,) = parse_star(format_pairs("block", {"a": kept[0][0], "b": kept[0][1]}))
        assert tuple(pairs.rows[0]) == kept[0]


@pytest.mark.parametrize(
    "text", ["", "plain", "two words", "'", '"', "tab\there", "data_x", "a#b", "_x", "$$y", "it's"]
)
def test_quotes_come_off_again(text: str) -> None:
    assert unquote(quote(text)) == text


def test_a_line_break_does_not_break_a_table() -> None:
    assert parse_star(f"data_\nloop_\n_a\n{quote('two' + chr(10) + 'lines')}\n")[0].rows == [["two lines"]]


PLAIN = [
    "M/m.mrc",
    "data_s1/m.mrc",
    "grid#1.mrc",
    "two words.mrc",
    "_x.mrc",
    "#1.mrc",
    "00255.mrc",
    "loop_1.mrc",
    "a.b(1)[2]",
]


def test_starfile_reads_what_is_written(tmp_path: Path) -> None:
    rows = [(name, number) for number, name in enumerate(PLAIN)]
    (tmp_path / "x.star").write_text(format_table("micrographs", ("rlnMicrographName", "rlnX"), rows))
    table = starfile.read(tmp_path / "x.star")
    assert list(table["rlnMicrographName"]) == PLAIN
    assert list(table["rlnX"]) == list(range(len(PLAIN)))


def test_starfile_reads_an_apostrophe_as_a_quotation_mark_and_all_else_right(tmp_path: Path) -> None:
    rows = [("anna's_1.mrc", 1), ("b.mrc", 2)]
    (tmp_path / "x.star").write_text(format_table("micrographs", ("rlnMicrographName", "rlnX"), rows))
    assert list(starfile.read(tmp_path / "x.star")["rlnMicrographName"]) == ['anna"s_1.mrc', "b.mrc"]


@pytest.mark.skipif(shutil.which("relion_star_handler") is None, reason="no RELION here")
def test_relion_reads_what_is_written(tmp_path: Path) -> None:
    names = [*PLAIN, "anna's.mrc"]
    names.remove("#1.mrc")  # RELION reads it, and writes it without quotation marks
    table = format_table("micrographs", ("rlnMicrographName", "rlnOpticsGroup"), [(name, 1) for name in names])
    (tmp_path / "x.star").write_text(OPTICS + table)
    command = ["relion_star_handler", "--i", "x.star", "--combine", "--o", "y.star"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    back = find_table(read_star(tmp_path / "y.star"), "micrographs")
    assert back is not None
    assert back.column("rlnMicrographName") == names


PIECES = st.sampled_from(
    [
        "data_",
        "data_x",
        "loop_",
        "_rlnX",
        "_rlnX #1",
        "1.5",
        "a b",
        "'",
        '"',
        "#",
        "\n",
        "\n\n",
        "\r\n",
        " ",
        "\t",
        "\0",
    ]
)


@settings(
    derandomize=True, max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(PIECES, max_size=30).map("".join).map(str.encode) | st.binary(max_size=200))
def test_no_content_makes_the_reader_fail_otherwise(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.star").write_bytes(content)
    with suppress(InputError):
        for table in read_star(tmp_path / "x.star"):
            assert all(len(row) == len(table.columns) for row in table.rows)
            for label in table.columns:
                table.numbers(label)
