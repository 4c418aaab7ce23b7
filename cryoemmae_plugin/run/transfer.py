"""Transfer images from the host's memory to the device that picks, while the image before is picked."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Image = NDArray[np.float32] | Tensor
"""Pixels of shape (ny, nx), float32: in the host's memory, or on a device."""


class Transfer(Protocol):
    """Brings an image from its reader to the picker in three steps; each returns it, perhaps in other memory."""

    def stage(self, image: Image) -> Image:
        """Prepare an image for sending; called by the thread that has read it."""

    def send(self, image: Image) -> Image:
        """Start to copy an image before its turn, while another one is picked."""

    def receive(self, image: Image) -> Image:
        """Return an image on the picker's device when its turn has come, whether it was sent before or not."""


class HostTransfer:
    """For a picker on the CPU: images stay where they are."""

    def stage(self, image: Image) -> Image:
        """Return the same image."""
        return image

    send = receive = stage


class CudaTransfer:
    """For a picker on a GPU: through page-locked memory, in a CUDA stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def stage(self, image: Image) -> Image:
        """Copy an image to page-locked memory, from which the GPU can fetch it while it computes."""
        pixels = torch.as_tensor(image)
        try:
            with torch.cuda.device(self._device):
                return pixels.pin_memory()
        except RuntimeError:  # too much memory is locked already; copies from here are slower, but work
            return pixels

    def send(self, image: Image) -> Image:
        """Start to copy an image; if the GPU has no room for a second one, it is copied when its turn comes."""
        try:
            with torch.cuda.stream(self._stream):
                return torch.as_tensor(image).to(self._device, non_blocking=True)
        except torch.cuda.OutOfMemoryError:
            return image

    def receive(self, image: Image) -> Image:
        """Return the image on the GPU; later work on the current stream waits for the copy."""
        pixels = torch.as_tensor(image)
        if not pixels.is_cuda:
            return pixels.to(self._device, non_blocking=True)
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        pixels.record_stream(current)  # reuse its memory only after the picker's work
        return pixels


def transfer_to(device: torch.device | None) -> Transfer:
    """Return how images get to a device; None is the CPU."""
    return CudaTransfer(device) if device is not None and device.type == "cuda" else HostTransfer()
