"""``cryoemmae refine``: another folder, another model, the same settings; resumed, and refused where it must be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cryoemmae_plugin.core.picker import load_head
from cryoemmae_plugin.run.class_selection import ClassSelection
from cryoemmae_plugin.run.preparation import read_preparation
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.training import refine as training
from cryoemmae_plugin.weights import load_model, read_card

Command = Callable[..., int]
MakeMicrograph = Callable[..., Path]


@pytest.fixture
def picked(
    cryoemmae: Command,
    make_micrograph: MakeMicrograph,
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A result folder; training is replaced by the model's own head."""
    monkeypatch.setattr(training, "refine_head", lambda model, head, judged, **_: load_head(model))
    for name in "abc":
        make_micrograph(tmp_path / "mics" / f"{name}.mrc", candidates=60, shape=(300, 400))
    words = ("--diameter", 20, "--model", tiny_model, "--no-adapt", "--overlays", "none", "--report", "none")
    assert cryoemmae("pick", tmp_path / "mics", "--out", tmp_path / "first", "--threshold", 0.4, *words) == 0
    return tmp_path / "first"


def refine(cryoemmae: Command, folder: Path, *words: Any) -> int:
    return cryoemmae("refine", folder, *words, "--overlays", "none", "--report", "none")


@pytest.mark.slow
def test_the_new_picks_lie_beside_the_old_ones_with_the_same_settings(
    cryoemmae: Command, picked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = (picked / "picks.star").read_bytes()
    assert refine(cryoemmae, picked, "--particles", picked / "picks.star") == 0
    out = picked.with_name("first-refined")
    assert (picked / "picks.star").read_bytes() == old
    assert read_card(out / "model").name == "tiny-refined"
    before, after = (ResultStore.open(folder).record.settings for folder in (picked, out))
    assert before == after
    note = read_preparation(out).refinement
    assert note is not None
    assert "0 dropped picks in 3 micrographs" in note.why
    said = capsys.readouterr()
    assert "Refining tiny" in said.out
    assert "No pick was dropped" in said.err
    assert (out / "picks.star").read_bytes() == old  # the stand-in for the network does not learn


@pytest.mark.slow
def test_it_is_resumed_without_refining_again_and_another_selection_needs_another_folder(
    cryoemmae: Command, picked: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--particles", picked / "picks.star")
    assert refine(cryoemmae, picked, *words) == 0
    sha256 = load_model(picked.with_name("first-refined") / "model").sha256
    monkeypatch.setenv("FAKE_SHA256", sha256)
    capsys.readouterr()
    monkeypatch.setattr(training, "refine_head", None)
    shutil.rmtree(picked.with_name("first-refined") / "results")
    assert refine(cryoemmae, picked, *words) == 0
    assert "refined before" in capsys.readouterr().out


def test_a_model_that_nobody_here_has_made_is_not_replaced(
    cryoemmae: Command, picked: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = picked.with_name("first-refined")
    shutil.copytree(tiny_model, out / "model")
    assert refine(cryoemmae, picked, "--particles", picked / "picks.star") == 1
    assert "holds a model that the new model would replace" in capsys.readouterr().err


@pytest.mark.parametrize(("file", "problem"), [("nothing.star", "no such file"), ("settings.json", "not a file of")])
def test_a_file_without_particles_is_one_message(
    cryoemmae: Command, picked: Path, capsys: pytest.CaptureFixture[str], file: str, problem: str
) -> None:
    assert refine(cryoemmae, picked, "--particles", picked / file) == 1
    assert problem in capsys.readouterr().err
    assert not picked.with_name("first-refined").exists()


def test_an_empty_selection_has_no_micrographs() -> None:
    assert ClassSelection({}, {}).uids == []
