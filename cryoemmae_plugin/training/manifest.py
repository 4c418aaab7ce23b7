"""The training manifest: all that the weights depend on. A training only resumes with the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from cryoemmae_plugin.errors import OutputError
from cryoemmae_plugin.files import Note, read_note, write_note
from cryoemmae_plugin.settings import Mode
from cryoemmae_plugin.training.recipe import FitSettings

MANIFEST_FILE = "manifest.json"


class TrainingManifest(Note):
    """All that the weights depend on.

    Attributes
    ----------
    micrographs : tuple of (name, bytes, diameter in Å, pixel size in Å, whether particles are bright)
        Names without their folders, which may be mounted elsewhere by now.
    mode
    start : str
        Digits of the weights that are trained further; empty for new ones.
    architecture : str
        Dimensions of encoder and decoder.
    head : str
        How the head is made.
    """

    micrographs: tuple[tuple[str, int, float, float | None, bool], ...]
    mode: Mode
    start: str
    architecture: str
    settings: FitSettings
    head: str

    def differs_in(self, other: TrainingManifest) -> list[str]:
        """Names of what is not the same. Settings that do not change the weights do not count."""
        mine, theirs = (one.model_dump(exclude={"settings"}) for one in (self, other))
        names = [name for name in mine if mine[name] != theirs[name]]
        return names if self.settings.same_weights_as(other.settings) else [*names, "settings"]


def check_manifest(folder: Path, now: TrainingManifest) -> None:
    """Write the manifest of a training, or make sure that the one in `folder` is the same.

    Raises
    ------
    OutputError
        When `folder` holds another training, or the manifest cannot be written.
    """
    path = folder / MANIFEST_FILE
    remedy = ("choose another name or $out", f"delete {folder} to start over")
    before = read_note(path, TrainingManifest, remedy)
    if before is not None:
        if different := before.differs_in(now):
            raise OutputError(f"{folder} holds a training with other {', '.join(different)}", remedy=remedy)
        return
    if any(folder.glob("*.pt")):
        raise OutputError(f"{folder} holds a training of an earlier release", remedy=remedy)
    write_note(path, now)


def digits_of(*states: Mapping[str, Tensor]) -> str:
    """Tell weights from others."""
    digest = hashlib.sha256()
    for state in states:
        for name, tensor in sorted(state.items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def size_of(path: Path) -> int:
    """Bytes of a file; -1 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
