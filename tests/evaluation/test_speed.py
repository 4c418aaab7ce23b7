"""Measuring speed: clocks, turns and pairs, and the upstream code as a checkout that is loaded and called."""

from __future__ import annotations

import importlib
import json
import re
import sys
import time
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from cryoemmae_plugin.cli import main
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.errors import SettingsError
from cryoemmae_plugin.evaluation import upstream
from cryoemmae_plugin.evaluation.speed import Measured, TwoClocks, measure, median_seconds, paired_ratios
from cryoemmae_plugin.types import Micrograph

MICROGRAPHS = [Micrograph(Path(f"{name}.mrc"), 1.0, name) for name in "ab"]

STAND_IN = {
    "utils/__init__.py": "",
    "model/__init__.py": "",
    "utils/preprocess_utils.py": """
import numpy as np, mrcfile
from scipy.signal import gaussian
class MRC:
    def __init__(self, name):
        self.data = np.moveaxis(mrcfile.read(name), 0, 1)[:, :, None]
def normalize_array(a):
    return (a - a.min()) / (a.max() - a.min())
def relion_and_contrast_preprocess(image, diameter, folder, name, size):
    assert diameter % 2 == 0 and size == 1024 and image.shape == (48, 64) and image[-1, 0] == 0
    np.save(folder + name + '.pre.npy', image)
""",
    "utils/prediction_utils.py": """
import os
import numpy as np
def compute_image_latent_embeddings(names, config, network, predict):
    assert predict and config.patches_num == 16 and config.initial_img_patches_num == 256
    return np.zeros((1, 256, 256, config.embed_dim))
def predict_particles_maps(names, folder, kmeans, cluster, config, diameter):
    print('progress', end='\\r')
    assert os.path.isdir('results/predicted_cluster_images')
    assert kmeans.predict(kmeans.cluster_centers_).tolist() == [0, 1, 2]
    return np.load(folder + 'micrograph.npy')[..., 0]
def pick_particles(config, maps, names, experiment, dset, size, caps, diameter, folder):
    assert caps[0] == 1.0 and len(caps) == 30
    assert abs(diameter - 10 / (48 / 1024) / 2) < 1e-9
    np.save(folder + 'micrograph.npy', np.zeros((7, 4)))
""",
    "model/mae_model.py": """
import torch
class MaskedAutoencoderViT(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))
""",
}


class Sleeper:
    """Takes a known time over each step."""

    def __init__(self, name: str, seconds: float, log: list[tuple[str, str]]) -> None:
        self.name, self._seconds, self._log = name, seconds, log

    def run(self, micrograph: Micrograph, timer: StepTimer) -> int:
        self._log.append((self.name, micrograph.uid))
        with timer.step("encode"):
            time.sleep(self._seconds)
        return 3


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in STAND_IN.items():
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "checkout"


class FakeEncoder(torch.nn.Module):
    class config:  # noqa: N801
        tile_px, patch_px, grid, embed_dim, depth, num_heads, mlp_ratio, position_weight = 64, 4, 16, 8, 1, 1, 2.0, 0.1

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))


class FakeModel:
    encoder = FakeEncoder()
    centroids = torch.eye(3, 8)
    particle_cluster, mean, std = 1, 0.5, 0.2


def ramp(path: Path, dtype: str = "float32") -> Micrograph:
    with mrcfile.new(path) as file:
        file.set_data(np.arange(48 * 64).reshape(48, 64)[::-1].astype(dtype))  # least at the lower left
        file.voxel_size = 2.0
    return Micrograph(path, None, "ramp")


def test_two_clocks_tell_waiting_from_working() -> None:
    timer = TwoClocks()
    with timer.step("wait"):
        time.sleep(0.05)
    with timer.step("work"):
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
    assert timer.seconds["wait"] >= 0.05
    assert timer.cpu["wait"] < 0.04
    assert timer.cpu["work"] >= 0.05


def test_contenders_take_turns_at_being_first() -> None:
    log: list[tuple[str, str]] = []
    runs = measure([Sleeper("x", 0, log), Sleeper("y", 0, log)], MICROGRAPHS, repeats=2)
    assert log == [(who, what) for who, what in ("xa", "ya", "yb", "xb", "ya", "xa", "xb", "yb")]
    assert [run.turn for run in runs] == [0] * 4 + [1] * 4
    assert {run.picks for run in runs} == {3}


