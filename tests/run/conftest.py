"""Micrographs with a known number of candidates, and a stand-in for the network."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import mrcfile
import numpy as np
import pytest

from cryoemmae_plugin.run.store import RunRecord
from cryoemmae_plugin.settings import PickerSettings

FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")
MakeMicrograph = Callable[..., Path]


@pytest.fixture(scope="session")
def fake_engine() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fake_engine", FAKE_ENGINE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cryoemmae(fake_engine: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line, with the stand-in for the network: words in, exit status out."""
    monkeypatch.setattr("cryoemmae_plugin.run.engine.build_engine", fake_engine.fake_build_engine)
    return lambda *words: fake_engine.main([str(word) for word in words])


@pytest.fixture
def make_micrograph() -> MakeMicrograph:
    """Write an MRC of which the stand-in makes `candidates`."""

    def make(path: Path, candidates: int = 5, shape: tuple[int, int] = (40, 60), pixel_size_A: float = 2.0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(len(path.name) + candidates).random(shape).astype(np.float32)
        image[0, 0] = candidates
        image[0, 1] = 0  # seconds that the stand-in of workers takes over it
        with mrcfile.new(path, image, overwrite=True) as mrc:
            mrc.voxel_size = pixel_size_A
        return path

    return make


@pytest.fixture
def folder_of_six(tmp_path: Path, make_micrograph: MakeMicrograph) -> Path:
    """Folder with mic_0.mrc to mic_5.mrc; the first has no candidate."""
    for index in range(6):
        make_micrograph(tmp_path / "mics" / f"mic_{index}.mrc", candidates=10 * index)
    return tmp_path / "mics"


@pytest.fixture
def record() -> RunRecord:
    return RunRecord(version="0.1", model_name="fake", model_sha256="f" * 64, settings=PickerSettings(diameter_A=20.0))
