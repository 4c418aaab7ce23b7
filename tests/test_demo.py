"""The demo, small: two scenes, and a stand-in for what finds the particles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from cryoemmae_plugin.cli import run_demo as demo
from cryoemmae_plugin.run.engine import Engine
from cryoemmae_plugin.simulate import Scene, SimulationSettings
from cryoemmae_plugin.types import Picks

SCENES = [
    Scene("a", SimulationSettings(shape=(200, 240), pixel_size_A=4.0, diameter_A=120.0, n_particles=8, border=0.7)),
    Scene("b", SimulationSettings(shape=(220, 200), pixel_size_A=5.0, diameter_A=200.0, n_particles=6, border=0.7)),
]


class KnowingPicker:
    """Finds the particles by looking the answers up, but the last `missing` of each micrograph."""

    missing = 0

    def pick(self, image: NDArray[np.float32], pixel_size_A: float, timer: object = None) -> Picks:
        (seed, scene) = next((i, s) for i, s in enumerate(SCENES, demo.FIRST_SEED) if s.settings.shape == image.shape)
        xy = demo_truth(scene, seed)
        xy = xy[: len(xy) - self.missing]
        score = np.linspace(0.9, 0.6, len(xy), dtype=np.float32)
        return Picks(xy, score, score, (image.shape[0], image.shape[1]))


def demo_truth(scene: Scene, seed: int) -> NDArray[np.float64]:
    from cryoemmae_plugin.simulate import simulate

    return np.asarray(simulate(scene.settings, seed).xy, np.float64)


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(KnowingPicker(), "knowing", "f" * 64, torch.device("cpu"))
    monkeypatch.setattr("cryoemmae_plugin.run.engine.build_engine", lambda settings, request: engine)


@pytest.mark.usefixtures("stand_ins")
def test_demo_scores_right_picks_as_right_and_says_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.run_demo(tmp_path, "cpu", SCENES) == 0
    text = capsys.readouterr().out
    assert "1.00" in text
    assert "100%" in text
    assert "cryoemmae pick" in text
    page = Path(text.split()[-1])
    assert page.name == "index.html"
    assert (page.parent / "pictures").is_dir()
    for scene in SCENES:
        assert (tmp_path / "picks" / scene.name / "picks.star").is_file()
        assert min(Image.open(tmp_path / "overlays" / f"{scene.name}.png").size) > 150


@pytest.mark.usefixtures("stand_ins")
def test_demo_runs_again_in_the_same_folder(tmp_path: Path) -> None:
    assert [demo.run_demo(tmp_path, "cpu", SCENES[:1]) for _ in range(2)] == [0, 0]


@pytest.mark.usefixtures("stand_ins")
def test_demo_fails_when_picks_are_worse_than_they_should_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(KnowingPicker, "missing", 4)
    assert demo.run_demo(tmp_path, "cpu", SCENES) == 1
    assert "cryoemmae doctor" in capsys.readouterr().out
