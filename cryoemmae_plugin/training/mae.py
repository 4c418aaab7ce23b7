"""The full masked autoencoder: encoder, decoder, masking and loss.

Source: He et al. 2022; Zamanos et al. 2025 ("Representation learning", table S5). Parameter names are those of the
released research code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cryoemmae_plugin.core.encoder import (
    LAYER_NORM_EPS,
    Attention,
    Block,
    DecoderConfig,
    Encoder,
    EncoderConfig,
    initialise,
    sincos_positions,
)
from cryoemmae_plugin.settings import Mode
from cryoemmae_plugin.training.recipe import FitSettings

MASK_RATIO = 0.5


ARCHITECTURES: dict[Mode, tuple[EncoderConfig, DecoderConfig]] = {
    "paper": (EncoderConfig(), DecoderConfig()),
    "default": (
        EncoderConfig(patch_px=8, embed_dim=128, depth=8, num_heads=4, position_weight=1.0),
        DecoderConfig(embed_dim=96, depth=3, num_heads=4),
    ),
}
"""Dimensions of new models: the published ones in paper mode, smaller and faster ones in the default mode."""


class Decoder(nn.Module):
    """Fills masked patches in from the visible ones' tokens."""

    positions: Tensor

    def __init__(self, encoder: EncoderConfig, config: DecoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DecoderConfig()
        self.decoder_embed = nn.Linear(encoder.embed_dim, config.embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.decoder_blocks = nn.ModuleList(
            Block(config.embed_dim, config.num_heads, config.mlp_ratio) for _ in range(config.depth)
        )
        self.decoder_norm = nn.LayerNorm(config.embed_dim, eps=LAYER_NORM_EPS)
        self.decoder_pred = nn.Linear(config.embed_dim, encoder.patch_px**2)
        self.register_buffer("positions", sincos_positions(config.embed_dim, encoder.grid)[None], persistent=False)

    def forward(self, visible: Tensor, restore: Tensor) -> Tensor:
        """Predict every patch.

        Parameters
        ----------
        visible : Tensor, shape (N, 1 + kept, encoder dim)
            Encoded class token and visible patches, in shuffled order.
        restore : Tensor, shape (N, L), int64
            Where each patch stands in that order.

        Returns
        -------
        Tensor, shape (N, L, patch_px**2)
        """
        x = self.decoder_embed(visible)
        n, length = restore.shape
        masked = self.mask_token.expand(n, length + 1 - x.shape[1], -1)
        patches = torch.cat([x[:, 1:], masked], dim=1)
        patches = patches.gather(1, restore[:, :, None].expand(-1, -1, patches.shape[2]))
        x = torch.cat([x[:, :1], patches], dim=1) + self.positions
        for block in self.decoder_blocks:
            x = block(x)
        out: Tensor = self.decoder_pred(self.decoder_norm(x))
        return out[:, 1:]


class MaskedAutoencoder(nn.Module):
    """Encoder and decoder, trained together to restore hidden patches of unlabelled tiles."""

    def __init__(self, encoder: EncoderConfig | None = None, decoder: DecoderConfig | None = None) -> None:
        super().__init__()
        self.encoder = Encoder(encoder)
        self.decoder = Decoder(self.encoder.config, decoder)
        initialise(self)

    def patchify(self, tiles: Tensor) -> Tensor:
        """Cut tiles (N, 1, H, W) into flat patches (N, L, patch_px**2), row by row."""
        n, p = len(tiles), self.encoder.config.patch_px
        g = self.encoder.config.grid
        return tiles.reshape(n, g, p, g, p).permute(0, 1, 3, 2, 4).reshape(n, g * g, p * p)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Put flat patches (N, L, patch_px**2) back into tiles (N, 1, H, W)."""
        n, p, g = len(patches), self.encoder.config.patch_px, self.encoder.config.grid
        return patches.reshape(n, g, g, p, p).permute(0, 1, 3, 2, 4).reshape(n, 1, g * p, g * p)

    def forward(self, tiles: Tensor, noise: Tensor, mask_ratio: float = MASK_RATIO) -> tuple[Tensor, Tensor, Tensor]:
        """Hide patches, restore them, and measure the error.

        Parameters
        ----------
        tiles : Tensor, shape (N, 1, tile, tile)
            Standardised tiles.
        noise : Tensor, shape (N, L)
            Uniform random numbers; each tile's patches with the smallest ones stay visible.
        mask_ratio : float
            Share of patches to hide.

        Returns
        -------
        loss : Tensor, scalar
            Mean squared error over hidden patches.
        prediction : Tensor, shape (N, L, patch_px**2)
        hidden : Tensor, shape (N, L), 1 where hidden
        """
        order = noise.argsort(dim=1)
        restore = order.argsort(dim=1)
        kept = int(noise.shape[1] * (1 - mask_ratio))
        tokens = self.encoder.embed_patches(tiles)
        visible = tokens.gather(1, order[:, :kept, None].expand(-1, -1, tokens.shape[2]))
        prediction = self.decoder(self.encoder.transform(visible), restore)
        prediction = prediction.float()  # whatever the network computed in
        hidden = (restore >= kept).to(tiles.dtype)
        error = ((prediction - self.patchify(tiles)) ** 2).mean(dim=2)
        return (error * hidden).sum() / hidden.sum(), prediction, hidden


def new_autoencoder(mode: Mode, recipe: FitSettings) -> MaskedAutoencoder:
    """Return an untrained autoencoder of a mode's dimensions, its weights from the recipe's seed and query-key gain.

    With a gain, each attention begins with equal query and key projections: one orthogonal matrix times the gain.
    Patches that look alike then attend to each other from the first step on (Trockman and Kolter 2023, Mimetic
    initialization of self-attention layers), and the training leaves the plateau of its loss much sooner.
    """
    torch.manual_seed(recipe.seed)
    model = MaskedAutoencoder(*ARCHITECTURES[mode])
    if recipe.query_key_gain:
        for module in model.modules():
            if isinstance(module, Attention):
                _align_queries_and_keys(module, recipe.query_key_gain)
    return model


def _align_queries_and_keys(attention: Attention, gain: float) -> None:
    dim = attention.qkv.in_features
    projection = nn.init.orthogonal_(torch.empty(dim, dim), gain)
    with torch.no_grad():
        attention.qkv.weight[: 2 * dim] = projection.repeat(2, 1)


def trivial_error(patches: Tensor, hidden: Tensor) -> Tensor:
    """Error of a predictor that has learned nothing: the mean of each tile in place of its hidden patches.

    Parameters
    ----------
    patches : Tensor, shape (N, L, patch_px**2)
    hidden : Tensor, shape (N, L), 1 where hidden

    Returns
    -------
    Tensor, scalar
    """
    error = ((patches - patches.mean((1, 2), keepdim=True)) ** 2).mean(dim=2)
    return (error * hidden).sum() / hidden.sum()
