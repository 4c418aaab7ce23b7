"""What a run sends to its workers: text and numbers only."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from cryoemmae_plugin.errors import ModelError
from cryoemmae_plugin.run.store import RunRecord
from cryoemmae_plugin.settings import AS_SUITS, ComputeOptions
from cryoemmae_plugin.types import Micrograph

if TYPE_CHECKING:
    from cryoemmae_plugin.run.stream import ImagePicker

PROBE_FILE = ".probe"
"""File in the result folder, while a run with workers lasts, that holds the token of the run."""

Row = tuple[str, "float | None", str]
"""A micrograph as plain values: path, Å per pixel, uid."""


class RunSpec(BaseModel):
    """How a run picks: everything that a worker needs to pick in the same way.

    Attributes
    ----------
    version : str
        This package's version in the run; a worker with another version refuses.
    model : str
        Name of a model, or absolute path of its folder.
    folder, base : Path
        Result folder, and folder where relative paths of micrographs start; absolute.
    sample : str
        A micrograph that the run sees and a worker must see too; "" for none.
    token : str
        Content of the probe file in the result folder.
    device : str
        As for :func:`cryoemmae_plugin.device.choose_device`, on the worker.
    threads : int
        CPU threads of a worker; 0 leaves the choice to the worker.
    jobs : int
        Micrographs that a worker reads ahead.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    version: str
    host: str
    record: RunRecord
    model: str
    folder: Path
    base: Path
    sample: str
    token: str
    device: str = "auto"
    threads: int = 0
    jobs: int = 2
    compute: ComputeOptions = AS_SUITS


MakePicker = Callable[[RunSpec], "ImagePicker"]
"""Makes the picker on the worker; a function that workers can import."""


@dataclass(frozen=True)
class Batch:
    """Consecutive micrographs that a worker picks together.

    Attributes
    ----------
    first : int
        Index of the first one in the list of the run.
    """

    first: int
    micrographs: Sequence[Micrograph]

    def rows(self) -> list[Row]:
        """Return the micrographs as plain values."""
        return [(str(m.path), m.pixel_size_A, m.uid) for m in self.micrographs]

    @classmethod
    def from_rows(cls, first: int, rows: Sequence[Row]) -> Batch:
        """Make a batch from what :meth:`rows` returned."""
        return cls(first, [Micrograph(Path(path), pixel_size_A, uid) for path, pixel_size_A, uid in rows])


def build_picker(spec: RunSpec) -> ImagePicker:
    """Load the model onto the device.

    Raises
    ------
    DeviceError, ModelError
        When device or model are not on this host, or when the model is not that of the run.
    """
    from cryoemmae_plugin.core.picker import CandidatePicker
    from cryoemmae_plugin.device import choose_device
    from cryoemmae_plugin.weights import load_model

    device = choose_device(spec.device)
    try:
        model = load_model(spec.model)
    except ModelError as err:
        raise ModelError(
            err.what, remedy="put the model where all workers see it, and give its folder with $model"
        ) from err
    if model.sha256 != spec.record.model_sha256:
        raise ModelError(
            f"{spec.model}: another model here (sha256 {model.sha256[:12]}) than on {spec.host} "
            f"({spec.record.model_sha256[:12]})",
            remedy="give a folder that all workers see with $model",
        )
    return CandidatePicker(model, spec.record.settings, device, spec.compute)


def host_name() -> str:
    """Return the name of this host."""
    return socket.gethostname()


Answer = dict[str, Any]
"""A worker's answer to a batch: "host", and either "outcomes", "seconds" and "warnings", or "error" and "text"."""
