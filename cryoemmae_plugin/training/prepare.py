"""From micrographs on disk to the tiles that an autoencoder is trained on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cryoemmae_plugin.core.flattening import flatten_background
from cryoemmae_plugin.core.paper.preprocess import preprocess_paper
from cryoemmae_plugin.errors import CryoemmaeError, ImageError
from cryoemmae_plugin.images import pixel_size_of, read_header, read_image
from cryoemmae_plugin.settings import Mode
from cryoemmae_plugin.training.recipe import Tiles
from cryoemmae_plugin.training.tiles import TILE_PX, GridTiles, RandomCrops, TileSource

log = logging.getLogger(__name__)

Stage = Callable[[str, int, int], None]
"""Called with (what is being done, how much of it is done, how much there is)."""
READING = "Reading micrographs"
"""The stage of :func:`prepare`."""

TRAINED_DIAMETER_PX = 30.0
"""Particle diameter to which the default mode's training micrographs are brought."""
TRAINED_DIAMETERS_PX = (16.0, 30.0)
"""Particle diameters in the default mode's training tiles: the model works at any scale in between."""
PAPER_SCALES, PAPER_NATIVE_SHARE = (1.0, 2.0), 0.6
"""Scales of the crops in paper mode, and the share of the steps at scale 1. The paper's model of 20 sets is trained on
random crops too."""
LEAST_TILES, FEW_TILES = 8, 500
"""Fewer tiles than the first cannot be trained on; fewer than the second are too few to learn from them alone."""


@dataclass(frozen=True)
class TrainingMicrograph:
    """An unlabelled micrograph and what is known of its particles.

    Attributes
    ----------
    pixel_size_A : float or None
        None takes it from the file's header.
    bright : bool
        True where particles are lighter than the ice.
    """

    path: Path
    diameter_A: float
    pixel_size_A: float | None = None
    bright: bool = False


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


def prepare(
    micrographs: Sequence[TrainingMicrograph], mode: Mode, on_stage: Stage = silent
) -> tuple[list[Tensor], list[float]]:
    """Read and preprocess micrographs; those that cannot be used are named in the log and left out.

    Returns
    -------
    images : list of Tensor (rows, columns)
    diameters_px : list of float
        Particle diameter in each, in its own pixels.

    Raises
    ------
    ImageError
        If none can be used.
    """
    images: list[Tensor] = []
    diameters: list[float] = []
    reasons: list[str] = []
    on_stage(READING, 0, len(micrographs))
    for at, micrograph in enumerate(micrographs, start=1):
        try:
            pixels = torch.from_numpy(read_image(micrograph.path))
            pixel_size_A = pixel_size_of(micrograph.path, read_header(micrograph.path), micrograph.pixel_size_A)
            if not bool(pixels.isfinite().all()):
                raise ImageError(f"{micrograph.path}: some pixels are not finite numbers; leave this file out")
            pixels = -pixels if micrograph.bright else pixels
            diameter_px = micrograph.diameter_A / pixel_size_A
            if mode == "paper":
                image, frame = preprocess_paper(pixels, diameter_px)
                diameter_px = diameter_px / max(frame.scale)
            else:
                image = flatten_background(pixels, diameter_px, TRAINED_DIAMETER_PX).pixels
                diameter_px = TRAINED_DIAMETER_PX
            images.append(image)
            diameters.append(diameter_px)
        except CryoemmaeError as err:
            log.warning("left out: %s", err)
            reasons.append(str(err))
        on_stage(READING, at, len(micrographs))
    if not images:
        raise ImageError("no micrograph to train on: " + ("; ".join(reasons[:3]) or "none was given"))
    return images, diameters


def tile_source(images: Sequence[Tensor], mode: Mode, tiles: Tiles = "crops", seed: int = 0) -> TileSource:
    """Return the tiles that a mode is trained on.

    Parameters
    ----------
    images : sequence of Tensor
        From :func:`prepare`.
    tiles : str
        "grid" is the published fixed grid, for paper mode; the default mode always takes crops.

    Raises
    ------
    ImageError
        The images are constant, or too small.
    """
    source: TileSource
    if mode == "default":
        smallest, largest = TRAINED_DIAMETERS_PX
        scales = (TRAINED_DIAMETER_PX / largest, TRAINED_DIAMETER_PX / smallest)
        source = RandomCrops(images, scales, seed=seed)
    elif tiles == "grid":
        source = GridTiles(images, seed)
    else:
        source = RandomCrops(images, PAPER_SCALES, PAPER_NATIVE_SHARE, seed)
    if len(source) < LEAST_TILES:
        raise ImageError(
            f"the micrographs give only {len(source)} training tiles of {TILE_PX} x {TILE_PX} pixels; at least "
            f"{LEAST_TILES} are needed",
            remedy="give more or larger micrographs, and check $diameter_A and pixel size",
        )
    if len(source) < FEW_TILES:
        log.warning(
            "the micrographs give only %d training tiles; five whole micrographs give about 1000. Add micrographs, or "
            "train an installed model further",
            len(source),
        )
    return source
