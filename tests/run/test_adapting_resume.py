"""Adapting that was stopped or killed goes on, and ends with what it would have ended with."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cryoemmae_plugin.errors import Interrupted

HELPERS = Path(__file__).with_name("helpers")
sys.path.insert(0, str(HELPERS))

import small_adapting  # noqa: E402


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an adaptation without interruption leaves."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    assert small_adapting.settle(tiny_model, folder) == [micrograph.uid for micrograph in small_adapting.MICROGRAPHS]
    found = content(folder)
    assert {"preparation.json", "model/card.toml"} < set(found)
    assert not any(name.startswith("adapting") for name in found)
    return found


@pytest.mark.parametrize("asked_before", [2, 7, 12])
def test_a_stopped_adaptation_goes_on(
    asked_before: int, whole: dict[str, bytes], tiny_model: Path, tmp_path: Path
) -> None:
    """The stop comes while looking, while scenes are made, and while the head is trained."""
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > asked_before

    with pytest.raises(Interrupted):
        small_adapting.settle(tiny_model, tmp_path, should_stop=stop)
    looked = len(list(tmp_path.glob("adapting/look-*")))
    assert looked == min(asked_before, 5)
    assert len(small_adapting.settle(tiny_model, tmp_path)) == 5 - looked
    assert content(tmp_path) == whole


def test_a_killed_adaptation_goes_on(whole: dict[str, bytes], tiny_model: Path, tmp_path: Path) -> None:
    words = [sys.executable, str(HELPERS / "small_adapting.py"), str(tiny_model), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(HELPERS.parents[2])}
    with subprocess.Popen(words, env=environment) as run:
        deadline = time.monotonic() + 600  # for a machine that is busy with other things
        while not (tmp_path / "adapting" / "head.pt").exists():
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        run.kill()
    assert not (tmp_path / "preparation.json").exists()
    assert small_adapting.settle(tiny_model, tmp_path) == []
    assert content(tmp_path) == whole


def test_with_other_settings_it_starts_over(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = iter([False] * 3)
    with pytest.raises(Interrupted):
        small_adapting.settle(tiny_model, tmp_path, should_stop=lambda: next(asked, True))
    monkeypatch.setattr("cryoemmae_plugin.run.adapting_state.release", lambda: "9.9")
    assert len(small_adapting.settle(tiny_model, tmp_path)) == 5
