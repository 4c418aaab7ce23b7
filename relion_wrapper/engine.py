"""What picks in a job: the model on its devices, patient when a GPU's memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cryoemmae_plugin.core.embed import TILES_PER_BATCH_CUDA
from cryoemmae_plugin.core.encoder import Encoder
from cryoemmae_plugin.core.picker import Picker
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.device import choose_device
from cryoemmae_plugin.errors import DeviceError
from cryoemmae_plugin.run.stream import ImagePicker
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.types import Picks
from cryoemmae_plugin.weights import Model, load_model

Build = Callable[[int | None], ImagePicker]
"""Makes a picker that encodes so many tiles at once; None is what suits the device."""


@dataclass(frozen=True)
class Engine:
    """A model, and one picker a device.

    Attributes
    ----------
    pickers : sequence of ImagePicker
        As many as there are devices.
    devices : sequence of torch.device
        Where each computes.
    model_name, model_sha256 : str
        The model.
    """

    pickers: Sequence[ImagePicker]
    devices: Sequence[torch.device]
    model_name: str
    model_sha256: str


def build_engine(
    settings: PickerSettings, model_name: str, names: Sequence[str], threads: int, tell: Callable[[str], None]
) -> Engine:
    """Load a model onto all devices.

    Parameters
    ----------
    model_name : str
        Name or folder; stands in for that of the settings.
    names : sequence of str
        Devices: "auto", "cpu", "cuda:N".
    threads : int
        CPU threads; 0 leaves them as they are.
    tell : callable
        Takes messages for the user.

    Raises
    ------
    DeviceError, ModelError
        When one of them is not there.
    """
    if threads:
        torch.set_num_threads(threads)
    devices = choose_devices(names)
    model = load_model(model_name)
    pickers = [PatientPicker(picker_builder(model, settings, device), device, tell) for device in devices]
    return Engine(pickers, devices, model.card.name, model.sha256)


def choose_devices(names: Sequence[str]) -> list[torch.device]:
    """The devices of these names.

    Raises
    ------
    DeviceError
        One is not there; the message says what to change in the job.
    """
    try:
        return [choose_device(name) for name in names]
    except DeviceError as err:
        reason = str(err).partition("; ")[0].replace("--device is", "gpu asks for")
        raise DeviceError(f"{reason}; change the parameter gpu, or leave its value empty for the CPU") from err


def picker_builder(model: Model, settings: PickerSettings, device: torch.device) -> Build:
    """How to make a picker with another batch size."""

    def build(batch: int | None) -> ImagePicker:
        if batch is None:
            return Picker(model, settings, device)
        encoder = cast(Encoder, InBatches(model.encoder, batch))
        return Picker(replace(model, encoder=encoder), settings, device)

    return build


class InBatches(nn.Module):
    """An encoder that takes few tiles at a time, however many it is given; the tokens are the same.

    Parameters
    ----------
    encoder : Encoder
        The encoder.
    batch : int
        Tiles at a time.
    """

    def __init__(self, encoder: Encoder, batch: int) -> None:
        super().__init__()
        self.config = encoder.config
        self._encoder, self._batch = encoder, batch

    def forward(self, tiles: Tensor) -> Tensor:
        """Encode tiles (N, 1, tile, tile)."""
        return torch.cat([self._encoder(few) for few in torch.split(tiles, self._batch)])


class PatientPicker:
    """A picker that halves its batch when the GPU's memory runs out, says so, and goes on.

    Parameters
    ----------
    build : callable
        Makes a picker of a batch size.
    device : torch.device
        Where it computes.
    tell : callable
        Takes messages for the user.
    """

    def __init__(self, build: Build, device: torch.device, tell: Callable[[str], None]) -> None:
        self._build, self._device, self._tell = build, device, tell
        self._batch = TILES_PER_BATCH_CUDA
        self._picker = build(None)

    def pick(self, image: NDArray[np.float32], pixel_size_A: float, timer: StepTimer | None = None) -> Picks:
        """Find the candidates of an image of shape (ny, nx); results do not depend on the batch.

        Raises
        ------
        DeviceError
            When the memory is not enough for a single tile.
        """
        while True:
            try:
                return self._picker.pick(image, pixel_size_A, timer=timer)
            except torch.cuda.OutOfMemoryError as err:
                if self._batch == 1:
                    raise DeviceError(
                        f"{self._device}: not enough memory for a single tile; others use the GPU (see nvidia-smi): "
                        "choose another with the parameter gpu, or wait, and continue the job"
                    ) from err
            self._halve()

    def _halve(self) -> None:
        self._batch //= 2
        self._tell(f"Out of memory on {self._device}: going on with {self._batch} tiles at a time")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._picker = self._build(self._batch)
