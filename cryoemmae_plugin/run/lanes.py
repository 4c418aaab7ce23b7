"""The way of an image from the file to the device that picks it: beside the picking of the one before."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Image = NDArray[np.float32] | Tensor
"""Pixels of shape (ny, nx), float32: in the host's memory, or on a device."""


class Lane(Protocol):
    """Takes an image from its reader to the picker; each step may hand over the same image in another place."""

    def stage(self, image: Image) -> Image:
        """Make an image ready to be sent; called by the thread that has read it."""

    def send(self, image: Image) -> Image:
        """Start to copy an image, ahead of its turn, while another one is picked."""

    def receive(self, image: Image) -> Image:
        """Give out an image whose turn has come, sent or not, where the picker wants it."""


class HostLane:
    """The lane to a picker that computes where images are read: nothing has to move."""

    def stage(self, image: Image) -> Image:
        """Return the same image."""
        return image

    send = receive = stage


class CudaLane:
    """The lane to a GPU: through page-locked memory, in a stream of its own.

    Parameters
    ----------
    device : torch.device
        The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def stage(self, image: Image) -> Image:
        """Put an image into page-locked memory, from which it is copied beside other work."""
        pixels = torch.as_tensor(image)
        try:
            with torch.cuda.device(self._device):
                return pixels.pin_memory()
        except RuntimeError:  # too much of it is locked already: copying is slower, but works
            return pixels

    def send(self, image: Image) -> Image:
        """Start to copy an image; where the GPU has no room for two, it is copied when its turn comes."""
        try:
            with torch.cuda.stream(self._stream):
                return torch.as_tensor(image).to(self._device, non_blocking=True)
        except torch.cuda.OutOfMemoryError:
            return image

    def receive(self, image: Image) -> Image:
        """Return the image on the GPU, ordered before whatever is asked of it next."""
        pixels = torch.as_tensor(image)
        if not pixels.is_cuda:
            return pixels.to(self._device, non_blocking=True)
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        pixels.record_stream(current)  # its memory is free for others only when the picker's work is through
        return pixels


def lane_to(device: torch.device | None) -> Lane:
    """Return the lane that leads to a device; None is the CPU."""
    return CudaLane(device) if device is not None and device.type == "cuda" else HostLane()
