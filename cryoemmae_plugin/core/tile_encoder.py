"""An encoder for any number of tiles: in batches that fit into memory, in the chosen precision."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from cryoemmae_plugin.core.encoder import Encoder, EncoderConfig
from cryoemmae_plugin.device import no_memory_left
from cryoemmae_plugin.settings import Precision

logger = logging.getLogger(__name__)

TOKENS_PER_BATCH = 4096
"""Tokens encoded at once on a CPU; larger batches fall out of the cache."""
TILES_PER_BATCH_CUDA = 1024
"""Most tiles that are encoded at once on a GPU."""
TENSOR_CORES = (7, 0)
"""Compute capability from which a GPU is faster in 16 bits."""
CAUTIOUS_BATCH_CUDA = 256
"""Where it is not known how much memory there is."""
MEMORY_SHARE = 0.5
"""Share of the GPU's memory that one batch may take; the image and its embedding lie beside it."""


class TileEncoder(nn.Module):
    """Encodes tiles in batches, and halves the batch for good when the GPU's memory runs out.

    With 16 bits, matrices are multiplied in them, everything else stays float32. Numbers that are too large for float16
    are noticed, and float32 is used from then on.

    Parameters
    ----------
    encoder : Encoder
        In evaluation mode, on its device.
    batch : int or None
        Tiles at once; by default what suits the device.
    memory_bytes : int or None
        Memory of the GPU that this process may use; the batch is chosen to fit. None is unknown.
    precision : str
        A :data:`Precision`. Tokens come out as float32 in each.
    """

    def __init__(
        self,
        encoder: Encoder,
        batch: int | None = None,
        memory_bytes: int | None = None,
        precision: Precision = "auto",
    ) -> None:
        super().__init__()
        self.config: EncoderConfig = encoder.config
        self.device = next(encoder.parameters()).device
        self.batch = batch or fitting_batch(encoder.config, self.device, memory_bytes)
        self._half = _half_precision(precision, self.device)
        self._encoder = encoder

    def forward(self, tiles: Tensor) -> Tensor:
        """Encode standardised tiles (N, 1, tile_px, tile_px) into tokens (N, L, dim), float32.

        Raises
        ------
        DeviceError
            When the GPU's memory does not even hold one tile.
        """
        done: list[Tensor] = []
        at = 0
        while at < len(tiles):
            few = tiles[at : at + self.batch]
            tokens = self._encode(few)
            if tokens is None:
                self._shrink(len(few) // 2)
            else:
                done.append(tokens)
                at += len(few)
        whole = torch.cat(done)
        if self._half is not None and not bool(whole.isfinite().all()):
            logger.warning("%s: numbers too large for %s; going on with float32", self.device, self._half)
            self._half = None
            return self.forward(tiles)
        return whole

    def _encode(self, tiles: Tensor) -> Tensor | None:
        """Encode some tiles; None where memory runs out."""
        try:
            with torch.autocast(self.device.type, self._half, enabled=self._half is not None):
                tokens: Tensor = self._encoder(tiles)
            return tokens.float()
        except torch.cuda.OutOfMemoryError as err:
            if len(tiles) == 1:
                raise no_memory_left(self.device) from err
        return None

    def _shrink(self, batch: int) -> None:
        self.batch = batch
        logger.warning("%s: out of memory; going on with %d tiles at a time", self.device, self.batch)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _half_precision(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The 16-bit type to multiply in; None for float32."""
    if precision == "auto":
        fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= TENSOR_CORES
        return torch.float16 if fast else None
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def fitting_batch(config: EncoderConfig, device: torch.device, memory_bytes: int | None) -> int:
    """How many tiles to encode at once: on a GPU, as many as fit into their share of the memory, if that is known."""
    if device.type != "cuda":
        return max(1, TOKENS_PER_BATCH // config.grid**2)
    if memory_bytes is None:
        return CAUTIOUS_BATCH_CUDA
    return int(min(max(1, MEMORY_SHARE * memory_bytes // bytes_per_tile(config)), TILES_PER_BATCH_CUDA))


def bytes_per_tile(config: EncoderConfig) -> int:
    """Most memory that encoding one tile takes: what is alive in the middle of a block, in float32."""
    attention = 8 * config.embed_dim  # residual, normalised, q, k, v, mixed, reordered, projected
    mlp = int((3 + 2 * config.mlp_ratio) * config.embed_dim)  # residual, normalised, out; before and after the GELU
    return 4 * (config.grid**2 + 1) * max(attention, mlp)
