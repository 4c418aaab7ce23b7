"""From a trained autoencoder to a model folder: check its skill, cluster its tokens, make its head, write its card."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from cryoemmae_plugin.core.encoder import Encoder
from cryoemmae_plugin.core.head import Head
from cryoemmae_plugin.errors import TrainingError
from cryoemmae_plugin.settings import Mode
from cryoemmae_plugin.training.clusters import encode_tiles, find_particle_cluster, fit_clusters
from cryoemmae_plugin.training.fit import UNSEEN_STEP
from cryoemmae_plugin.training.mae import MASK_RATIO, MaskedAutoencoder
from cryoemmae_plugin.training.make_head import HeadPlan, make_head
from cryoemmae_plugin.training.pictures import draw_reconstructions
from cryoemmae_plugin.training.prepare import TRAINED_DIAMETERS_PX, Stage, silent
from cryoemmae_plugin.training.recipe import FitSettings
from cryoemmae_plugin.training.tiles import TileSource
from cryoemmae_plugin.weights import ModelCard, TrainingSummary, save_model

CLUSTERING = "Clustering"
"""The first stage of :func:`complete_model`."""
CLUSTER_BATCHES, CLUSTER_BATCH = 12, 32
"""Tiles from which the train-set clusters are made, in batches of one scale each."""
SHOWN_TILES = 6
"""Tiles in the picture of reconstructions."""


@dataclass(frozen=True)
class Learned:
    """A trained autoencoder that is not a model folder yet.

    Attributes
    ----------
    source : TileSource
        Its training tiles, with the mean and deviation that it was trained with.
    diameters_px : sequence of float
        Particle diameter in each training image, in its own pixels.
    """

    autoencoder: MaskedAutoencoder
    source: TileSource
    diameters_px: Sequence[float]
    summary: TrainingSummary


@dataclass(frozen=True)
class Description:
    """What a model's card says in words."""

    name: str
    data: str
    recipe: str
    hardware: str


@dataclass(frozen=True)
class UnsavedModel:
    """A model that is not in a folder yet; see :class:`cryoemmae_plugin.core.model.PickingModel`."""

    encoder: Encoder
    mean: float
    std: float
    centroids: Tensor
    particle_cluster: int
    arrays: dict[str, Tensor] = field(default_factory=dict)


def check_skill(skill: float, least: float, work: Path) -> None:
    """Refuse a model that has learned nothing.

    Raises
    ------
    TrainingError
        When its skill is below `least`.
    """
    if skill >= least:
        return
    raise TrainingError(
        "the autoencoder has learned nothing: it restores hidden patches no better than the mean of each tile does "
        f"(skill {skill:.2f}, at least {least:g} is needed, see {work / 'loss.png'}). No model is installed",
        remedy=f"check $diameter_A and pixel size, delete {work}, and train for more $epochs or on more micrographs",
    )


def check_separation(separation: float, least: float, work: Path) -> None:
    """Refuse a model for paper mode whose clusters do not tell particle from ice.

    Raises
    ------
    TrainingError
        When its separation is below `least`; see :class:`cryoemmae_plugin.training.clusters.ParticleCluster`.
    """
    if separation >= least:
        return
    raise TrainingError(
        "the autoencoder has learned, but none of its clusters is the particle: they explain "
        f"{separation:.0%} of how dark the micrographs are at the particle's scale, at least {least:.0%} is needed. "
        "No model is installed",
        remedy=f"check $diameter_A, delete {work}, and train for more $epochs or with another $seed",
    )


