"""Fit a masked autoencoder to unlabelled tiles: steps, checkpoints, resume.

Source: Zamanos et al. 2025, "Implementation details"; the schedule is MAE's own (linear warm-up, half a cosine).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import nn

from cryoemmae_plugin.device import multiplies_bfloat16
from cryoemmae_plugin.errors import DeviceError, Interrupted, OutputError, TrainingError
from cryoemmae_plugin.training.checkpoint import read_checkpoint, restoring, write_checkpoint
from cryoemmae_plugin.training.curve import LearningCurve, skill_of
from cryoemmae_plugin.training.mae import MASK_RATIO, MaskedAutoencoder, trivial_error
from cryoemmae_plugin.training.recipe import Arithmetic, FitSettings
from cryoemmae_plugin.training.tiles import TileSource

log = logging.getLogger(__name__)

Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, skill of the latest steps) after every step, on a GPU after every few."""

GPU_STEPS = 10
"""Steps on a GPU from one look at the losses to the next: each look waits for it."""
LOG_EVERY_S = 60.0
"""Seconds between two lines of the log."""
CHECKPOINT_FILE, CURVE_FILE = "checkpoint.pt", "loss.csv"
UNSEEN_STEP = 1_000_000_007
"""Tiles of steps from here on are never trained on."""
MEASURED_BATCHES, MEASURED_BATCH = 16, 32
"""Tiles that a skill is measured on."""


@dataclass(frozen=True)
class Fitted:
    """A trained autoencoder and how it came about.

    Attributes
    ----------
    model : MaskedAutoencoder
        On the device of the training, in training mode.
    hours : float
        Time in training steps, over all calls.
    """

    model: MaskedAutoencoder
    curve: LearningCurve
    hours: float