def run(contender: str, micrograph: str, **wall: float) -> Measured:
    return Measured(contender, micrograph, 0, 0, wall, {})


def test_ratios_are_of_pairs_not_of_medians() -> None:
    runs = [
        run("old", "a", read=1.0, encode=10.0),
        run("new", "a", read=1.0, encode=2.0, write=1.0),
        run("old", "b", read=3.0, encode=40.0),
        run("new", "b", read=1.0, encode=4.0, write=1.0),
    ]
    ratios = paired_ratios(runs, "old", "new", "wall")
    assert (ratios["encode"].median, ratios["encode"].low, ratios["encode"].high) == (7.5, 5.0, 10.0)
    assert ratios["total"].low == pytest.approx(11 / 4)
    assert "write" not in ratios  # one of the two has no such step
    assert median_seconds(runs, "new", "wall")["total"] == 5.0


def test_the_upstream_code_is_called_as_its_scripts_do_and_leaves_no_trace(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, path, here = set(sys.modules), list(sys.path), Path.cwd()
    contender = upstream.UpstreamCode(checkout, FakeModel(), 20.0, torch.device("cpu"), tmp_path / "scratch")  # type: ignore[arg-type]
    timer = StepTimer()
    assert contender.run(ramp(tmp_path / "ramp.mrc"), timer) == 7
    assert list(timer.seconds) == ["read", "preprocess", "encode", "cluster", "locate"]
    assert not [name for name in set(sys.modules) - before if name.split(".")[0] in upstream.PACKAGES]
    assert (sys.path, Path.cwd()) == (path, here)
    assert capsys.readouterr().out == ""
    assert not list(checkout.rglob("__pycache__"))


def test_a_package_of_the_same_name_is_there_again_afterwards(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "utils.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    ours = importlib.import_module("utils")
    preprocess, _, _ = upstream.load_upstream(checkout)
    assert preprocess.__file__.startswith(str(checkout))
    assert importlib.import_module("utils") is ours


def test_a_folder_without_the_upstream_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"not a checkout.*preprocess_utils\.py"):
        upstream.load_upstream(tmp_path)


def test_what_the_upstream_code_needs_is_named(checkout: Path) -> None:
    (checkout / "model" / "mae_model.py").write_text("import no_such_package_here\n")
    with pytest.raises(SettingsError, match=r"needs no_such_package_here.*pip install"):
        upstream.load_upstream(checkout)


def test_other_kinds_of_files_are_turned_into_what_the_upstream_code_reads(tmp_path: Path) -> None:
    whole = ramp(tmp_path / "whole.mrc", "int16")
    copy = upstream.as_float_mrc(whole, tmp_path / "..")
    assert copy.path != whole.path
    assert (mrcfile.read(copy.path) == mrcfile.read(whole.path)).all()
    assert copy.pixel_size_A == 2.0
    assert upstream.as_float_mrc(copy, tmp_path) == copy


def test_the_command_prints_a_table_and_writes_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    contenders = [Sleeper("upstream", 0.02, []), Sleeper("paper", 0.01, [])]
    monkeypatch.setattr(importlib.import_module("cryoemmae_plugin.cli.benchmark"), "_contenders", lambda *_: contenders)
    arguments = ["benchmark", "speed", "--diameter", "60", "--size", "64", "--repeats", "2"]
    assert main([*arguments, "--out", str(tmp_path / "speed.json")]) == 0
    said = capsys.readouterr().out
    assert "upstream / paper" in said
    assert "hardware: " in said
    found = json.loads((tmp_path / "speed.json").read_text())
    assert len(found["runs"]) == 4
    assert 1.2 < found["upstream_over"]["paper"]["wall"]["encode"]["median"] < 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], r"--repeats.*Must be >= 1"),
        (["--diameter", "-3"], "diameter"),
        (["--upstream", "/no/such/folder"], "not a checkout"),
    ],
)
def test_wrong_requests_are_told_apart(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "speed", "--diameter", "60", "--size", "64", *arguments]) == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
