"""What unfinished adapting or refining leaves in the result folder, so that the next run goes on from there.

Layout::

    DIR/learning/state.json                  what it depends on
    DIR/learning/look-<digits>.safetensors   what was seen on one micrograph
    DIR/learning/*.safetensors, head.pt      micrographs to learn from, and the head in training

Any file may be missing or damaged: it is made again. The result is the same as without interruption.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from cryoemmae_plugin.core.crop_detection import CropDetections
from cryoemmae_plugin.errors import OutputError, StoreError
from cryoemmae_plugin.files import Note, read_note, write_note
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.training.checkpoint import HEAD_FILE, read_checkpoint
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.version import release
from cryoemmae_plugin.weights import Model
from cryoemmae_plugin.weights.tensors import write_tensors

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

STATE_FOLDER = "learning"
NOTE_FILE = "state.json"
_FIELDS = {"pixels", "area", "xy", "chance"}


class Basis(Note):
    """What a model was made of: the model before, and the settings that count."""

    base_sha256: str
    diameter_A: float
    contrast: str
    pixel_size_A: float | None = None

    @classmethod
    def of(cls, settings: PickerSettings, model: Model, **more: Any) -> Self:
        """The note of these settings and this model."""
        chosen = settings.model_dump(include={"diameter_A", "contrast", "pixel_size_A"})
        return cls(base_sha256=model.sha256, **chosen, **more)

    def has_basis(self, settings: PickerSettings, model: Model) -> bool:
        """Whether it was taken with the same settings and model."""
        now = Basis.of(settings, model)
        return all(getattr(self, name) == value for name, value in now)


class StateNote(Basis):
    """What adapting or refining depends on: with anything else, it starts over."""

    release: str
    micrographs: tuple[str, ...]
    selection: str | None


class LearningState:
    """The state of adapting or refining on the disk.

    Parameters
    ----------
    folder : Path
        The result folder, locked.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / STATE_FOLDER

    def begin(
        self, settings: PickerSettings, model: Model, sample: Sequence[Micrograph], selection: str | None = None
    ) -> None:
        """Make the folder, and keep what it holds only where it depends on the same things.

        Parameters
        ----------
        model : Model
            The model that learns.
        sample : sequence of Micrograph
            What it learns from.
        selection : str, optional
            Digest of the picks that 2D classification has kept; None for adapting.

        Raises
        ------
        OutputError
            When it cannot be written.
        """
        now = StateNote.of(
            settings,
            model,
            release=release(),
            micrographs=tuple(_digits_of(micrograph) for micrograph in sample),
            selection=selection,
        )
        before = None
        with suppress(StoreError):  # a note that cannot be read tells of nothing
            before = read_note(self.folder / NOTE_FILE, StateNote, ())
        if before != now:
            self.remove()
            write_note(self.folder / NOTE_FILE, now)
        checkpoint = self.folder / HEAD_FILE
        if checkpoint.exists():
            try:
                read_checkpoint(checkpoint)
            except OutputError as err:
                logger.debug("begun again: %s", err)
                checkpoint.unlink()

    def seen_on(self, micrograph: Micrograph, look: Callable[[], CropDetections]) -> CropDetections:
        """What an earlier run has seen on a micrograph, or else what `look` sees, which is kept."""
        path = self.folder / f"look-{_digits_of(micrograph)}.safetensors"
        with suppress(OSError, SafetensorError):
            kept = load_file(path) if path.is_file() else {}
            if set(kept) == _FIELDS:
                return CropDetections(
                    kept["pixels"].numpy(), float(kept["area"]), kept["xy"].numpy(), kept["chance"].numpy()
                )
        seen = look()
        arrays = {name: torch.from_numpy(getattr(seen, name)) for name in _FIELDS - {"area"}}
        write_tensors(path, arrays | {"area": torch.tensor(seen.area, dtype=torch.float64)})
        return seen

    def remove(self) -> None:
        """Delete what adapting or refining has left here, and nothing else."""
        for path in [self.folder / NOTE_FILE, self.folder / HEAD_FILE, *self.folder.glob("*.safetensors")]:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()


def _digits_of(micrograph: Micrograph) -> str:
    """Tell a micrograph, as it is now, from others."""
    size, time_ns = 0, 0
    with suppress(OSError):
        found = micrograph.path.stat()
        size, time_ns = found.st_size, found.st_mtime_ns
    text = f"{micrograph.path.absolute()}\n{size}\n{time_ns}\n{micrograph.pixel_size_A}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
