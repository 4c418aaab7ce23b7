"""Adapting and refining that were stopped or killed go on, and end with what they would have ended with."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cryoemmae_plugin.errors import Interrupted

pytestmark = pytest.mark.slow

HELPERS = Path(__file__).with_name("helpers")
sys.path.insert(0, str(HELPERS))

import small_learning  # noqa: E402


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """What learning without interruption leaves."""
    left = {}
    for kind in small_learning.KINDS:
        folder = tmp_path_factory.mktemp(kind) / "out"
        assert len(small_learning.settle(kind, tiny_model, folder)) == 5
        left[kind] = content(folder)
        assert {"preparation.json", "model/card.toml"} < set(left[kind])
        assert not any(name.startswith("learning") for name in left[kind])
    return left


@pytest.mark.parametrize(
    ("kind", "asked_before", "looked"),
    [
        ("adapt", 2, 2),  # while looking
        ("adapt", 12, 5),  # while the head is trained
        ("refine", 7, 2),
        ("refine", 16, 5),
    ],
)
def test_what_was_stopped_goes_on(
    kind: str, asked_before: int, looked: int, whole: dict[str, dict[str, bytes]], tiny_model: Path, tmp_path: Path
) -> None:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > asked_before

    with pytest.raises(Interrupted, match="stopped while"):
        small_learning.settle(kind, tiny_model, tmp_path, should_stop=stop)
    assert len(small_learning.settle(kind, tiny_model, tmp_path)) == 5 - looked
    assert content(tmp_path) == whole[kind]


def test_what_was_killed_goes_on(tiny_model: Path, tmp_path: Path) -> None:
    for kind in small_learning.KINDS:
        killed = tmp_path / kind / "killed"
        with in_a_process(tiny_model, kind, killed) as run:
            deadline = time.monotonic() + 600  # for a machine that is busy with other things
            while not (killed / "learning" / "head.pt").exists():
                assert run.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            run.kill()
        assert not (killed / "preparation.json").exists()
    folders = [(kind, tmp_path / kind / name) for kind in small_learning.KINDS for name in ("killed", "whole")]
    with in_a_process(tiny_model, *(word for pair in folders for word in pair)) as run:
        looked = [line.split() for line in run.communicate()[0].splitlines()]
    assert [len(names) for names in looked] == [0, 5, 0, 5]
    for kind in small_learning.KINDS:
        assert content(tmp_path / kind / "killed") == content(tmp_path / kind / "whole")


def in_a_process(model: Path, *kinds_and_folders: object) -> subprocess.Popen[str]:
    """Learn in a process of its own, where nothing that other tests have set rounds sums otherwise."""
    words = [sys.executable, str(HELPERS / "small_learning.py"), str(model), *map(str, kinds_and_folders)]
    environment = os.environ | {"PYTHONPATH": str(HELPERS.parents[2])}
    return subprocess.Popen(words, env=environment, text=True, stdout=subprocess.PIPE)


def test_with_other_settings_it_starts_over(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = iter([False] * 3)
    with pytest.raises(Interrupted):
        small_learning.settle("adapt", tiny_model, tmp_path, should_stop=lambda: next(asked, True))
    monkeypatch.setattr("cryoemmae_plugin.run.learning_state.release", lambda: "9.9")
    assert len(small_learning.settle("adapt", tiny_model, tmp_path)) == 5
