"""From stored results to the files that RELION's other jobs read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.errors import StoreError
from cryoemmae_plugin.files import atomic_write
from cryoemmae_plugin.picks.relion_coordinates import COORDINATES_SUFFIX, format_coordinates
from cryoemmae_plugin.run.record import Result
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.star import format_table
from cryoemmae_plugin.types import Picks
from relion_wrapper.dialect import Dialect
from relion_wrapper.micrographs import JobMicrograph

OUTPUT_NODES = "RELION_OUTPUT_NODES.star"
LOGFILE = "logfile.pdf"
SCORE_BINS = 50


@dataclass
class Published:
    """Statistics of the published picks, for the log; without coordinates, so that it stays small.

    Attributes
    ----------
    micrographs : list of JobMicrograph
        Those with a coordinate file, in the order of the input.
    mean_score : list of float
        Their mean figure of merit; NaN where there is no pick.
    score_histogram : ndarray, shape (SCORE_BINS,)
        All picks' figures of merit, from 0 to 1.
    """

    micrographs: list[JobMicrograph] = field(default_factory=list)
    picks: list[int] = field(default_factory=list)
    mean_score: list[float] = field(default_factory=list)
    score_histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(SCORE_BINS, np.int64))

    def add(self, micrograph: JobMicrograph, picks: Picks) -> None:
        """Count one micrograph."""
        self.micrographs.append(micrograph)
        self.picks.append(len(picks))
        self.mean_score.append(float(picks.score.astype(np.float64).mean()) if len(picks) else float("nan"))
        self.score_histogram += np.histogram(picks.score, SCORE_BINS, (0, 1))[0]


def publish_coordinates(
    folder: Path, micrographs: Iterable[JobMicrograph], store: ResultStore, selection: Selection
) -> Published:
    """Write the coordinate file of each micrograph that has a result, and delete that of a micrograph without a result.

    Raises
    ------
    OutputError
        When a file cannot be written.
    """
    published = Published()
    for micrograph in micrographs:
        path = coordinates_path(folder, micrograph)
        result = current_result(store, micrograph)
        if result is None:
            path.unlink(missing_ok=True)
            continue
        picks = selection.picks(result)
        write_if_changed(path, format_coordinates(picks, micrograph.upside_down))
        published.add(micrograph, picks)
    return published


def current_result(store: ResultStore, micrograph: JobMicrograph) -> Result | None:
    """The stored result of a micrograph as it is now; None where there is none."""
    if not store.holds(micrograph.micrograph):
        return None
    try:
        return store.load(micrograph.root)
    except StoreError:
        return None


def coordinates_path(folder: Path, micrograph: JobMicrograph) -> Path:
    """Where RELION looks for a micrograph's coordinates."""
    return folder / f"{micrograph.root}{COORDINATES_SUFFIX}"


def write_list(folder: Path, dialect: Dialect, in_mics: Path, micrographs: Sequence[JobMicrograph]) -> None:
    """Write the file that stands for all coordinates of the job."""
    if dialect.lists_micrographs:
        columns = ("rlnMicrographName", "rlnMicrographCoordinates")
        rows = ((micrograph.name, coordinates_path(folder, micrograph)) for micrograph in micrographs)
        text = "\n# version 30001\n\n" + format_table("coordinate_files", columns, rows)
    else:
        text = f"{in_mics}\n"
    write_if_changed(folder / dialect.list_name, text)


def write_output_nodes(folder: Path, dialect: Dialect, *, logfile: bool) -> None:
    """Write the list of the job's output nodes for RELION."""
    nodes = [(folder / dialect.list_name, dialect.coordinates_type)]
    if logfile:
        nodes.append((folder / LOGFILE, dialect.logfile_type))
    text = "\n# version 30001\n\n" + format_table("output_nodes", ("rlnPipeLineNodeName", dialect.type_column), nodes)
    write_if_changed(folder / OUTPUT_NODES, text)


def write_if_changed(path: Path, text: str) -> None:
    """Write `text` into `path`, unless it has this content already."""
    with suppress(OSError):
        if path.read_bytes() == text.encode():
            return
    with atomic_write(path) as file:
        file.write(text)
