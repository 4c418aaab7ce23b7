"""What differs between RELION 3.1, 4 and 5, and which of them made a project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.star import records_of

Version = Literal["3.1", "4", "5"]


@dataclass(frozen=True)
class Dialect:
    """How one version of RELION wants its output nodes.

    Attributes
    ----------
    version : str
        "3.1", "4" or "5".
    list_name : str
        File that stands for all coordinates of a job.
    lists_micrographs : bool
        Whether it lists micrographs and coordinate files, or only names the micrographs STAR.
    type_column : str
        Label of a node's type in ``RELION_OUTPUT_NODES.star``.
    coordinates_type, logfile_type : str
        The types.
    """

    version: Version
    list_name: str
    lists_micrographs: bool
    type_column: str
    coordinates_type: str
    logfile_type: str


_LABEL, _LOGFILE = "rlnPipeLineNodeTypeLabel", "LogFile.pdf.relion.autopick"

DIALECTS: dict[str, Dialect] = {
    "3.1": Dialect("3.1", "coords_suffix_autopick.star", False, "rlnPipeLineNodeType", "2", "13"),
    "4": Dialect("4", "autopick.star", True, _LABEL, "MicrographsCoords.star.relion.autopick", _LOGFILE),
    "5": Dialect("5", "autopick.star", True, _LABEL, "MicrographCoordsGroup.star.relion.autopick", _LOGFILE),
}
DEFAULT_VERSION = "5"
"""Version to write for outside a RELION project."""

_MICROGRAPHS_OF_4, _MICROGRAPHS_OF_5 = "MicrographsData", "MicrographGroupMetadata"


def detect_version(pipeline: Path) -> Version | None:
    """Tell which RELION wrote a pipeline file (``job_pipeline.star``, ``default_pipeline.star``); None if unknown.

    RELION 3.1 numbers the types of nodes, 4 and 5 label them, and they label micrographs differently.
    """
    try:
        nodes = records_of(pipeline, "pipeline_nodes")
    except InputError:
        return None
    labels = " ".join(row.get(_LABEL, "") for row in nodes)
    if _MICROGRAPHS_OF_5 in labels:
        return "5"
    if _MICROGRAPHS_OF_4 in labels:
        return "4"
    return "3.1" if any("rlnPipeLineNodeType" in row for row in nodes) else None
