"""What a user may choose about how the network computes; command lines are derived from these fields."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cryoemmae_plugin.settings import Options

Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""Of the encoder's arithmetic; "auto" is the fastest that picks the same: float16 on a GPU that has tensor cores,
else float32."""


class ComputeOptions(Options):
    """How a run computes, without influence on what is picked but for the last digits. Frozen."""

    gpu_memory: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        title="GPU memory (GiB)",
        description="Most GiB of the GPU's memory to use. [default: what is free]",
    )
    precision: Precision = Field(
        default="auto",
        title="Precision",
        description="Of the encoder: auto (float16 on a GPU, float32 on a CPU), float32, bfloat16, float16.",
    )
    jobs: int = Field(
        default=2,
        ge=1,
        le=1000,
        title="Micrographs read ahead",
        description="Micrographs to read ahead while one is picked; each takes the memory of its image.",
    )


AS_SUITS = ComputeOptions()
"""Nothing chosen."""
