"""Which micrographs a path stands for, and what their results are called."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.run.folders import stem_of
from cryoemmae_plugin.run.inputs import find_micrographs, name_micrographs
from cryoemmae_plugin.run.record import Source


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(*paths: Path | str, **options: object) -> list[str]:
    return [micrograph.path.name for micrograph in find_micrographs(list(paths), **options)]  # type: ignore[arg-type]


def test_a_folder_gives_its_images_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "b.mrc", "a.tif", "c.mrc.gz", "notes.txt", ".hidden.mrc", "deep/d.mrc", "stack.mrcs")
    assert names(tmp_path) == ["a.tif", "b.mrc", "c.mrc.gz"]


def test_recursive_searches_the_folders_inside_but_not_the_results(tmp_path: Path) -> None:
    touch(tmp_path, "a.mrc", "deep/d.mrc", "picks/overlays/a.png")
    assert names(tmp_path, recursive=True, exclude=tmp_path / "picks") == ["a.mrc", "d.mrc"]


def test_pictures_of_an_earlier_run_are_no_micrographs(tmp_path: Path) -> None:
    touch(
        tmp_path, "a.mrc", "old/settings.json", "old/results/a.star", "old/overlays/a.png", "old/report/pictures/a.jpg"
    )
    touch(tmp_path, "settings.json", "results/a.star", "overlays/a.png", "sub/overlays/b.png")
    assert names(tmp_path, recursive=True) == ["a.mrc", "b.png"]
    assert names(tmp_path, recursive=True, exclude=tmp_path / "old" / ".." / "sub") == ["a.mrc"]


def test_a_folder_that_may_not_be_read_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "a.mrc", "closed/b.mrc")
    listed = Path.iterdir

    def list_what_is_open(folder: Path) -> Iterator[Path]:
        if folder.name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", list_what_is_open)
    assert names(tmp_path, recursive=True) == ["a.mrc"]
    assert "closed: left out, it cannot be read (Permission denied)" in caplog.text


def test_previews_beside_micrographs_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.mrc", "a.jpg", "b.png")
    assert names(tmp_path) == ["a.mrc", "b.png"]


def test_globs_are_expanded_here_where_no_shell_has_done_it(tmp_path: Path) -> None:
    touch(tmp_path, "x_1.mrc", "x_2.mrc", "y.mrc", "x_3.txt")
    assert names(tmp_path / "x_*") == ["x_1.mrc", "x_2.mrc"]
    with pytest.raises(InputError, match="no micrograph matches"):
        names(tmp_path / "z*.mrc")


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].mrc")
    assert names(tmp_path / "a[1].mrc") == ["a[1].mrc"]


def test_a_micrograph_named_twice_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.mrc", "b.mrc")
    monkeypatch.chdir(tmp_path)
    found = find_micrographs(["b.mrc", tmp_path, str(tmp_path / "*.mrc")])
    assert [str(m.path) for m in found] == ["b.mrc", str(tmp_path / "a.mrc")]


def test_a_missing_image_stays_in_the_list_and_anything_else_missing_is_an_error(tmp_path: Path) -> None:
    assert names(tmp_path / "gone.mrc") == ["gone.mrc"]
    with pytest.raises(InputError, match="no such file or folder"):
        names(tmp_path / "typo")
    touch(tmp_path, "notes.txt")
    with pytest.raises(InputError, match="not an image"):
        names(tmp_path / "notes.txt")


def test_an_empty_folder_is_an_error_that_names_recursive(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="recursive=True"):
        names(tmp_path)


@pytest.mark.parametrize(
    ("name", "stem"), [("a.mrc", "a"), ("a.b.mrc", "a.b"), ("a.b.mrc.gz", "a.b"), ("a.mrc.bz2", "a"), ("a.TIF", "a")]
)
def test_stems_lose_the_image_suffix_only(name: str, stem: str) -> None:
    assert stem_of(Path(name)) == stem


def test_uids_are_stems_and_long_ones_only_where_stems_clash() -> None:
    uids = name_micrographs([Path("/a/x.mrc"), Path("/b/x.mrc"), Path("/a/x.tif"), Path("/a/y.mrc"), Path("/a/Y.mrc")])
    assert len({uid.casefold() for uid in uids}) == 5
    assert all(uid.startswith(("x-", "y-", "Y-")) for uid in uids)
    assert name_micrographs([Path("/a/x.mrc"), Path("/a/y.mrc")]) == ["x", "y"]


def test_a_uid_stays_when_a_namesake_is_added_or_taken_away() -> None:
    first, second = Path("/a/x.mrc"), Path("/b/x.mrc")
    store = {"x": Source(first, 0)}
    both = name_micrographs([second, first], store.get)
    assert both[1] == "x"
    assert both[0] != "x"
    store[both[0]] = Source(second, 0)
    assert name_micrographs([second], store.get) == [both[0]]
    del store["x"]
    assert name_micrographs([second], store.get) == [both[0]]


def test_a_micrograph_keeps_its_uid_by_another_path_or_link(tmp_path: Path) -> None:
    touch(tmp_path, "raw/x.mrc", "more/x.mrc")
    (tmp_path / "link").symlink_to(tmp_path / "raw")
    store = {"x": Source(tmp_path / "raw" / "x.mrc", 0)}
    assert name_micrographs([tmp_path / "link" / "x.mrc"], store.get) == ["x"]
    both = find_micrographs([tmp_path / "link", tmp_path / "raw", tmp_path / "more"], owner=store.get)
    assert [m.path for m in both] == [tmp_path / "link" / "x.mrc", tmp_path / "more" / "x.mrc"]
    assert both[0].uid == "x"
    assert both[1].uid != "x"


def test_a_micrograph_keeps_its_uid_when_it_is_moved_and_its_namesake_gets_another(tmp_path: Path) -> None:
    touch(tmp_path, "new/x.mrc")
    found = (tmp_path / "new" / "x.mrc").stat()
    for time_ns, keeps in [(found.st_mtime_ns, True), (found.st_mtime_ns - 10**10, False)]:
        gone = Source(tmp_path / "old" / "x.mrc", found.st_size, time_ns)
        [name] = name_micrographs([tmp_path / "new" / "x.mrc"], {"x": gone}.get)
        assert (name == "x") == keeps


def test_names_of_the_greatest_length_leave_room_for_suffixes(tmp_path: Path) -> None:
    touch(tmp_path, "x" * 251 + ".mrc", "x" * 250 + ".mrc", "é" * 120 + ".mrc")
    uids = [micrograph.uid for micrograph in find_micrographs([tmp_path])]
    assert len(set(uids)) == 3
    assert all(len(os.fsencode(uid)) < 240 for uid in uids)


def test_a_name_with_a_line_break_is_left_out_of_a_folder_and_refused_when_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "a\nb.mrc", "c.mrc")
    assert names(tmp_path) == ["c.mrc"]
    assert "line break in the name: 'a\\nb.mrc'" in caplog.text
    with pytest.raises(InputError, match="line break"):
        names(tmp_path / "a\nb.mrc")


def write_mrc(path: Path, pixel_size_A: float = 4.0, sections: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.ones((sections, 8, 8) if sections else (8, 8), np.float32))
        mrc.voxel_size = pixel_size_A


def test_power_spectra_are_left_out_of_a_folder_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "m1.mrc", "m1_PS.mrc", "m2.mrc", "m2_PS.mrc")
    assert names(tmp_path) == ["m1.mrc", "m2.mrc"]
    assert "left out 2 power spectra: m1_PS.mrc, m2_PS.mrc" in caplog.text
    assert names(tmp_path / "m1_PS.mrc") == ["m1_PS.mrc"]
    touch(tmp_path, "spectra/m1_PS.mrc")
    with pytest.raises(InputError, match="only power spectra, movies and overviews in this folder"):
        names(tmp_path / "spectra")


@pytest.mark.parametrize("version", ["_noDW", "_DW", "_shr", "_EVN", "_doseweighted"])
def test_several_versions_of_one_micrograph_are_asked_about(tmp_path: Path, version: str) -> None:
    touch(tmp_path, "m1.mrc", f"m1{version}.mrc", "m2.mrc")
    with pytest.raises(InputError, match="several versions of one micrograph") as caught:
        names(tmp_path)
    assert f"*[0-9].mrc' or '{tmp_path}/*{version}.mrc'" in str(caught.value)
    assert names(tmp_path / "*[0-9].mrc") == ["m1.mrc", "m2.mrc"]
    assert names(tmp_path / f"*{version}.mrc") == [f"m1{version}.mrc"]


def test_a_pattern_that_means_several_versions_is_asked_about_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "m1.mrc", "m1_noDW.mrc", "m1_PS.mrc")
    with pytest.raises(InputError, match="several versions of one micrograph"):
        names(tmp_path / "*.mrc")
    assert "left out 1 power spectra: m1_PS.mrc" in caplog.text
    assert names(tmp_path / "*_PS.mrc") == ["m1_PS.mrc"]


def test_versions_that_are_named_one_by_one_are_picked_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "m1.mrc", "m1_noDW.mrc")
    files = [tmp_path / name for name in ("m1.mrc", "m1_noDW.mrc")]
    assert names(*files) == [file.name for file in files]
    assert "m1.mrc and m1_noDW.mrc are versions of one micrograph" in caplog.text


def test_one_version_alone_is_picked(tmp_path: Path) -> None:
    touch(tmp_path, "m1_DW.mrc", "m2_DW.mrc")
    assert names(tmp_path) == ["m1_DW.mrc", "m2_DW.mrc"]


def test_overviews_and_movies_of_a_session_are_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for grid in "12":
        write_mrc(tmp_path / f"GridSquare_{grid}/Data/FoilHole_{grid}_Data_1.mrc")
        write_mrc(tmp_path / f"GridSquare_{grid}/FoilHoles/FoilHole_{grid}.mrc", 50.0)
        write_mrc(tmp_path / f"GridSquare_{grid}/GridSquare_{grid}.mrc", 600.0)
        write_mrc(tmp_path / f"GridSquare_{grid}/Data/FoilHole_{grid}_Fractions.mrc", sections=4)
    (tmp_path / "GridSquare_1" / "loop").symlink_to(tmp_path)
    assert names(tmp_path, recursive=True) == ["FoilHole_1_Data_1.mrc", "FoilHole_2_Data_1.mrc"]
    assert "left out 2 movies or stacks" in caplog.text
    assert "left out 4 images at another magnification" in caplog.text
    caplog.clear()
    assert names(tmp_path / "GridSquare_*/*/*.mrc") == ["FoilHole_1_Data_1.mrc", "FoilHole_2_Data_1.mrc"]
    assert "left out 2 images at another magnification" in caplog.text
    assert names(tmp_path / "GridSquare_*/Data/*_Fractions.mrc")[0] == "FoilHole_1_Fractions.mrc"


def test_a_list_from_the_shell_is_filtered_as_a_folder_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_mrc(tmp_path / "a.mrc")
    write_mrc(tmp_path / "b.mrc")
    write_mrc(tmp_path / "b_PS.mrc")
    write_mrc(tmp_path / "overview.mrc", 50.0)
    write_mrc(tmp_path / "movie.mrc", sections=4)
    touch(tmp_path, "a.jpg")
    assert names(*sorted(tmp_path.iterdir()), tmp_path / "gone.mrc") == ["a.mrc", "b.mrc", "gone.mrc"]
    for left_out in ("1 power spectra: b_PS", "1 movies or stacks: movie", "1 images at another magnification: over"):
        assert f"6 files: left out {left_out}" in caplog.text
    assert names(tmp_path / "overview.mrc") == ["overview.mrc"]
    assert names(tmp_path / "b_PS.mrc") == ["b_PS.mrc"]
    assert "1 files look like power spectra" in caplog.text


def test_a_pattern_for_all_folders_stops_at_a_loop_and_at_the_results(tmp_path: Path) -> None:
    touch(tmp_path, "deep/x/a.mrc", "deep/x/a.jpg", "other/b.mrc", "picks/overlays/a.png", "deep/.hidden/c.mrc")
    for name in ("one", "two", "three"):
        (tmp_path / "deep" / name).symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "other")
    assert names(tmp_path / "**", exclude=tmp_path / "picks") == ["a.mrc", "b.mrc"]
    assert names(tmp_path / "d*" / "**" / "x" / "*.mrc") == ["a.mrc"]
    assert names(tmp_path / "**" / "b.*") == ["b.mrc"]
    with pytest.raises(InputError, match="no micrograph matches"):
        names(tmp_path / "**" / "x" / "b.mrc")


def test_two_data_sets_of_different_pixel_sizes_are_both_picked(tmp_path: Path) -> None:
    write_mrc(tmp_path / "a.mrc", 0.83)
    write_mrc(tmp_path / "b.mrc", 1.66)
    assert names(tmp_path) == ["a.mrc", "b.mrc"]


@pytest.mark.parametrize("size", ["0.000000", "-1", "1000"])
def test_a_pixel_size_that_no_micrograph_has_is_refused_unless_another_is_given(
    write_star: Callable[[str], Path], size: str
) -> None:
    star = write_star(OPTICS.replace("0.83", size))
    with pytest.raises(InputError, match="which no micrograph has"):
        find_micrographs([star])
    assert {micrograph.pixel_size_A for micrograph in find_micrographs([star], pixel_size_A=2.0)} == {2.0}


OPTICS = """
data_optics

