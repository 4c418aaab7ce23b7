"""From an image on the model's grid to one vector per patch: tile, standardise, encode, stitch; for both modes."""

from __future__ import annotations

import torch
from torch import Tensor

from cryoemmae_plugin.core.encoder import Encoder
from cryoemmae_plugin.core.tile_encoder import TileEncoder


def cut_tiles(image: Tensor, tile_px: int) -> Tensor:
    """Cut an image into tiles, row by row.

    Parameters
    ----------
    image : Tensor, shape (H, W)
        Both sides whole multiples of `tile_px`.

    Returns
    -------
    Tensor, shape (H // tile_px * W // tile_px, 1, tile_px, tile_px)

    Raises
    ------
    ValueError
        If a side is not a whole multiple.
    """
    height, width = image.shape
    if height % tile_px or width % tile_px:
        raise ValueError(f"image of {height} x {width} pixels cannot be cut into tiles of {tile_px}: pad it first")
    rows, columns = height // tile_px, width // tile_px
    return image.reshape(rows, tile_px, columns, tile_px).transpose(1, 2).reshape(-1, 1, tile_px, tile_px)


def stitch_tokens(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """Put the patch tokens of `rows` x `columns` square tiles back into place.

    Parameters
    ----------
    tokens : Tensor, shape (rows * columns, grid * grid, dim)
        Tiles row by row, patches row by row within a tile.

    Returns
    -------
    Tensor, shape (rows * grid, columns * grid, dim)
    """
    grid = round(tokens.shape[1] ** 0.5)
    tiled = tokens.reshape(rows, columns, grid, grid, -1).transpose(1, 2)
    return tiled.reshape(rows * grid, columns * grid, -1)


def embed_image(image: Tensor, encoder: Encoder, mean: float, std: float, batch: int | None = None) -> Tensor:
    """Encode an image on the model's grid.

    Parameters
    ----------
    image : Tensor, shape (H, W), float32
        Both sides whole multiples of the encoder's tile. Moved to the encoder's device.
    mean, std : float
        Of the model's training pixels.
    batch : int or None
        Tiles encoded at once; by default what suits the device. The result does not depend on it.

    Returns
    -------
    Tensor, shape (H // patch_px, W // patch_px, embed_dim), float32
        On the encoder's device.
    """
    tile_px = encoder.config.tile_px
    tiles = cut_tiles(image, tile_px)
    in_batches = encoder if isinstance(encoder, TileEncoder) else TileEncoder(encoder, batch)
    with torch.no_grad():
        tokens = in_batches((tiles.to(in_batches.device) - mean) / std)
    return stitch_tokens(tokens, image.shape[0] // tile_px, image.shape[1] // tile_px)
