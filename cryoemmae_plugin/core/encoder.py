"""The ViT encoder of a masked autoencoder: image tiles in, one vector per 4 x 4 px patch out.

Parameter names are those of the released research code, so that published checkpoints load as they are.
Source: He et al. 2022 (MAE); Zamanos et al. 2025, table S5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

LAYER_NORM_EPS = 1e-6


@dataclass(frozen=True)
class EncoderConfig:
    """Dimensions of an encoder; the defaults are the published ones."""

    tile_px: int = 64
    patch_px: int = 4
    embed_dim: int = 192
    depth: int = 14
    num_heads: int = 1
    mlp_ratio: float = 2.0
    position_weight: float = 0.08

    @property
    def grid(self) -> int:
        """Patches along one side of a tile."""
        return self.tile_px // self.patch_px


@dataclass(frozen=True)
class DecoderConfig:
    """Dimensions of a decoder, which only training needs; the defaults are the published ones."""

    embed_dim: int = 128
    depth: int = 7
    num_heads: int = 8
    mlp_ratio: float = 2.0


def sincos_positions(dim: int, grid: int) -> Tensor:
    """Fixed 2-D sine-cosine positions of a class token (zeros) and grid x grid patches, shape (1 + grid**2, dim)."""
    with torch.device("cpu"):  # on the meta device, PyTorch would import its compiler for this: seconds
        omega = 1.0 / 10000 ** (torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
        angle = torch.arange(grid, dtype=torch.float64)[:, None] * omega
        line = torch.cat([angle.sin(), angle.cos()], dim=1)  # (grid, dim / 2)
        along_x = line[None].expand(grid, grid, -1)
        along_y = line[:, None].expand(grid, grid, -1)
        patches = torch.cat([along_x, along_y], dim=2).reshape(grid * grid, dim)
        return torch.cat([torch.zeros(1, dim, dtype=torch.float64), patches]).float()


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, L, dim) to tokens of the same shape."""
        n, length, dim = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, self.num_heads, dim // self.num_heads).permute(2, 0, 3, 1, 4)
        if q.dtype == torch.bfloat16 and q.device.type == "cpu":  # fused, it would multiply as slowly as in float32
            out = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v)
        projected: Tensor = self.proj(out.transpose(1, 2).reshape(n, length, dim))
        return projected


class Mlp(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, L, dim) to tokens of the same shape."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, L, dim) to tokens of the same shape."""
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x


class PatchEmbed(nn.Module):
    """Linear projection of square patches."""

    def __init__(self, patch_px: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, dim, kernel_size=patch_px, stride=patch_px)

    def forward(self, tiles: Tensor) -> Tensor:
        """Map tiles (N, 1, H, W) to tokens (N, L, dim), row by row."""
        tokens: Tensor = self.proj(tiles).flatten(2).transpose(1, 2)
        return tokens


class Encoder(nn.Module):
    """The encoder without masking: what inference uses."""

    positions: Tensor

    def __init__(self, config: EncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or EncoderConfig()
        self.patch_embed = PatchEmbed(config.patch_px, config.embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.blocks = nn.ModuleList(
            Block(config.embed_dim, config.num_heads, config.mlp_ratio) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.embed_dim, eps=LAYER_NORM_EPS)
        positions = sincos_positions(config.embed_dim, config.grid) * config.position_weight
        self.register_buffer("positions", positions[None], persistent=False)

    def embed_patches(self, tiles: Tensor) -> Tensor:
        """Project patches and add their positions: (N, 1, tile, tile) to (N, L, dim), no class token."""
        tokens: Tensor = self.patch_embed(tiles) + self.positions[:, 1:]
        return tokens

    def transform(self, tokens: Tensor) -> Tensor:
        """Prepend the class token and apply all blocks and the final norm: (N, L, dim) to (N, 1 + L, dim)."""
        x = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.norm(x)
        return out

    def forward(self, tiles: Tensor) -> Tensor:
        """Encode standardised tiles.

        Parameters
        ----------
        tiles : Tensor, shape (N, 1, tile_px, tile_px)
            Pixels after (value - mean) / std of the model's training set.

        Returns
        -------
        Tensor, shape (N, grid * grid, embed_dim)
            Patch tokens, row by row, without the class token.
        """
        return self.transform(self.embed_patches(tiles))[:, 1:]


def initialise(module: nn.Module) -> None:
    """Initialise in place as the MAE paper does: Xavier for linear layers and patch projection, N(0, 0.02) tokens."""
    for name, parameter in module.named_parameters():
        if name.endswith(("cls_token", "mask_token")):
            nn.init.normal_(parameter, std=0.02)
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            nn.init.zeros_(child.bias)
        elif isinstance(child, nn.Conv2d):
            fan_in = math.prod(child.weight.shape[1:])
            bound = math.sqrt(6 / (fan_in + child.weight.shape[0]))
            nn.init.uniform_(child.weight, -bound, bound)