loop_
_rlnOpticsGroup #1
_rlnMicrographPixelSize #2
1 1.25
2 0.83

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
MotionCorr/job002/a.mrc 2
MotionCorr/job002/b.mrc 1
"""
SINGLE_TABLE = """
data_

loop_
_rlnMicrographName #1
_rlnDetectorPixelSize #2
_rlnMagnification #3
a.mrc 5.0 40000
"""
ONE_MICROGRAPH = "data_micrographs\n\n_rlnMicrographName a.mrc\n_rlnMicrographPixelSize 3.5\n"


@pytest.fixture
def write_star(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "CtfFind" / "job003" / "micrographs.star"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        return path

    return write


def test_star_pixel_sizes_come_by_optics_group(write_star: Callable[[str], Path]) -> None:
    found = find_micrographs([write_star(OPTICS)])
    assert [(str(m.path), m.pixel_size_A) for m in found] == [
        ("MotionCorr/job002/a.mrc", 0.83),
        ("MotionCorr/job002/b.mrc", 1.25),
    ]


@pytest.mark.parametrize(("text", "expected"), [(SINGLE_TABLE, 1.25), (ONE_MICROGRAPH, 3.5)])
def test_star_pixel_size_of_older_files(write_star: Callable[[str], Path], text: str, expected: float) -> None:
    assert find_micrographs([write_star(text)])[0].pixel_size_A == pytest.approx(expected)


def test_the_users_pixel_size_wins_over_the_stars(write_star: Callable[[str], Path]) -> None:
    assert {m.pixel_size_A for m in find_micrographs([write_star(OPTICS)], pixel_size_A=2.0)} == {2.0}


def test_star_names_are_found_from_the_project_folder_above(
    write_star: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_star(OPTICS)
    touch(tmp_path, "MotionCorr/job002/a.mrc")
    assert find_micrographs([path])[0].path == tmp_path / "MotionCorr/job002/a.mrc"
    monkeypatch.chdir(tmp_path)
    assert str(find_micrographs([path])[0].path) == "MotionCorr/job002/a.mrc"
    touch(tmp_path, "other/MotionCorr/job002/a.mrc")
    monkeypatch.chdir(tmp_path / "other")
    assert find_micrographs([path])[0].path == tmp_path / "MotionCorr/job002/a.mrc", "not this project's"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", "not a STAR file"),
        ("data_\n\nloop_\n_rlnMicrographMovieName #1\na.tif\nb.tif\n", "motion correction"),
        (OPTICS.replace("a.mrc 2", "a.mrc 7"), "optics group 7"),
        (OPTICS.replace("0.83", "unknown"), "not a number"),
    ],
)
def test_a_star_that_cannot_be_used_says_why(write_star: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_micrographs([write_star(text)])
