"""The Python API: picks come back by path, nothing is written unasked, and the examples of the documentation hold."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cryoemmae_plugin import (
    CryoemmaeError,
    Picker,
    PickerSettings,
    Picks,
    load_model,
    pick_files,
    read_micrograph,
)
from cryoemmae_plugin.errors import ImageError, InputError, PixelSizeError, SettingsError
from cryoemmae_plugin.simulate import Scene, SimulationSettings, write_micrographs

DOCS = Path(__file__).resolve().parents[2] / "docs"
SHAPE = (400, 480)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``micrographs/virus.mrc`` and ``micrographs/ribosome.mrc``."""
    folder = tmp_path_factory.mktemp("api")
    settings = SimulationSettings(shape=SHAPE, pixel_size_A=4.0, diameter_A=120.0, n_particles=30, border=0.7)
    write_micrographs(folder / "micrographs", [Scene("virus", settings), Scene("ribosome", settings)], [1, 2])
    return folder


@pytest.fixture
def stand_in(fake_engine: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryoemmae_plugin.run.engine.build_engine", fake_engine.fake_build_engine)


def files_in(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.usefixtures("stand_in")
def test_picks_come_back_by_path_and_nothing_is_written(
    folder_of_six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_in(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = pick_files(str(folder_of_six), diameter_A=20.0, adapt=False, threshold=0.0)
    assert len(found) == 6
    path = next(iter(found))
    assert path in found
    assert found[str(path)] is found[path]
    assert not found.failed
    assert re.fullmatch(r"PickedFiles\(\d+ picks from 6 micrographs\)", repr(found))
    assert len(found.to_dataframe()) == sum(len(picks) for picks in found.values())
    assert files_in(tmp_path) == before


@pytest.mark.usefixtures("stand_in")
def test_a_folder_is_written_where_one_is_given_and_a_second_call_resumes(folder_of_six: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = pick_files(folder_of_six, diameter_A=20.0, adapt=False, threshold=0.2, out=str(out))
    assert (out / "picks.star").exists()
    again = pick_files([folder_of_six], diameter_A=20.0, adapt=False, threshold=0.2, out=out)
    assert {path: picks.xy.tolist() for path, picks in again.items()} == {p: k.xy.tolist() for p, k in first.items()}


@pytest.mark.usefixtures("stand_in")
def test_a_bad_file_is_named_and_the_others_are_picked(folder_of_six: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mrc"
    bad.write_bytes(b"not an image")
    found = pick_files([folder_of_six, bad], diameter_A=20.0, adapt=False)
    assert len(found) == 6
    assert "bad.mrc" in found.failed[bad]
    with pytest.raises(ImageError, match=r"no micrograph could be picked\. .*bad\.mrc"):
        pick_files(bad, diameter_A=20.0, adapt=False)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({}, "diameter_A is missing"),
        ({"diameter": 150}, "do you mean diameter_A?"),
        ({"diameter_A": 150, "workers": 0}, "workers is 0: must be at least 1"),
        ({"diameter_A": 150, "precision": "float8"}, "precision is 'float8'"),
        ({"diameter_A": 150, "threads": -1}, "threads is -1"),
        ({"diameter_A": 150, "paths": 7}, "paths is 7"),
    ],
)
def test_a_wrong_keyword_is_a_settings_error(folder: Path, keywords: dict[str, Any], message: str) -> None:
    paths = keywords.pop("paths", folder / "micrographs")
    with pytest.raises(SettingsError, match=re.escape(message)):
        pick_files(paths, **keywords)


def test_a_path_that_leads_nowhere_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        pick_files(tmp_path / "nowhere", diameter_A=120)


def test_one_image_is_picked_with_the_settings_model_or_a_loaded_one(folder: Path) -> None:
    settings = PickerSettings(diameter_A=120, threshold=0.5)
    image, pixel_size_A = read_micrograph(folder / "micrographs" / "virus.mrc")
    picker = Picker(settings, device="cpu")
    picks = picker.pick(image, pixel_size_A)
    assert len(picks) > 0
    assert picks.score.min() >= 0.5
    assert len(picker.candidates(image, pixel_size_A)) >= len(picks)
    again = Picker(settings, load_model("emmae-base"), device="cpu").pick(image.tolist(), pixel_size_A)
    np.testing.assert_array_equal(again.xy, picks.xy)


def test_errors_of_one_image_are_its_own() -> None:
    picker = Picker(PickerSettings(diameter_A=120), device="cpu")
    with pytest.raises(CryoemmaeError, match="not an image of numbers"):
        picker.pick("virus.mrc", 4.0)
    with pytest.raises(CryoemmaeError, match="pixel_size_A is 0"):
        picker.pick(np.zeros(SHAPE), 0)
    with pytest.raises(SettingsError, match="there is no setting 'devices'"):
        Picker(PickerSettings(diameter_A=120), devices="cpu")
    with pytest.raises(SettingsError, match="settings is 120"):
        Picker(120)  # type: ignore[arg-type]


def test_a_micrograph_without_a_pixel_size_takes_a_given_one(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "m.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    with pytest.raises(PixelSizeError, match="give it with pixel_size_A"):
        read_micrograph(str(path))
    assert repr(read_micrograph(path, 1.5)) == "MicrographImage(8 × 8 px, 1.5 Å per pixel)"


def test_picks_show_in_one_line() -> None:
    assert repr(Picks.none((10, 20))) == "Picks(0 in 20 × 10 px)"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cryoemmae_plugin", "cryoemmae_plugin.api", "cryoemmae_plugin.types"])
def test_examples_of_docstrings_hold(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    tried = doctest.testmod(importlib.import_module(name))
    assert tried.attempted > 0
    assert tried.failed == 0


@pytest.mark.slow
def test_examples_of_the_page_hold(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) >= 5
    example = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "python.md", "python.md", 0)
    assert doctest.DocTestRunner().run(example).failed == 0


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    notebook = nbformat.read(DOCS / "picking_notebook.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "notebooks are kept without outputs"
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, startup_timeout=300, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert "PickedFiles(" in "".join(output.get("data", {}).get("text/plain", "") for output in outputs)
