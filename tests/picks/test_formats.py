"""Every format is written and read back on a micrograph that is not square, where a flip or a swap would show."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile

from cryoemmae_plugin.errors import InputError, OutputError, SettingsError
from cryoemmae_plugin.evaluation.tables import read_picks as read_for_evaluation
from cryoemmae_plugin.picks.convert import Places, load, within
from cryoemmae_plugin.picks.cryosparc import read_exposures
from cryoemmae_plugin.picks.transform import Transform
from cryoemmae_plugin.picks.writing import Target, choose_target, write
from cryoemmae_plugin.types import Micrograph

SHAPE = (300, 520)
XY = np.array([[60.0, 40.0], [450.0, 60.0], [200.0, 110.0], [90.0, 250.0], [330.0, 205.0], [480.0, 270.0]])
SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.55, 0.5])
DIAMETER_A, PIXEL_A = 60.0, 2.0
NUMBER = "000123456789012345678_"


def image(xy: np.ndarray = XY, shape: tuple[int, int] = SHAPE, radius: float = 15.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    picture = rng.normal(size=shape)
    for x, y in xy:
        picture -= 3 * ((columns - x) ** 2 + (rows - y) ** 2 < radius**2)
    return picture.astype(np.float32)


@pytest.fixture
def micrograph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Micrograph:
    monkeypatch.chdir(tmp_path)
    Path("Micrographs").mkdir()
    with mrcfile.new("Micrographs/mic1.mrc") as file:
        file.set_data(image())
        file.voxel_size = PIXEL_A
    return Micrograph(Path("Micrographs/mic1.mrc"), PIXEL_A, "mic1")


def exposures(path: Path, name: str) -> Path:
    dataset = pytest.importorskip("cryosparc.dataset").Dataset.allocate(
        1, [("micrograph_blob/path", "O"), ("micrograph_blob/shape", "<u4", (2,)), ("micrograph_blob/psize_A", "<f4")]
    )
    dataset["micrograph_blob/path"] = [name]
    dataset["micrograph_blob/shape"] = np.array([SHAPE])
    dataset["micrograph_blob/psize_A"] = PIXEL_A
    dataset.save(path)
    return path


def particles(path: Path, name: str, form: int = 1, *, scores: bool = True) -> Path:
    """A .cs file of the client's own making."""
    module = pytest.importorskip("cryosparc.dataset")
    fields = [
        ("location/micrograph_uid", "<u8"),
        ("location/micrograph_path", "O"),
        ("location/micrograph_shape", "<u4", (2,)),
        ("location/center_x_frac", "<f4"),
        ("location/center_y_frac", "<f4"),
        ("location/micrograph_psize_A", "<f4"),
        ("pick_stats/ncc_score", "<f4"),
    ]
    dataset = module.Dataset.allocate(len(XY), fields if scores else fields[:-1])
    dataset["location/micrograph_path"] = [name] * len(XY)
    dataset["location/micrograph_shape"] = np.tile(SHAPE, (len(XY), 1))
    dataset["location/center_x_frac"], dataset["location/center_y_frac"] = (XY / SHAPE[::-1]).T
    dataset["location/micrograph_psize_A"] = PIXEL_A
    if scores:
        dataset["pick_stats/ncc_score"] = SCORES
    dataset.save(path, format=form)
    return path


@pytest.mark.parametrize("target", list(Target))
def test_a_round_trip_keeps_every_pick_where_it_is(micrograph: Micrograph, target: Target) -> None:
    source = particles(Path("P.cs"), f"J1/imported/{NUMBER}mic1.mrc")
    places = Places([micrograph], [7])
    batch = within(load([source], places), DIAMETER_A)
    assert [table.micrograph for table in batch.tables] == ["Micrographs/mic1.mrc"]
    suffix = {"star": ".star", "cryosparc": ".star", "cs": ".cs", "topaz": ".txt", "csv": ".csv"}.get(target.value, "")
    out = Path(f"out{suffix}")
    write(target, out, batch.tables)
    (back,) = load([out], places).tables
    assert np.abs(back.xy - XY).max() < 0.51 if target in (Target.EMAN, Target.TOPAZ) else 0.01
    assert back.micrograph == "Micrographs/mic1.mrc"
    if target is not Target.EMAN:
        assert np.allclose(back.score, SCORES, atol=1e-5)
    pixels = image()
    dark = [pixels[round(y) - 8 : round(y) + 9, round(x) - 8 : round(x) + 9].mean() for x, y in back.xy]
    assert max(dark) < -2  # each lies on its disc of the image
    with pytest.raises(OutputError, match="there already"):
        write(target, out, batch.tables)


