"""Micrographs with a known phantom, a project folder, and the job with a stand-in for the network."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

STAND_IN = Path(__file__).with_name("stand_in.py")


def load_sibling(name: str) -> ModuleType:
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def phantoms() -> ModuleType:
    return load_sibling("phantoms")


@pytest.fixture(scope="session")
def stand_in() -> ModuleType:
    return load_sibling("stand_in")


@pytest.fixture(scope="session")
def template_file(tmp_path_factory: pytest.TempPathFactory, phantoms: ModuleType) -> Path:
    """The stand-in's template: the phantom upright, which is what most tests draw."""
    path = tmp_path_factory.mktemp("template") / "phantom.npy"
    np.save(path, phantoms.phantom()[None])
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder, which is also the present folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def three_micrographs(project: Path, phantoms: ModuleType) -> Path:
    """MotionCorr/job002 with three micrographs that hold 3, 0 and 5 phantoms; its STAR, relative to the project."""
    names = []
    for index, count in enumerate((3, 0, 5)):
        shape = (160, 200)
        image = phantoms.noisy(shape, index) * 0.3
        for x, y in phantoms.place(shape, count, index):
            phantoms.draw_phantom(image, x, y)
        names.append(f"MotionCorr/job002/Movies/mic_{index}.mrc")
        phantoms.write_mrc(project / names[-1], image)
    star = Path("MotionCorr/job002/corrected_micrographs.star")
    star.write_text(phantoms.micrographs_star(names))
    return star


@pytest.fixture
def whole_job(stand_in: ModuleType, template_file: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The job in this process: words in, exit status out."""
    from relion_wrapper.__main__ import main

    monkeypatch.setenv("STAND_IN_TEMPLATE", str(template_file))
    monkeypatch.setattr("cryoemmae_plugin.run.engine.build_engine", stand_in.build_engine)
    return lambda *words: main([str(word) for word in words])


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs without what takes longest in a small one: two pages of its log, and the comparison of sizes."""
    monkeypatch.setattr("relion_wrapper.logfile._page_of_scores", lambda *_: None)
    monkeypatch.setattr("relion_wrapper.logfile._page_of_overlays", lambda *_: None)
    monkeypatch.setattr("cryoemmae_plugin.run.plausibility.find_better_fit", lambda *_, **__: None)


@pytest.fixture
def relion_job(whole_job: Callable[..., int], light: None) -> Callable[..., int]:
    """The same job, light."""
    return whole_job


@pytest.fixture
def job_process(template_file: Path) -> Callable[..., subprocess.Popen[str]]:
    """The job in a process of its own, in the present folder."""

    def start(*words: object, seconds: float = 0.0) -> subprocess.Popen[str]:
        environment = os.environ | {"STAND_IN_TEMPLATE": str(template_file), "STAND_IN_SECONDS": str(seconds)}
        command = [sys.executable, str(STAND_IN), *map(str, words)]
        return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return start
