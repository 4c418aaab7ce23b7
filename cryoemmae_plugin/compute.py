"""How the network computes: what a user may choose about it, and a picker that keeps to it."""

from __future__ import annotations

import logging

import torch
from pydantic import BaseModel, ConfigDict, Field

from cryoemmae_plugin.core.picker import Picker
from cryoemmae_plugin.core.tile_encoder import Precision, no_memory_left
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.weights import Model

logger = logging.getLogger(__name__)

GIB = 2**30


class ComputeOptions(BaseModel):
    """How a run computes, without influence on what is picked but for the last digits. Frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu_memory: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        title="GPU memory (GiB)",
        description="GiB of the GPU's memory to use at most. [default: what is free]",
    )
    precision: Precision = Field(
        default="auto",
        title="Precision",
        description="Of the encoder's arithmetic: float32, bfloat16 (faster), or auto: whichever picks the same.",
    )


def build_picker(
    model: Model, settings: PickerSettings, device: torch.device, options: ComputeOptions | None = None
) -> Picker:
    """Put a model onto a device, within the memory that is allowed there.

    Raises
    ------
    DeviceError
        When the device has no memory left for it.
    ModelError
        If the model was not made for the settings' mode.
    """
    options = options or ComputeOptions()
    memory_bytes = limit_gpu_memory(device, options.gpu_memory)
    try:
        return Picker(model, settings, device, memory_bytes=memory_bytes, precision=options.precision)
    except torch.cuda.OutOfMemoryError as err:
        raise no_memory_left(device) from err


def limit_gpu_memory(device: torch.device, limit_GiB: float | None) -> int | None:  # noqa: N803
    """Keep this process to so much of a GPU's memory (beside the few hundred MiB of CUDA itself).

    Returns
    -------
    int or None
        Bytes that this process may use: those that are free, and not more than the limit; None on a CPU.
    """
    if device.type != "cuda":
        if limit_GiB is not None:
            logger.info("--gpu-memory is ignored: picking on the CPU")
        return None
    free, total = torch.cuda.mem_get_info(device)
    if limit_GiB is None:
        return int(free)
    allowed = min(int(limit_GiB * GIB), total)
    torch.cuda.set_per_process_memory_fraction(allowed / total, device)
    return min(int(free), allowed)