def test_a_cs_file_of_ours_is_read_by_the_client(micrograph: Micrograph) -> None:
    dataset = pytest.importorskip("cryosparc.dataset").Dataset
    ((one, uid),) = read_exposures(exposures(Path("E.cs"), f">J1/imported/{NUMBER}mic1.mrc"))
    assert (one.shape, uid > 0) == (SHAPE, True)
    write(Target.CSV, Path("p.csv"), within(load([particles(Path("P.cs"), "mic1.mrc")]), DIAMETER_A).tables)
    batch = load([Path("p.csv")], Places([one], [uid]))
    write(Target.CS, Path("new.cs"), batch.tables)
    found = dataset.load("new.cs")
    assert set(found["location/micrograph_uid"]) == {uid}
    assert set(found["location/micrograph_path"]) == {f"J1/imported/{NUMBER}mic1.mrc"}
    assert np.allclose(found["location/center_y_frac"] * SHAPE[0], XY[:, 1], atol=0.01)
    assert len(set(found["uid"])) == len(XY)
    with pytest.raises(InputError, match="number of each micrograph"):
        write(Target.CS, Path("no.cs"), load([Path("p.csv")]).tables)


def test_packed_and_plain_cs_files_are_the_same(micrograph: Micrograph) -> None:
    plain, packed = particles(Path("a.cs"), "mic1.mrc"), particles(Path("b.cs"), "mic1.mrc", form=2)
    assert packed.read_bytes()[1:6] == b"CSDAT"
    assert np.array_equal(load([plain]).tables[0].xy, load([packed]).tables[0].xy)
    assert np.isnan(load([particles(Path("c.cs"), "mic1.mrc", scores=False)]).tables[0].score).all()


def test_relion_counts_the_rows_of_a_tiff_from_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("mic1.tif", image())
    places = Places([Micrograph(Path("mic1.tif"), PIXEL_A, "mic1")])
    Path("mic1_autopick.star").write_text("data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n60 259\n")
    (table,) = load([Path("mic1_autopick.star")], places).tables
    assert table.xy.tolist() == [[60, 40]]
    write(Target.RELION, Path("coords"), [table])
    assert "60.000000   259.000000" in Path("coords/mic1_autopick.star").read_text()
    assert load([Path("coords")], places).tables[0].xy.tolist() == [[60, 40]]
    Path("named.star").write_text(
        "data_optics\n\n_rlnOpticsGroup 1\n\ndata_particles\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n"
        "_rlnCoordinateY #3\nmic1.tif 60 259\n"
    )
    with pytest.raises(InputError, match="counts the rows of a TIFF"):
        load([Path("named.star")])


