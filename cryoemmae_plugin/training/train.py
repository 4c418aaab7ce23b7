"""From unlabelled micrographs to a model folder."""

from __future__ import annotations

import datetime
import logging
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from cryoemmae_plugin.core.encoder import Encoder
from cryoemmae_plugin.core.flattening import flatten_background
from cryoemmae_plugin.core.head import Head
from cryoemmae_plugin.core.model import PickingModel
from cryoemmae_plugin.core.paper.preprocess import preprocess_paper
from cryoemmae_plugin.errors import CryoemmaeError, ImageError
from cryoemmae_plugin.images import pixel_size_of, read_header, read_image
from cryoemmae_plugin.report.loss import draw_loss_curve
from cryoemmae_plugin.settings import Mode
from cryoemmae_plugin.training.begun import Begun, begin, digits_of, size_of
from cryoemmae_plugin.training.clusters import encode_tiles, find_particle_cluster, fit_clusters
from cryoemmae_plugin.training.examples import FIRST_SEED, make_examples
from cryoemmae_plugin.training.fit import FitSettings, Progress, fit
from cryoemmae_plugin.training.head import HeadSettings, calibrate, mean_head, train_head
from cryoemmae_plugin.training.mae import MASK_RATIO
from cryoemmae_plugin.training.start import Start
from cryoemmae_plugin.training.tiles import GridTiles, RandomCrops, TileSource
from cryoemmae_plugin.weights import ModelCard, save_model

log = logging.getLogger(__name__)

Stage = Callable[[str, int, int], None]
"""Called with (what is being done, how much of it is done, how much there is)."""
READING, CLUSTERING = "Reading micrographs", "Clustering"
EXAMINING, JUDGING = "Examining simulated micrographs", "Training the head on them"
"""The stages of a training besides its steps."""

TRAINED_DIAMETER_PX = 30.0
"""Particle diameter to which the default mode's training micrographs are brought."""
TRAINED_DIAMETERS_PX = (16.0, 30.0)
"""Particle diameters in the default mode's training tiles: the model works at any scale in between."""
CLUSTER_BATCHES = 12
CLUSTER_BATCH = 32
"""Tiles from which the train-set clusters are made, in batches of one scale each."""


@dataclass(frozen=True)
class HeadPlan:
    """How the default mode's head is made.

    Attributes
    ----------
    scenes, held_out : int
        Simulated micrographs that it is trained on, and further ones on which its figure of merit is balanced.
    settings : HeadSettings
    first_seed : int
        Of the scenes; one after the other follows.
    """

    scenes: int
    held_out: int
    settings: HeadSettings
    first_seed: int = FIRST_SEED


NEW_HEAD = HeadPlan(1600, 160, HeadSettings())
TUNED_HEAD = HeadPlan(80, 80, HeadSettings(steps=240, rate=1e-3), FIRST_SEED + 7000)
"""Where a head learns to read an encoder that was only trained further, on scenes that it has not seen yet. As they are
few, its weights end halfway between what they were and what these scenes make of them."""
BALANCED_ON = 600
"""Simulated micrographs on which the shipped head's figure of merit was balanced. Where a head is trained further, the
old balance and the new one count with their micrographs."""


@dataclass(frozen=True)
class TrainingMicrograph:
    """An unlabelled micrograph and what is known of its particles.

    Attributes
    ----------
    path : Path
    diameter_A : float
        Particle diameter in Å.
    pixel_size_A : float or None
        None takes it from the file's header.
    bright : bool
        True where particles are lighter than the ice.
    """

    path: Path
    diameter_A: float
    pixel_size_A: float | None = None
    bright: bool = False


def _silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


