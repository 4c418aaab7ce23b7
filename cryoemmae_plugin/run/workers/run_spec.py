"""What a worker must know to pick as its run does, as plain text: nothing but text and numbers travels."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from cryoemmae_plugin.compute import AS_SUITS, ComputeOptions
from cryoemmae_plugin.errors import ModelError
from cryoemmae_plugin.run.store import RunRecord
from cryoemmae_plugin.types import Micrograph

if TYPE_CHECKING:
    from cryoemmae_plugin.run.stream import ImagePicker

PROBE_FILE = ".probe"
"""In the result folder while a run with workers goes on: holds the spec's token."""

Row = tuple[str, "float | None", str]
"""A micrograph on its way to a worker: path, Å per pixel, uid."""


class RunSpec(BaseModel):
    """How a run picks, for its workers.

    Attributes
    ----------
    version : str
        This package's version in the run; a worker of another one refuses.
    host : str
        Where the run is.
    record : RunRecord
        Settings, and the model's identity.
    model : str
        Name of a model, or absolute path of its folder.
    folder, base : Path
        Result folder, and where relative paths of micrographs start; absolute.
    sample : str
        A micrograph that the run sees, so that a worker must see it too; "" for none.
    token : str
        What the probe file in the result folder holds.
    device : str
        As for :func:`cryoemmae_plugin.device.choose_device`, on the worker.
    threads : int
        CPU threads of a worker; 0 leaves it to the worker.
    jobs : int
        Micrographs that a worker reads ahead.
    compute : ComputeOptions
        How a worker computes.
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
"""Makes what picks, on the worker; a function that workers can import."""


@dataclass(frozen=True)
class Batch:
    """Some neighbours on the list of micrographs: what a worker gets at a time.

    Attributes
    ----------
    first : int
        Place of the first one on the list.
    micrographs : sequence of Micrograph
        The neighbours.
    """

    first: int
    micrographs: Sequence[Micrograph]

    def rows(self) -> list[Row]:
        """The micrographs as plain values."""
        return [(str(m.path), m.pixel_size_A, m.uid) for m in self.micrographs]

    @classmethod
    def from_rows(cls, first: int, rows: Sequence[Row]) -> Batch:
        """The batch that :meth:`rows` stands for."""
        return cls(first, [Micrograph(Path(path), pixel_size_A, uid) for path, pixel_size_A, uid in rows])


def build_picker(spec: RunSpec) -> ImagePicker:
    """Load the spec's model onto the spec's device.

    Raises
    ------
    DeviceError, ModelError
        When one of them is not here; also when the model is here, but is not that of the run.
    """
    from cryoemmae_plugin.core.picker import Picker
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
    return Picker(model, spec.record.settings, device, spec.compute)


def host_name() -> str:
    """Name of the machine that this runs on."""
    return socket.gethostname()


Answer = dict[str, Any]
"""What a worker returns for a batch: "host", and either "outcomes" and "seconds", or "error" and "text"."""
