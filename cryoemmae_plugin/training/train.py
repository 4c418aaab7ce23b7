"""Train a model on unlabelled micrographs: from files to a model folder, step by step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from cryoemmae_plugin.settings import Mode
from cryoemmae_plugin.training.complete import (
    Description,
    Learned,
    check_skill,
    complete_model,
    describe_hardware,
    show_reconstructions,
)
from cryoemmae_plugin.training.fit import CURVE_FILE, Fitted, Progress, fit, measure_skill
from cryoemmae_plugin.training.mae import ARCHITECTURES, MASK_RATIO, new_autoencoder
from cryoemmae_plugin.training.make_head import NEW_HEAD, TUNED_HEAD, HeadPlan
from cryoemmae_plugin.training.manifest import TrainingManifest, check_manifest, digits_of, size_of
from cryoemmae_plugin.training.pictures import draw_loss_curve
from cryoemmae_plugin.training.prepare import Stage, TrainingMicrograph, prepare, silent, tile_source
from cryoemmae_plugin.training.recipe import FitSettings
from cryoemmae_plugin.training.start import Start
from cryoemmae_plugin.training.tiles import TileSource
from cryoemmae_plugin.weights import TrainingSummary

log = logging.getLogger(__name__)


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
    kept_back: Sequence[TrainingMicrograph] = (),
    device: torch.device | None = None,
    progress: Progress = lambda done, total, skill: None,
    on_stage: Stage = silent,
    should_stop: Callable[[], bool] = lambda: False,
    scenes: Path | None = None,
) -> Path:
    """Train on unlabelled micrographs and leave a model folder in `folder`; resumes where an earlier call stopped.

    Parameters
    ----------
    folder : Path
        Receives the model (card, encoder, clusters, decoder) and, under ``training/``, checkpoint, learning curve and
        pictures.
    start : Start, optional
        The model to train further; a new one by default.
    head : HeadPlan, optional
        By default :data:`TUNED_HEAD` where `start` has a head, else :data:`NEW_HEAD`. Paper mode has none.
    data : str
        What the card says of the data; by default the number of micrographs and their folder.
    kept_back : sequence of TrainingMicrograph
        Micrographs that are not trained on. The card says how well the model restores these.
    progress : callable
        Hears of the training's steps.
    on_stage : callable
        Hears of all that comes before and after them, which takes minutes too.
    scenes : Path, optional
        Folder that keeps the simulated micrographs of the head's training, for several models.

    Returns
    -------
    Path
        The model folder.

    Raises
    ------
    Interrupted
        When `should_stop` says True.
    TrainingError
        When the training diverges, the model has learned nothing, or none of its clusters is the particle; then there
        is no model in `folder`.
    OutputError
        When `folder` holds another training, or cannot be written.
    ImageError
        When no micrograph can be used.
    """
    settings = settings or FitSettings()
    device = device or torch.device("cpu")
    plan = head or (TUNED_HEAD if start and start.head else NEW_HEAD)
    work = folder / "training"
    check_manifest(work, _manifest(micrographs, mode, start, settings, plan))
    images, diameters = prepare(micrographs, mode, on_stage)
    source = tile_source(images, mode, settings.tiles, settings.seed)
    held = _held_source(kept_back, mode, source, on_stage) if kept_back else None
    fitted = fit(
        source,
        settings,
        work,
        start=start.whole if start else new_autoencoder(mode, settings),
        device=device,
        progress=progress,
        should_stop=should_stop,
    )
    summary = _assess(fitted, source, held, settings.least_skill, work)
    recipe = describe_recipe(settings, len(source))
    return complete_model(
        folder,
        mode,
        Learned(fitted.model, source, diameters, summary),
        Description(name, data or _describe(micrographs), recipe, describe_hardware(device)),
        plan=plan,
        start_head=start.head if start else None,
        seed=settings.seed,
        on_stage=on_stage,
        should_stop=should_stop,
        scenes=scenes,
        least_separation=settings.least_separation,
    )


def _assess(
    fitted: Fitted, source: TileSource, held: TileSource | None, least_skill: float, work: Path
) -> TrainingSummary:
    """Measure and draw what an autoencoder has learned; refuse one that has learned nothing."""
    summary = summarise(fitted, source, held)
    draw_loss_curve(work / CURVE_FILE, work / "loss.png")
    show_reconstructions(fitted.model, held or source, work / "reconstructions.png")
    check_skill(summary.skill or 0.0, least_skill, work)
    return summary


def summarise(fitted: Fitted, source: TileSource, held: TileSource | None = None) -> TrainingSummary:
    """Measure what an autoencoder has learned, and say it in the log.

    Parameters
    ----------
    held : TileSource, optional
        Tiles of micrographs that were kept back.
    """
    fitted.model.eval()
    skill = measure_skill(fitted.model, source)
    kept = None if held is None else measure_skill(fitted.model, held)
    log.info(
        "the error on hidden patches is %.0f%% below that of the mean of each tile (skill %.2f)", 100 * skill, skill
    )
    if kept is not None:
        log.info("on micrographs that were kept back, the skill is %.2f", kept)
    return TrainingSummary(
        skill=round(skill, 4),
        kept_back_skill=None if kept is None else round(kept, 4),
        hours=round(fitted.hours, 3),
        curve=fitted.curve.summary(),
    )


def _held_source(
    micrographs: Sequence[TrainingMicrograph], mode: Mode, source: TileSource, on_stage: Stage
) -> TileSource:
    """Tiles of micrographs that are kept back, standardised as the training tiles are."""
    held = tile_source(prepare(micrographs, mode, on_stage)[0], mode)
    held.mean, held.std = source.mean, source.std
    return held


def _manifest(
    micrographs: Sequence[TrainingMicrograph], mode: Mode, start: Start | None, settings: FitSettings, plan: HeadPlan
) -> TrainingManifest:
    """What this training depends on."""
    states = [start.whole.state_dict(), start.head.state_dict() if start.head else {}] if start else []
    return TrainingManifest(
        micrographs=tuple((m.path.name, size_of(m.path), m.diameter_A, m.pixel_size_A, m.bright) for m in micrographs),
        mode=mode,
        start=digits_of(*states) if states else "",
        architecture=repr((start.whole.encoder.config, start.whole.decoder.config) if start else ARCHITECTURES[mode]),
        settings=settings,
        head=repr(plan) if mode == "default" else "",
    )


def _describe(micrographs: Sequence[TrainingMicrograph]) -> str:
    folders = sorted({str(m.path.resolve().parent) for m in micrographs})
    return f"{len(micrographs)} unlabelled micrographs from {', '.join(folders)}"


def describe_recipe(settings: FitSettings, tiles: int) -> str:
    """Say how a model was trained, for its card."""
    total = settings.total_steps(tiles)
    warmup = settings.warmup(tiles)
    how = "random crops" if settings.tiles == "crops" else "a fixed grid of tiles"
    return (
        f"masked autoencoder, {MASK_RATIO:.0%} of patches hidden; AdamW (0.9, {settings.beta2:g}), {total} steps of "
        f"{settings.batch} tiles, {how} ({total * settings.batch / tiles:.0f} epochs of {tiles}), peak "
        f"learning rate {settings.rate:g}, {warmup:g} steps of warm-up, cosine to {settings.least_rate:g}, "
        f"weight decay {settings.weight_decay:g}, gradient norm at most {settings.clip_norm or 'infinite'}, "
        f"query-key gain {settings.query_key_gain:g}, "
        f"seed {settings.seed}"
    )
