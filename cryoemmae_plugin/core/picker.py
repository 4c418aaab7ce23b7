"""One object that picks: model, settings and device in, picks of any number of micrographs out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoemmae_plugin.core.default import GRID_DIAMETER_PX, pick_default
from cryoemmae_plugin.core.encoder import Encoder
from cryoemmae_plugin.core.groups import Groups
from cryoemmae_plugin.core.head import CELL_PX, PREFIX, Head
from cryoemmae_plugin.core.paper.pick import pick_paper
from cryoemmae_plugin.core.paper.preprocess import PAPER_GRID_PX
from cryoemmae_plugin.core.species import pick_sizes
from cryoemmae_plugin.core.tile_encoder import TileEncoder
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.device import limit_gpu_memory, multiplies_bfloat16, no_memory_left
from cryoemmae_plugin.errors import ImageError, ModelError, SettingsError
from cryoemmae_plugin.settings import AS_SUITS, ComputeOptions, PickerSettings
from cryoemmae_plugin.types import Picks

if TYPE_CHECKING:
    from cryoemmae_plugin.weights import Model

LEAST_CELLS = 2
"""Smallest particle diameter that can be seen, in cells of the model."""
LEAST_PX = 6.0
"""Smallest particle diameter that can be seen, in micrograph pixels."""
MOST_GRID_PX = 1e8
"""Most pixels of a micrograph on the grid of the default mode: about 10 GB of memory."""


class CandidatePicker:
    """Finds all candidates of an image with one model and one set of settings; the public ``Picker`` calls it.

    Parameters
    ----------
    model : Model
        As :func:`cryoemmae_plugin.load_model` gives it; moved to `device`.
    device : torch.device, optional
        The CPU by default.

    Raises
    ------
    DeviceError
        If the GPU has no memory left for the model.
    ModelError
        If the model was not made for the mode.
    """

    def __init__(
        self,
        model: Model,
        settings: PickerSettings,
        device: torch.device | None = None,
        compute: ComputeOptions = AS_SUITS,
    ) -> None:
        self._device = device or torch.device("cpu")
        self._settings = settings
        self._head = load_head(model) if settings.mode == "default" else None
        self._groups = Groups.from_arrays(model.arrays) if settings.mode == "default" else None
        memory_bytes = limit_gpu_memory(self._device, compute.gpu_memory)
        try:
            model = model.to(self._device)
            self._head = self._head and self._head.to(self._device)
        except torch.cuda.OutOfMemoryError as err:
            raise no_memory_left(self._device) from err
        precision = compute.precision
        on_cpu = self._device.type == "cpu"
        if precision == "auto" and settings.mode == "default" and on_cpu and multiplies_bfloat16(self._device):
            precision = "bfloat16"
        encoder = TileEncoder(model.encoder, memory_bytes=memory_bytes, precision=precision)
        self._model = replace(model, encoder=cast(Encoder, encoder))

    def pick(self, image: NDArray[np.float32] | Tensor, pixel_size_A: float, timer: StepTimer | None = None) -> Picks:
        """Pick one micrograph.

        Parameters
        ----------
        image : ndarray or Tensor, shape (ny, nx), float32
            Pixels as stored; a tensor may lie on the device already.
        pixel_size_A : float
            Å per pixel.

        Returns
        -------
        Picks
            All candidates, best first, also those below the threshold or cut by the frame: which of them are picks is
            chosen at output time.

        Raises
        ------
        ImageError
            If the image is not two-dimensional, holds numbers that are not finite, or nothing but one value.
        SettingsError
            If the particle is larger than the micrograph, or too small to be seen.
        """
        timer = timer or StepTimer()
        sizes_A = self._settings.sizes_A or (self._settings.diameter_A,)
        diameters_px = [size / pixel_size_A for size in sizes_A]
        with timer.step("preprocess"):
            pixels = self._to_device(image)
            for size_A in sizes_A:
                self._check(pixels, size_A, pixel_size_A)
            if self._settings.contrast == "bright":
                pixels = -pixels
        diameter_px = diameters_px[-1]
        with torch.inference_mode():
            if self._head is None:
                return pick_paper(
                    pixels,
                    self._model,
                    diameter_px,
                    timer,
                    particle_fraction=self._settings.particle_fraction,
                    max_radius_ratio=self._settings.max_radius_ratio,
                )
            if len(sizes_A) == 1:
                return pick_default(pixels, self._model, self._head, diameter_px, timer, self._groups)
            return pick_sizes(pixels, self._model, self._head, diameters_px, sizes_A, timer)

    def _to_device(self, image: NDArray[np.float32] | Tensor) -> Tensor:
        pixels = image if isinstance(image, Tensor) else torch.from_numpy(np.ascontiguousarray(image, np.float32))
        return pixels.to(self._device)

    def _check(self, image: Tensor, diameter_A: float, pixel_size_A: float) -> None:
        diameter_px = diameter_A / pixel_size_A
        if image.ndim != 2:
            raise ImageError(f"an image of {image.ndim} dimensions is not a micrograph; give one 2-D image per file")
        least, most = torch.stack(image.aminmax()).tolist()
        if not math.isfinite(most - least):
            raise ImageError("some pixels are not finite numbers; write the image again, with the mean in their place")
        if least == most:
            raise ImageError(f"every pixel is {least:g}: there is no image to pick")
        given = f"$diameter_A {diameter_A:g} is {diameter_px:.4g} px at {pixel_size_A:g} Å/px"
        if diameter_px > min(image.shape):
            raise SettingsError(
                f"{given}, larger than the micrograph of {image.shape[1]} x {image.shape[0]} px (x × y)",
                setting="diameter_A",
                value=diameter_A,
                remedy="check diameter and pixel size",
            )
        if self._settings.mode == "paper":
            least_px = LEAST_CELLS * self._model.encoder.config.patch_px * max(image.shape) / PAPER_GRID_PX
        else:
            least_px = GRID_DIAMETER_PX * math.sqrt(image.numel() / MOST_GRID_PX)
        least_px = max(least_px, LEAST_PX)
        if diameter_px < least_px:
            raise SettingsError(
                f"{given}, too small for a micrograph of {image.shape[1]} x {image.shape[0]} px (x × y): at least "
                f"{least_px:.1f} px",
                setting="diameter_A",
                value=diameter_A,
                remedy="check diameter and pixel size (in Å, not in nm)",
            )


def load_head(model: Model) -> Head:
    """Build the head of a model, on the CPU.

    Raises
    ------
    ModelError
        If it has none, or one of another release.
    """
    if f"{PREFIX}version" not in model.arrays or model.card.encoder.patch_px % CELL_PX:
        raise ModelError(
            f"{model.card.name}: has no head, which default mode needs",
            remedy=("use $mode=paper", "choose another $model"),
        )
    try:
        return Head.from_arrays(model.arrays)
    except (RuntimeError, KeyError) as err:
        raise ModelError(
            f"{model.card.name}: cannot be used in default mode ({err})",
            remedy=("train it again with this release", "choose another $model"),
        ) from err