def test_coordinates_of_binned_micrographs_are_multiplied(micrograph: Micrograph) -> None:
    binned = (XY + 0.5) / 4 - 0.5
    rows = "".join(f"mic1.mrc {x:.4f} {y:.4f}\n" for x, y in binned)
    head = "data_particles\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n"
    optics = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnMicrographPixelSize #2\n1 8.0\n\n"
    Path("p.star").write_text(head + rows)
    Path("o.star").write_text(optics + head.replace("#3\n", "#3\n_rlnOpticsGroup #4\n") + rows.replace("\n", " 1\n"))
    by_option = load([Path("p.star")], Places([micrograph], (), None, 8.0))
    by_file = load([Path("o.star")], Places([micrograph]))
    by_scale = load([Path("p.star")], Places([micrograph]), Transform(scale=4))
    for batch in (by_option, by_file, by_scale):
        assert np.allclose(batch.tables[0].xy, XY, atol=1e-3)
    assert "multiplied by 4" in by_file.notes[0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"p.star": "data_particles\n\nloop_\n_rlnImageName #1\n1@a.mrcs\n"}, "no table with rlnCoordinateX"),
        ({"p.txt": "x y\n1 2\n"}, "no columns image_name"),
        ({"p.box": "1 2 3\n"}, "line 1: '1 2 3' is no box"),
        ({"p.cbox": "data_other\n\n_a 1\n"}, "no table data_cryolo"),
        ({"p.cs": "hello"}, "cannot be read as a .cs file"),
        ({"p.map": ""}, "not a file of picks by its name"),
        ({"d/a.box": "1 2 3 3\n", "d/a.cbox": ""}, r"several programs in it \(1 .box, 1 .cbox\)"),
        ({"d/a.mrc": ""}, "no files of picks in it"),
        ({"other.box": "1 2 3 3\n"}, "no picks are of the micrographs given"),
        ({"autopick.star": "data_coordinate_files\n\nloop_\n_rlnMicrographName #1\n_rlnMicrographCoordinates #2\n"
          "mic1.mrc External/job009/mic1_autopick.star\n"}, "none of the listed coordinate files is there"),
    ],
)  # fmt: skip
def test_what_holds_no_picks_says_why(micrograph: Micrograph, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    first = Path(next(iter(files)))
    with pytest.raises(InputError, match=message):
        load([first if first.parent == Path() else first.parent], Places([micrograph]))


def test_a_cs_file_without_locations_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no location/micrograph_path"):
        load([exposures(tmp_path / "e.cs", "a.mrc")])


def test_an_empty_selection_is_told_and_written(micrograph: Micrograph) -> None:
    Path("p.star").write_text("data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n\n")
    batch = load([Path("p.star")])
    assert batch.picks == 0
    assert "no picks in it" in batch.notes[0]
    write(Target.STAR, Path("out.star"), batch.tables)
    assert load([Path("out.star")]).picks == 0


def test_micrographs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    two = [Micrograph(Path(f"{grid}/0001.mrc"), 2.0, grid, SHAPE) for grid in ("g1", "g2")]
    head = "data_particles\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n"
    (tmp_path / "p.star").write_text(head + "M/g2/0001.mrc 5 6\nM/g1/0001.mrc 7 8\n")
    found = {table.micrograph: table.xy.tolist() for table in load([tmp_path / "p.star"], Places(two)).tables}
    assert found == {"g1/0001.mrc": [[7, 8]], "g2/0001.mrc": [[5, 6]]}
    (tmp_path / "p.star").write_text(head + "0001.mrc 5 6\n")
    with pytest.raises(InputError, match="have one file name"):
        load([tmp_path / "p.star"], Places(two))


def test_the_form_follows_from_the_name_or_is_asked_for() -> None:
    assert choose_target(None, Path("a.cs")) is Target.CS
    assert choose_target("eman", Path("a")) is Target.EMAN
    for to, out in ((None, "folder"), ("relion5", "a.star")):
        with pytest.raises(SettingsError, match="star, relion, cryosparc"):
            choose_target(to, Path(out))


def test_evaluate_reads_them_all(micrograph: Micrograph) -> None:
    found = read_for_evaluation([particles(Path("P.cs"), f"J1/{NUMBER}mic1_patch_aligned_doseweighted.mrc")], ["mic1"])
    assert np.allclose(found["mic1"].xy, XY, atol=0.01)


@pytest.mark.skipif(shutil.which("relion_autopick") is None, reason="RELION is not installed")
def test_what_relion_has_picked_and_extracted_is_read(micrograph: Micrograph) -> None:
    Path("mics.star").write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnMicrographOriginalPixelSize #3\n"
        "_rlnMicrographPixelSize #4\n_rlnVoltage #5\n_rlnSphericalAberration #6\n_rlnAmplitudeContrast #7\n"
        "opticsGroup1 1 2.0 2.0 300 2.7 0.1\n\n\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\n"
        "Micrographs/mic1.mrc 1\n"
    )
    pick = "relion_autopick --i mics.star --odir AutoPick/job001/ --pickname autopick --LoG --LoG_diam_min 50 "
    pick += "--LoG_diam_max 70 --shrink 0 --lowpass 20"
    extract = "relion_preprocess --i mics.star --coord_suffix _autopick.star --coord_dir AutoPick/job001/ --part_star "
    extract += "Extract/p.star --part_dir Extract/ --extract --extract_size 48 --scale 24"
    for command in (pick, extract):
        subprocess.run(command.split(), check=True, capture_output=True)
    Path("AutoPick/job001/coords_suffix_autopick.star").write_text("mics.star\n")
    for source in ("AutoPick/job001", "AutoPick/job001/coords_suffix_autopick.star", "Extract/p.star"):
        (table,) = load([Path(source)], Places([micrograph])).tables
        best = table.xy[np.argsort(-table.score)[: len(XY)]]
        distances = np.hypot(*(best[:, None] - XY[None]).transpose(2, 0, 1)).min(axis=0)
        assert distances.max() < 5, source
        assert table.micrograph == "Micrographs/mic1.mrc"
    table = replace(table, xy=XY, score=SCORES)
    write(Target.RELION, Path("External"), [table])
    subprocess.run(
        extract.replace("AutoPick/job001", "External").replace("Extract/", "Again/").split(),
        check=True,
        capture_output=True,
    )
    (again,) = load([Path("Again/p.star")], Places([micrograph])).tables
    assert np.array_equal(again.xy, XY)
