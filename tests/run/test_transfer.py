"""The way of an image to the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryoemmae_plugin.run.transfer import CudaTransfer, HostTransfer, transfer_to


def test_on_a_cpu_the_image_stays_where_it_is() -> None:
    image = np.ones((4, 6), np.float32)
    for device in (None, torch.device("cpu")):
        transfer = transfer_to(device)
        assert transfer.receive(transfer.send(transfer.stage(image))) is image


def test_a_gpu_without_room_for_two_images_gets_the_next_one_at_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    class FullTensor:
        def to(self, *_: object, **__: object) -> torch.Tensor:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    transfer = CudaTransfer.__new__(CudaTransfer)
    transfer._device, transfer._stream = torch.device("cuda", 0), None  # type: ignore[assignment]
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: torch.no_grad())
    monkeypatch.setattr(torch, "as_tensor", lambda image: image)
    image = FullTensor()
    assert transfer.send(image) is image  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_image_arrives_unchanged_whether_it_was_sent_ahead_or_not() -> None:
    rng = np.random.default_rng(0)
    transfer = transfer_to(torch.device("cuda", 0))
    assert not isinstance(transfer, HostTransfer)
    for ahead in (True, False):
        image = rng.random((512, 768), np.float32)
        staged = transfer.stage(image)
        arrived = transfer.receive(transfer.send(staged) if ahead else staged)
        assert isinstance(arrived, torch.Tensor)
        assert arrived.is_cuda
        assert np.array_equal(arrived.cpu().numpy(), image)
