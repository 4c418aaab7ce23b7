"""How the network computes: bounds on a GPU's memory, with a stand-in for the GPU."""

from __future__ import annotations

import logging

import pytest
import torch

from cryoemmae_plugin.core.picker import CandidatePicker
from cryoemmae_plugin.device import GIB, limit_gpu_memory
from cryoemmae_plugin.errors import DeviceError, SettingsError
from cryoemmae_plugin.settings import ComputeOptions, PickerSettings
from cryoemmae_plugin.weights import Model, load_model

CUDA = torch.device("cuda", 0)


@pytest.fixture
def fractions(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A GPU of 80 GiB, 60 of them free; the shares of it that a process is kept to."""
    kept: list[float] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda fraction, device: kept.append(fraction))
    return kept


@pytest.mark.parametrize(
    ("limit", "usable", "kept"), [(None, 60, []), (8, 8, [0.1]), (70, 60, [0.875]), (200, 60, [1.0])]
)
def test_a_process_is_kept_to_the_limit_and_told_what_it_may_use(
    fractions: list[float], limit: float | None, usable: float, kept: list[float]
) -> None:
    assert limit_gpu_memory(CUDA, limit) == usable * GIB
    assert fractions == kept


def test_on_a_cpu_the_limit_is_ignored_and_that_is_said(
    fractions: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert limit_gpu_memory(torch.device("cpu"), 4.0) is None
        assert limit_gpu_memory(torch.device("cpu"), None) is None
    assert [record.getMessage() for record in caplog.records] == [
        "The limit of GPU memory has no effect: picking on the CPU"
    ]
    assert not fractions


def test_a_gpu_without_memory_for_the_model_is_a_clear_error(
    fractions: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    settings = PickerSettings(diameter_A=100)
    model = load_model(settings.model_name)
    monkeypatch.setattr(Model, "to", full)
    with pytest.raises(DeviceError, match="cuda:0: no GPU memory left"):
        CandidatePicker(model, settings, CUDA, ComputeOptions(gpu_memory=1))


@pytest.mark.parametrize("wrong", [{"gpu_memory": 0}, {"gpu_memory": float("nan")}, {"precision": "float8"}])
def test_options_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        ComputeOptions(**wrong)
