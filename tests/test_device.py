"""Choosing a device: what is asked for, or an error; never silently the CPU."""

import pytest
import torch

from cryoemmae_plugin.device import choose_device, multiplies_bfloat16
from cryoemmae_plugin.errors import DeviceError


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that there are N GPUs."""

    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


def test_the_cpu_is_always_there(gpus):
    gpus(2)
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(("count", "expected"), [(0, "cpu"), (1, "cuda:0"), (4, "cuda:0")])
def test_auto_takes_the_first_gpu_or_else_the_cpu(gpus, count, expected):
    gpus(count)
    assert choose_device() == choose_device("auto") == torch.device(expected)


@pytest.mark.parametrize(("name", "expected"), [("cuda", "cuda:0"), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:1")])
def test_a_gpu_that_is_there_is_given(gpus, name, expected):
    gpus(2)
    assert choose_device(name) == torch.device(expected)


@pytest.mark.parametrize("build", [None, "12.4"])
def test_cuda_without_a_gpu_is_an_error_that_says_why(gpus, monkeypatch, build):
    gpus(0)
    monkeypatch.setattr(torch.version, "cuda", build)
    with pytest.raises(DeviceError, match="without CUDA" if build is None else "sees no GPU") as caught:
        choose_device("cuda:0")
    assert "device='cpu'" in str(caught.value)


def test_a_gpu_beyond_the_last_is_an_error_that_counts_them(gpus):
    gpus(2)
    with pytest.raises(DeviceError, match=r"cuda:2.*GPUs 0 to 1"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["", "gpu", "cuda:-1", "cuda:x", "CPU", "cuda:0,1", "mps", "cuda:0\n"])
def test_another_name_is_an_error_that_names_the_choices(gpus, name):
    gpus(2)
    with pytest.raises(DeviceError, match="auto, cpu or cuda:N"):
        choose_device(name)


@pytest.mark.parametrize(
    ("capabilities", "able"),
    [({"avx2": True}, False), ({"avx512_f": True, "avx512_bf16": True}, True), ({"amx_bf16": True}, True)],
)
def test_a_cpu_multiplies_bfloat16_only_where_it_has_the_instructions(monkeypatch, capabilities, able):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert multiplies_bfloat16(torch.device("cpu")) is able


def test_an_older_pytorch_that_cannot_tell_means_no(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert multiplies_bfloat16(torch.device("cpu")) is False