def fit(
    source: TileSource,
    settings: FitSettings,
    folder: Path,
    *,
    start: MaskedAutoencoder,
    device: torch.device | None = None,
    progress: Progress = lambda done, total, skill: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Fitted:
    """Train, or go on where an earlier call with the same settings and folder stopped.

    Parameters
    ----------
    folder : Path
        Receives ``checkpoint.pt`` and ``loss.csv``.
    start : MaskedAutoencoder
        Model to train.
    should_stop : callable
        Asked after every step. When it says True, a checkpoint is written and :class:`Interrupted` raised.

    Raises
    ------
    TrainingError
        The loss is no longer a finite number. The last good checkpoint stays.
    DeviceError
        The GPU has not enough memory.
    OutputError
        The checkpoint is damaged, of other settings, or cannot be written.
    """
    device = device or torch.device("cpu")
    torch.manual_seed(settings.seed)
    try:
        training = _Training(start.to(device).train(), source.to(device), settings, folder)
        for step in range(training.done, training.total):
            training.step(step)
            stop, last = should_stop(), step + 1 == training.total
            save = stop or last or (step + 1) % settings.checkpoint_steps == 0
            if save or device.type != "cuda" or (step + 1) % GPU_STEPS == 0:
                training.look(step + 1)
                progress(step + 1, training.total, training.curve.recent().skill)
            if save:
                training.save(step + 1)
            if stop and not last:
                raise Interrupted(
                    f"training stopped after step {step + 1} of {training.total}; to resume, run the same command again"
                )
    except torch.cuda.OutOfMemoryError as err:
        raise DeviceError(
            f"{device}: not enough memory to train with {settings.batch} tiles in a step. The last checkpoint is kept",
            remedy=("free the GPU (nvidia-smi shows who uses it)", "choose a smaller $batch", "choose another $device"),
        ) from err
    return Fitted(training.model, training.curve, training.hours)


def measure_skill(model: MaskedAutoencoder, source: TileSource) -> float:
    """Skill of a model on tiles of a source that no training step draws; the same tiles and masks at every call."""
    device, patches = next(model.parameters()).device, model.encoder.config.grid**2
    error = trivial = 0.0
    for at in range(MEASURED_BATCHES):
        tiles = source.draw(UNSEEN_STEP + at, MEASURED_BATCH).to(device)
        noise = torch.rand(MEASURED_BATCH, patches, generator=torch.Generator().manual_seed(at))[: len(tiles)]
        with torch.no_grad():
            loss, _, hidden = model(tiles, noise.to(device), MASK_RATIO)
        error += float(loss)
        trivial += float(trivial_error(model.patchify(tiles), hidden))
    return skill_of(error, trivial)


class _Training:
    """What a training consists of while it runs."""

    def __init__(self, model: MaskedAutoencoder, source: TileSource, settings: FitSettings, folder: Path) -> None:
        self.model, self._source, self._settings = model, source, settings
        self._device = next(model.parameters()).device
        self._optimizer = torch.optim.AdamW(
            _groups(model, settings.weight_decay),
            lr=settings.rate,
            betas=(0.9, settings.beta2),
            fused=self._device.type == "cuda",
        )
        self.total = settings.total_steps(len(source))
        self._checkpoint = folder / CHECKPOINT_FILE
        self._seconds = 0.0
        self.done = self._resume()
        self._saved = self.done
        self.curve = LearningCurve(folder / CURVE_FILE, keep=self.done)
        self._pace = _Pace(settings.batch, self.done, self.total)
        self._begun = time.monotonic()

    @property
    def hours(self) -> float:
        """Time in training, that of earlier calls included."""
        return (self._seconds + time.monotonic() - self._begun) / 3600

    def step(self, step: int) -> None:
        """Do one step; the first one is step 0."""
        settings = self._settings
        rate = settings.rate_at(step + 1, len(self._source))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        seed = torch.Generator().manual_seed(settings.seed * 7919 + step)
        noise = torch.rand(settings.batch, self.model.encoder.config.grid**2, generator=seed)
        tiles = self._source.draw(step, settings.batch)
        with fastest(self._device, settings.precision):
            loss, _, hidden = self.model(tiles, noise[: len(tiles)].to(self._device), MASK_RATIO)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm or math.inf)
        self._optimizer.step()
        self.curve.add(step + 1, rate, loss.detach(), trivial_error(self.model.patchify(tiles), hidden), norm.detach())

    def look(self, done: int) -> None:
        """Take in the figures of the latest steps; TrainingError where they are not finite."""
        self.curve.look()
        if self.curve.diverged_at is not None:
            self.curve.write()
            kept = f". {self._checkpoint} of step {self._saved} is the last good one" if self._saved else ""
            raise TrainingError(
                f"training diverged: at step {self.curve.diverged_at} of {self.total} the loss is no longer a finite "
                f"number{kept}",
                remedy=f"start over in another folder with a $rate below {self._settings.rate:g}",
            )
        self._pace.tell(done, self.curve)

    def save(self, done: int) -> None:
        """Write curve and checkpoint."""
        self.curve.write()
        state = {"model": self.model.state_dict(), "optimizer": self._optimizer.state_dict(), "step": done}
        more = {"settings": self._settings.model_dump_json(), "seconds": self.hours * 3600}
        write_checkpoint(self._checkpoint, state | more)
        self._saved = done

    def _resume(self) -> int:
        """Load a checkpoint if there is one; the number of steps that it has behind it."""
        if not self._checkpoint.exists():
            return 0
        state = read_checkpoint(self._checkpoint)
        try:
            same = FitSettings.model_validate_json(state["settings"]).same_weights_as(self._settings)
        except (KeyError, ValidationError):
            same = False
        if not same:
            raise OutputError(
                f"{self._checkpoint}: made with other settings or by an earlier release",
                remedy=("choose another $out", "delete this file to start over"),
            )
        with restoring(self._checkpoint):
            self.model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._seconds = float(state.get("seconds", 0.0))
            return int(state["step"])


def fastest(device: torch.device, precision: Arithmetic = "auto") -> torch.autocast:
    """Autocast for matrix products: bfloat16 where it is asked for or, by default, where the device multiplies in it.

    Norms, loss, weights and optimiser stay float32.
    """
    able = multiplies_bfloat16(device) if precision == "auto" else precision == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=able)


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay on matrices only: not on biases, norms and single tokens."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


class _Pace:
    """Says in the log from time to time how the training goes."""

    def __init__(self, batch: int, first: int, total: int) -> None:
        self._batch, self._total = batch, total
        self._start = self._said = time.monotonic()
        self._first = first

    def tell(self, done: int, curve: LearningCurve) -> None:
        now = time.monotonic()
        if now - self._said < LOG_EVERY_S and done < self._total:
            return
        self._said = now
        pace = (done - self._first) * self._batch / max(now - self._start, 1e-9)
        mean = curve.recent()
        log.info(
            "step %d of %d, loss %.4f, trivial predictor %.4f, skill %.3f, %.1f tiles/s",
            *(done, self._total, mean.loss, mean.trivial, mean.skill, pace),
        )
