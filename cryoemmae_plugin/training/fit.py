"""Fit a masked autoencoder to unlabelled tiles: schedule, checkpoints, resume.

Source: Zamanos et al. 2025, "Implementation details"; the schedule is MAE's own (linear warm-up, half a cosine).
"""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from cryoemmae_plugin.device import multiplies_bfloat16
from cryoemmae_plugin.errors import Interrupted, OutputError
from cryoemmae_plugin.files import atomic_write, atomic_write_binary
from cryoemmae_plugin.training.mae import MASK_RATIO, MaskedAutoencoder
from cryoemmae_plugin.training.tiles import TileSource

log = logging.getLogger(__name__)

Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss) after every step, on a GPU after every few."""

GPU_STEPS = 10
"""Steps on a GPU from one look at the losses to the next: each look waits for it."""

LOG_EVERY_S = 60.0
"""Seconds between two lines of the log."""


class FitSettings(BaseModel):
    """The training recipe; the defaults are the published one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=400, ge=1, title="Epochs", description="Passes over the training tiles.")
    batch: int = Field(default=128, ge=1, title="Batch", description="Tiles in a step.")
    base_rate: float = Field(
        default=1e-3, gt=0, title="Base learning rate", description="Learning rate for a batch of 256."
    )
    least_rate: float = Field(default=1e-6, ge=0, title="Least learning rate", description="Where the cosine ends.")
    warmup_epochs: float = Field(default=5.0, ge=0, title="Warm-up", description="Epochs of linear warm-up.")
    weight_decay: float = Field(
        default=1e-5, ge=0, title="Weight decay", description="AdamW's, not on biases and norms."
    )
    seed: int = Field(
        default=0, ge=0, title="Seed", description="Of the weights, the masks and the order of the tiles."
    )
    checkpoint_steps: int = Field(default=100, ge=1, title="Checkpoint", description="Steps between two checkpoints.")

    @property
    def rate(self) -> float:
        """Peak learning rate."""
        return self.base_rate * self.batch / 256

    def rate_at(self, epoch: float) -> float:
        """Learning rate at a fractional epoch."""
        if epoch < self.warmup_epochs:
            return self.rate * epoch / self.warmup_epochs
        done = (epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-9)
        return self.least_rate + (self.rate - self.least_rate) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def fit(
    source: TileSource,
    settings: FitSettings,
    folder: Path,
    *,
    start: MaskedAutoencoder | None = None,
    device: torch.device | None = None,
    progress: Progress = lambda done, total, loss: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> MaskedAutoencoder:
    """Train, or go on where an earlier call with the same settings and folder stopped.

    Parameters
    ----------
    source : TileSource
        Training tiles.
    folder : Path
        Receives ``checkpoint.pt`` and ``loss.csv``.
    start : MaskedAutoencoder, optional
        Model to fine-tune; by default a new one, initialised from the seed.
    should_stop : callable
        Asked after every step; when it says True a checkpoint is written and :class:`Interrupted` raised.

    Returns
    -------
    MaskedAutoencoder
        On `device`, in training mode.
    """
    device = device or torch.device("cpu")
    torch.manual_seed(settings.seed)
    model = (start or MaskedAutoencoder()).to(device).train()
    source = source.to(device)
    optimizer = torch.optim.AdamW(
        _groups(model, settings.weight_decay), lr=settings.rate, betas=(0.9, 0.999), fused=device.type == "cuda"
    )
    steps_an_epoch = max(1, len(source) // settings.batch)
    total = steps_an_epoch * settings.epochs
    checkpoint = folder / "checkpoint.pt"
    first = _resume(checkpoint, model, optimizer, settings, device)
    losses = _LossLog(folder / "loss.csv", keep=first)
    pace = _Pace(settings.batch, first, total)
    patches = model.encoder.config.grid**2
    look_steps = GPU_STEPS if device.type == "cuda" else 1
    for step in range(first, total):
        rate = settings.rate_at((step + 1) / steps_an_epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        noise = torch.rand(
            settings.batch, patches, generator=torch.Generator().manual_seed(settings.seed * 7919 + step)
        )
        tiles = source.draw(step, settings.batch)
        with _fastest(device):
            loss, _, _ = model(tiles, noise[: len(tiles)].to(device), MASK_RATIO)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.add(step + 1, rate, loss.detach())
        if (step + 1) % look_steps == 0 or step + 1 == total:
            value = losses.last()
            progress(step + 1, total, value)
            pace.tell(step + 1, value)
        stop = should_stop()
        if stop or (step + 1) % settings.checkpoint_steps == 0 or step + 1 == total:
            losses.flush()
            _save(checkpoint, model, optimizer, settings, step + 1)
        if stop and step + 1 < total:
            raise Interrupted(f"training stopped after step {step + 1} of {total}; run the same command again to go on")
    return model


def _fastest(device: torch.device) -> torch.autocast:
    """Half precision for matrix products on a GPU that has bfloat16; norms, loss, weights, optimiser stay float32."""
    able = device.type == "cuda" and multiplies_bfloat16(device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=able)


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay on matrices only: not on biases, norms and single tokens."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, settings: FitSettings, step: int) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    write_checkpoint(path, state | {"settings": settings.model_dump_json()})


def write_checkpoint(path: Path, state: Mapping[str, object]) -> None:
    """Write a training's state so that a kill at any instant leaves the old or the new one.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    with atomic_write_binary(path) as file:
        torch.save(dict(state), file)


def _resume(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, settings: FitSettings, device: torch.device
) -> int:
    """Load a checkpoint if there is one; the number of steps that it has behind it."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location=device, weights_only=True)
    if FitSettings.model_validate_json(state["settings"]).model_dump(
        exclude={"checkpoint_steps"}
    ) != settings.model_dump(exclude={"checkpoint_steps"}):
        raise OutputError(
            f"{path}: begun with other settings", remedy=("choose another $out", "delete the file to start over")
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


class _LossLog:
    """The loss curve as ``step,rate,loss`` lines."""

    def __init__(self, path: Path, keep: int) -> None:
        self._path = path
        self._rows: list[tuple[int, str, str]] = []
        self._unread: list[tuple[int, float, torch.Tensor]] = []
        if keep and path.exists():
            with path.open(newline="") as file:
                rows = [(int(row["step"]), row["rate"], row["loss"]) for row in csv.DictReader(file)]
            self._rows = [row for row in rows if row[0] <= keep]

    def add(self, step: int, rate: float, loss: torch.Tensor) -> None:
        """Note a loss without looking at it: the GPU goes on meanwhile."""
        self._unread.append((step, rate, loss))

    def last(self) -> float:
        """Look at what was noted; the last loss."""
        values = torch.stack([loss for _, _, loss in self._unread]).tolist()
        for (step, rate, _), value in zip(self._unread, values, strict=True):
            self._rows.append((step, f"{rate:.3e}", f"{value:.5f}"))
        self._unread.clear()
        return float(values[-1])

    def flush(self) -> None:
        if self._unread:
            self.last()
        with atomic_write(self._path) as file:
            csv.writer(file, lineterminator="\r\n").writerows([("step", "rate", "loss"), *self._rows])


class _Pace:
    """Says in the log from time to time how fast the training is."""

    def __init__(self, batch: int, first: int, total: int) -> None:
        self._batch, self._total = batch, total
        self._start = self._said = time.monotonic()
        self._first = first

    def tell(self, done: int, loss: float) -> None:
        now = time.monotonic()
        if now - self._said < LOG_EVERY_S and done < self._total:
            return
        self._said = now
        pace = (done - self._first) * self._batch / max(now - self._start, 1e-9)
        log.info("step %d of %d, loss %.4f, %.1f tiles/s", done, self._total, loss, pace)
