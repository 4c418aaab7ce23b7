"""What a front end asks the picking service for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from cryoemmae_plugin.run.class_selection import ClassSelection
from cryoemmae_plugin.run.formats import Format, parse_formats
from cryoemmae_plugin.run.store import Existing
from cryoemmae_plugin.settings import (
    AS_SUITS,
    ON_ANY_DEVICE,
    ONE_PROCESS,
    REPORT_PICTURES,
    ComputeOptions,
    DeviceOptions,
    ExecutorOptions,
    OutputOptions,
    RequestedSettings,
    count_of,
    pictures_of,
)
from cryoemmae_plugin.types import Micrograph


def file_of(micrograph: Micrograph) -> AbstractContextManager[Path]:
    """The file of a micrograph on this host's disks."""
    return nullcontext(micrograph.path)


@dataclass(frozen=True)
class OwnModel:
    """A model that the run trains on its own micrographs before it picks.

    Attributes
    ----------
    folder : Path
        Where the model goes. A model that is there already is used as it is.
    name : str
        What to call it.
    micrographs : sequence of Micrograph
        What to train on; no label is needed.
    epochs : int or None
        Passes over the training tiles; None leaves it to the recipe.
    data : str or None
        Where the micrographs come from, for the model's card.
    file_of : callable
        A context manager that gives a micrograph's file for as long as it is entered.
    """

    folder: Path
    name: str
    micrographs: Sequence[Micrograph]
    epochs: int | None = None
    data: str | None = None
    file_of: Callable[[Micrograph], AbstractContextManager[Path]] = file_of


@dataclass(frozen=True)
class Outputs:
    """What the service writes itself, besides the results and the summary.

    Attributes
    ----------
    tables : bool
        ``picks.star`` and ``picks.csv``.
    overlays : int
        How many micrographs to draw with their picks.
    report : int or None
        How many micrographs to draw pictures of for the report; None for no report.
    """

    tables: bool = True
    formats: frozenset[Format] = frozenset()
    overlays: int = 3
    report: int | None = REPORT_PICTURES

    @classmethod
    def of(cls, asked: OutputOptions, *more: Format) -> Outputs:
        """The outputs that options ask for, with files for more programs."""
        formats = parse_formats(asked.formats or "") | {*more}
        return cls(formats=formats, overlays=count_of(asked.overlays), report=pictures_of(asked.report))


NO_OUTPUTS = Outputs(tables=False, overlays=0)
"""For a front end that writes files of its own."""


@dataclass(frozen=True)
class RunRequest:
    """One run: what to pick with, where, and how.

    Attributes
    ----------
    settings : RequestedSettings
        What decides which particles are found; the diameter may be "auto".
    folder : Path
        The result folder.
    existing : Existing
        What to do with results that are there.
    device : DeviceOptions
        Where to compute; several devices take a worker each. Its threads are those of this process; 0 or None leave
        them as they are.
    worker_threads : int or None
        CPU threads of each worker, 0 shares the cores; None is as many as this process has.
    compute : ComputeOptions
        How the network computes, and how many micrographs are read ahead.
    workers : ExecutorOptions
        Where and by how many processes to pick.
    own_model : OwnModel or None
        What to train first.
    selection : ClassSelection or None
        Picks that 2D classification has kept and dropped: the model is refined by them instead of adapted.
    outputs : Outputs
        What to write.
    """

    settings: RequestedSettings
    folder: Path
    existing: Existing = Existing.CONTINUE
    device: DeviceOptions = ON_ANY_DEVICE
    worker_threads: int | None = None
    compute: ComputeOptions = AS_SUITS
    workers: ExecutorOptions = ONE_PROCESS
    own_model: OwnModel | None = None
    selection: ClassSelection | None = None
    outputs: Outputs = Outputs()