def prepare(
    micrographs: Sequence[TrainingMicrograph], mode: Mode, on_stage: Stage = _silent
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
    for at, micrograph in enumerate(micrographs, start=1):
        try:
            pixels = torch.from_numpy(read_image(micrograph.path))
            pixel_size_A = pixel_size_of(micrograph.path, read_header(micrograph.path), micrograph.pixel_size_A)
            pixels = -pixels if micrograph.bright else pixels
            diameter_px = micrograph.diameter_A / pixel_size_A
            if mode == "paper":
                image, frame = preprocess_paper(pixels, diameter_px)
                diameters.append(diameter_px / max(frame.scale))
            else:
                image = flatten_background(pixels, diameter_px, TRAINED_DIAMETER_PX).pixels
                diameters.append(TRAINED_DIAMETER_PX)
            images.append(image)
        except CryoemmaeError as err:
            log.warning("left out: %s", err)
            reasons.append(str(err))
        on_stage(READING, at, len(micrographs))
    if not images:
        raise ImageError("no micrograph to train on: " + ("; ".join(reasons[:3]) or "none was given"))
    return images, diameters


def tile_source(images: Sequence[Tensor], mode: Mode, seed: int = 0) -> TileSource:
    """Return the tiles that a mode is trained on: a fixed grid as published, or random crops."""
    if mode == "paper":
        return GridTiles(images, seed)
    return RandomCrops(images, TRAINED_DIAMETER_PX, TRAINED_DIAMETERS_PX, seed)


def train_model(
    micrographs: Sequence[TrainingMicrograph],
    folder: Path,
    name: str,
    *,
    mode: Mode = "default",
    settings: FitSettings | None = None,
    start: Start | None = None,
    head: HeadPlan | None = None,
    data: str = "",
    device: torch.device | None = None,
    progress: Progress = lambda done, total, loss: None,
    on_stage: Stage = _silent,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Train on unlabelled micrographs and leave a model folder in `folder`; resumes where an earlier call stopped.

    Parameters
    ----------
    micrographs : sequence of TrainingMicrograph
    folder : Path
        Receives the model (card, encoder, clusters, decoder) and, under ``training/``, checkpoint and loss curve.
    name : str
        The model's name.
    start : Start, optional
        The model to train further; a new one by default.
    head : HeadPlan, optional
        By default :data:`TUNED_HEAD` where `start` has a head, else :data:`NEW_HEAD`. Paper mode has none.
    data : str
        What the card says of the data; by default the number of micrographs and their folder.
    progress : callable
        Hears of the training's steps.
    on_stage : callable
        Hears of all that comes before and after them, which takes minutes too.
    should_stop : callable
        Asked before every step.

    Returns
    -------
    Path
        The model folder.

    Raises
    ------
    Interrupted
        When `should_stop` says True.
    OutputError
        When a training with anything else was begun in the folder, or it cannot be written.
    ImageError
        When no micrograph can be used.
    """
    settings = settings or FitSettings()
    device = device or torch.device("cpu")
    plan = head or (TUNED_HEAD if start and start.head else NEW_HEAD)
    begin(folder / "training", _begun(micrographs, mode, start, settings, plan))
    images, diameters = prepare(micrographs, mode, on_stage)
    source = tile_source(images, mode, settings.seed)
    model = fit(
        source,
        settings,
        folder / "training",
        start=start.whole if start else None,
        device=device,
        progress=progress,
        should_stop=should_stop,
    )
    source = source.to(torch.device("cpu"))
    model = model.cpu().eval().half().float()  # what is stored, is what is clustered and scored
    on_stage(CLUSTERING, 0, 1)
    tiles, tile_diameters = _cluster_tiles(source, diameters, mode)
    tokens = encode_tiles(model.encoder, tiles)
    centroids = fit_clusters(tokens, settings.seed)
    particle = find_particle_cluster(tokens, tiles, centroids, tile_diameters)
    on_stage(CLUSTERING, 1, 1)
    draw_loss_curve(folder / "training" / "loss.csv", folder / "training" / "loss.png")
    trained = Trained(model.encoder, source.mean, source.std, torch.from_numpy(centroids), particle, {})
    if mode == "default":
        made = make_head(trained, plan, folder / "training", start.head if start else None, on_stage, should_stop)
        trained.arrays.update(made.arrays())
    card = ModelCard(
        name=name,
        modes=(mode,),
        encoder=model.encoder.config,
        mean=source.mean,
        std=source.std,
        particle_cluster=particle,
        data=data or _describe(micrographs),
        recipe=describe_recipe(settings, len(source)),
        hardware=_hardware(device),
        created=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    )
    encoder, decoder = (
        {key: tensor.half() for key, tensor in part.state_dict().items()} for part in (model.encoder, model.decoder)
    )
    save_model(folder, card, encoder, {"centroids": trained.centroids, **trained.arrays}, decoder)
    return folder


def _begun(
    micrographs: Sequence[TrainingMicrograph], mode: Mode, start: Start | None, settings: FitSettings, plan: HeadPlan
) -> Begun:
    """What this training depends on."""
    states = [start.whole.state_dict(), start.head.state_dict() if start.head else {}] if start else []
    return Begun(
        micrographs=tuple((m.path.name, size_of(m.path), m.diameter_A, m.pixel_size_A, m.bright) for m in micrographs),
        mode=mode,
        start=digits_of(*states) if states else "",
        settings=settings,
        head=repr(plan) if mode == "default" else "",
    )


def make_head(
    model: PickingModel,
    plan: HeadPlan,
    work: Path,
    start: Head | None = None,
    on_stage: Stage = _silent,
    should_stop: Callable[[], bool] = lambda: False,
) -> Head:
    """Train and balance the head that reads a model's tokens; goes on with what an earlier call has left in `work`.

    Raises
    ------
    Interrupted
        When `should_stop` says True.
    """
    seeds = range(plan.first_seed, plan.first_seed + plan.scenes + plan.held_out)
    examples = make_examples(
        model,
        seeds,
        work / "examples",
        progress=partial(on_stage, EXAMINING),
        should_stop=should_stop,
    )
    trained = train_head(
        examples[: plan.scenes],
        plan.settings,
        start=start,
        checkpoint=work / "head.pt",
        progress=lambda done, total, loss: on_stage(JUDGING, done, total),
        should_stop=should_stop,
    )
    held_out = examples[plan.scenes :]
    if start is not None and start.embed_dim == trained.embed_dim:
        trained = calibrate(mean_head(start, trained), held_out)
        trained.calibration.lerp_(start.calibration, BALANCED_ON / (BALANCED_ON + plan.held_out))
    else:
        calibrate(trained, held_out)
    shutil.rmtree(work / "examples", ignore_errors=True)
    return trained


def _cluster_tiles(source: TileSource, diameters: Sequence[float], mode: Mode) -> tuple[Tensor, list[float]]:
    """Tiles for the train-set clusters, and the particle diameter in each."""
    first = 1_000_000_007  # far from any training step
    tiles, sizes = [], []
    for batch in range(CLUSTER_BATCHES):
        drawn = source.draw(first + batch, CLUSTER_BATCH)
        tiles.append(drawn)
        size = sum(diameters) / len(diameters) if mode == "paper" else sum(TRAINED_DIAMETERS_PX) / 2
        sizes += [size] * len(drawn)
    return torch.cat(tiles), sizes


def _describe(micrographs: Sequence[TrainingMicrograph]) -> str:
    folders = sorted({str(m.path.resolve().parent) for m in micrographs})
    return f"{len(micrographs)} unlabelled micrographs from {', '.join(folders)}"


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{torch.get_num_threads()} CPU threads, {platform.machine()}"


@dataclass(frozen=True)
class Trained:
    """A model that is not in a folder yet; see :class:`cryoemmae_plugin.core.model.PickingModel`."""

    encoder: Encoder
    mean: float
    std: float
    centroids: Tensor
    particle_cluster: int
    arrays: dict[str, Tensor]


def describe_recipe(settings: FitSettings, tiles: int) -> str:
    """Say how a model was trained, for its card."""
    return (
        f"masked autoencoder, {MASK_RATIO:.0%} of patches hidden; AdamW, {settings.epochs} epochs of {tiles} tiles in "
        f"batches of {settings.batch}, peak learning rate {settings.rate:g}, {settings.warmup_epochs:g} epochs "
        f"warm-up, cosine to {settings.least_rate:g}, weight decay {settings.weight_decay:g}, seed {settings.seed}"
    )
