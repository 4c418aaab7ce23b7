"""The picker in a job: the real one, and its patience with a GPU."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from cryoemmae_plugin.errors import DeviceError
from cryoemmae_plugin.run.store import ResultStore, RunRecord
from cryoemmae_plugin.settings import make_settings
from cryoemmae_plugin.types import Micrograph, Picks
from cryoemmae_plugin.weights import load_model
from relion_wrapper.engine import Engine, InBatches, PatientPicker
from relion_wrapper.fanout import pick_on_all

CPU = torch.device("cpu")


class Hungry:
    """Needs memory for as many tiles as it is built with, and has it for `enough`."""

    def __init__(self, batch: int | None, enough: int) -> None:
        self.fits = (batch or 256) <= enough

    def pick(self, image: np.ndarray, pixel_size_A: float, timer: object = None) -> Picks:
        if not self.fits:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return Picks.none(image.shape)


def test_when_memory_runs_out_the_batch_is_halved_until_it_fits_and_stays_so() -> None:
    told: list[str] = []
    built: list[int | None] = []

    def build(batch: int | None) -> Hungry:
        built.append(batch)
        return Hungry(batch, enough=40)

    picker = PatientPicker(build, CPU, told.append)
    for _ in range(2):
        assert picker.pick(np.zeros((4, 6), np.float32), 1.0).shape == (4, 6)
    assert built == [None, 128, 64, 32]
    assert [text.rpartition("with ")[2] for text in told] == [f"{n} tiles at a time" for n in (128, 64, 32)]


def test_no_memory_for_a_single_tile_ends_the_job_with_a_way_out() -> None:
    picker = PatientPicker(lambda batch: Hungry(batch, enough=0), CPU, lambda text: None)
    with pytest.raises(DeviceError, match="parameter gpu"):
        picker.pick(np.zeros((4, 6), np.float32), 1.0)


def test_an_encoder_in_batches_gives_the_same_tokens(tiny_model: Path) -> None:
    encoder = load_model(tiny_model).encoder
    tiles = torch.randn(
        7, 1, encoder.config.tile_px, encoder.config.tile_px, generator=torch.Generator().manual_seed(0)
    )
    with torch.inference_mode():
        torch.testing.assert_close(InBatches(encoder, 3)(tiles), encoder(tiles), rtol=1e-5, atol=1e-5)


def test_several_devices_share_the_micrographs(project: Path, phantoms: ModuleType, stand_in: ModuleType) -> None:
    micrographs = []
    for index in range(7):
        path = phantoms.write_mrc(project / f"mic_{index}.mrc", phantoms.noisy((60, 80), index))
        micrographs.append(Micrograph(path, 3.0, path.stem))
    pickers = [stand_in.TemplatePicker(phantoms.phantom()[None]) for _ in range(3)]
    engine = Engine(pickers, [CPU] * 3, "fake", "f" * 64)
    record = RunRecord(version="0.1", model_name="fake", model_sha256="f" * 64, settings=make_settings(diameter_A=60))
    with ResultStore.create(project / "store", record) as store:
        outcomes = list(pick_on_all(micrographs, engine, store, lambda: False))
        assert sorted(outcome.micrograph.uid for outcome in outcomes) == [f"mic_{i}" for i in range(7)]
        assert store.pending(micrographs) == []


@pytest.mark.parametrize("mode", ["paper"])
def test_a_job_picks_with_a_real_model(
    three_micrographs: Path, tiny_model: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from relion_wrapper.__main__ import main

    words = ["--o", "External/job010/", "--in_mics", str(three_micrographs), "--diameter", "60", "--mode", mode]
    status = main([*words, "--model", str(tiny_model), "--gpu", "--j", "1", "--pipeline_control", "External/job010/"])
    assert status == 0, capsys.readouterr().err
    assert len(list(Path("External/job010/Movies").glob("*_autopick.star"))) == 3