def complete_model(
    folder: Path,
    mode: Mode,
    learned: Learned,
    described: Description,
    *,
    plan: HeadPlan,
    start_head: Head | None = None,
    seed: int = 0,
    on_stage: Stage = silent,
    should_stop: Callable[[], bool] = lambda: False,
    scenes: Path | None = None,
    least_separation: float = FitSettings().least_separation,
) -> Path:
    """Make clusters and head, and write the model folder.

    Parameters
    ----------
    folder : Path
        Receives card and tensors; ``training/`` in it keeps what a stopped call needs to go on.
    plan : HeadPlan
        How the default mode's head is made; paper mode has none.
    start_head : Head, optional
        Head to train further.
    scenes : Path, optional
        Folder that keeps the simulated micrographs, for several models.
    least_separation : float
        See :class:`cryoemmae_plugin.training.recipe.FitSettings`.

    Raises
    ------
    Interrupted
        When `should_stop` says True.
    TrainingError
        When the clusters of a model for paper mode do not tell particle from ice.
    """
    source = learned.source.to(torch.device("cpu"))
    autoencoder = learned.autoencoder.cpu().eval().half().float()  # what is stored, is what is clustered and scored
    on_stage(CLUSTERING, 0, 1)
    model, separation = _with_clusters(autoencoder.encoder, source, learned.diameters_px, mode, seed)
    if mode == "paper":
        check_separation(separation, least_separation, folder / "training")
    on_stage(CLUSTERING, 1, 1)
    if mode == "default":
        head = make_head(model, plan, folder / "training", start_head, on_stage, should_stop, scenes)
        model.arrays.update(head.arrays())
    card = ModelCard(
        **vars(described),
        modes=(mode,),
        encoder=autoencoder.encoder.config,
        decoder=autoencoder.decoder.config,
        mean=source.mean,
        std=source.std,
        particle_cluster=model.particle_cluster,
        created=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        training=learned.summary,
    )
    encoder, decoder = (
        {key: tensor.half() for key, tensor in part.state_dict().items()}
        for part in (autoencoder.encoder, autoencoder.decoder)
    )
    save_model(folder, card, encoder, {"centroids": model.centroids, **model.arrays}, decoder)
    return folder


def show_reconstructions(autoencoder: MaskedAutoencoder, source: TileSource, figure: Path) -> None:
    """Draw a few tiles, half of each hidden, and what the autoencoder restores."""
    device, config = next(autoencoder.parameters()).device, autoencoder.encoder.config
    tiles = source.draw(UNSEEN_STEP, SHOWN_TILES).to(device)
    noise = torch.rand(SHOWN_TILES, config.grid**2, generator=torch.Generator().manual_seed(0))[: len(tiles)]
    with torch.no_grad():
        _, prediction, hidden = autoencoder(tiles, noise.to(device), MASK_RATIO)
    mask = hidden[:, :, None].expand_as(prediction)
    restored = torch.where(mask == 1, prediction, autoencoder.patchify(tiles))
    shown = (autoencoder.unpatchify(patches)[:, 0].float().cpu().numpy() for patches in (mask, restored))
    mask_px, restored_px = shown
    draw_reconstructions(tiles[:, 0].cpu().numpy(), mask_px > 0.5, restored_px, figure)


def describe_hardware(device: torch.device) -> str:
    """Say what a model was trained on, for its card."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{torch.get_num_threads()} CPU threads, {platform.machine()}"


def _with_clusters(
    encoder: Encoder, source: TileSource, diameters: Sequence[float], mode: Mode, seed: int
) -> tuple[UnsavedModel, float]:
    """Cluster an encoder's tokens, find the particle cluster, and say how well it tells particle from ice."""
    tiles, sizes = _cluster_tiles(source, diameters, mode)
    tokens = encode_tiles(encoder, tiles)
    centroids = fit_clusters(tokens, seed)
    particle, separation = find_particle_cluster(tokens, tiles, centroids, sizes)
    return UnsavedModel(encoder, source.mean, source.std, torch.from_numpy(centroids), particle), separation


def _cluster_tiles(source: TileSource, diameters: Sequence[float], mode: Mode) -> tuple[Tensor, list[float]]:
    """Tiles for the train-set clusters, and the particle diameter in each."""
    tiles, sizes = [], []
    for batch in range(CLUSTER_BATCHES):
        drawn = source.draw(UNSEEN_STEP + batch, CLUSTER_BATCH)
        tiles.append(drawn)
        size = sum(diameters) / len(diameters) if mode == "paper" else sum(TRAINED_DIAMETERS_PX) / 2
        sizes += [size] * len(drawn)
    return torch.cat(tiles), sizes
