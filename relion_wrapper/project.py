"""A RELION project, as its own pipeliner keeps it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryoemmae_plugin.errors import InputError, OutputError
from cryoemmae_plugin.star import Row, Table, find_table, read_star

PIPELINE = "default_pipeline.star"
STATUS_OF_3 = {"0": "Running", "1": "Scheduled", "2": "Succeeded", "3": "Failed", "4": "Aborted"}
"""Status numbers of RELION 3.1, in the words of 4 and 5."""

MICROGRAPH_TYPES = ("MicrographsData", "MicrographGroupMetadata", "1")
COORDINATE_TYPES = ("MicrographsCoords", "MicrographCoordsGroup", "2")
"""How the types of such nodes begin: in RELION 4, in 5, and the whole of it in 3.1."""


@dataclass(frozen=True)
class Job:
    """One job: its folder with a slash at the end, its status in words, its output nodes and their types."""

    name: str
    status: str
    outputs: tuple[tuple[str, str], ...]

    @property
    def number(self) -> int:
        """The number in ``jobNNN``; later jobs have larger numbers."""
        found = re.search(r"/job(\d{1,9})", self.name)
        return int(found[1]) if found else 0

    @property
    def kind(self) -> str:
        """The job type before the number: "External", "CtfFind"."""
        return self.name.partition("/")[0]

    @property
    def micrographs(self) -> str | None:
        """Its micrographs STAR, if it has one."""
        return self._output(MICROGRAPH_TYPES)

    @property
    def coordinates(self) -> str | None:
        """The file that stands for its coordinates, if it has any."""
        return self._output(COORDINATE_TYPES)

    def _output(self, types: tuple[str, ...]) -> str | None:
        for node, kind in self.outputs:
            if kind in types or (not kind.isdigit() and kind.startswith(types)):
                return node
        return None


class Project:
    """A RELION project folder.

    Parameters
    ----------
    folder : Path
        With ``default_pipeline.star`` in it.

    Raises
    ------
    InputError
        When it is not a RELION project.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / PIPELINE).is_file():
            raise InputError(
                f"{folder}: not a RELION project (no {PIPELINE} in it); give the folder that RELION is started in"
            )

    def jobs(self) -> list[Job]:
        """All jobs, the latest last.

        Raises
        ------
        InputError
            When the pipeline cannot be read.
        """
        tables = read_star(self.folder / PIPELINE)
        types: dict[str, str] = {}
        if nodes := find_table(tables, "pipeline_nodes"):
            kinds = [
                row.get("rlnPipeLineNodeTypeLabel") or row.get("rlnPipeLineNodeType", "") for row in nodes.records()
            ]
            types = dict(zip(nodes.column("rlnPipeLineNodeName"), kinds, strict=True))
        outputs: dict[str, list[tuple[str, str]]] = {}
        if edges := find_table(tables, "pipeline_output_edges"):
            ends = zip(edges.column("rlnPipeLineEdgeProcess"), edges.column("rlnPipeLineEdgeToNode"), strict=True)
            for process, node in ends:
                outputs.setdefault(process, []).append((node, types.get(node, "")))
        processes = find_table(tables, "pipeline_processes")
        if processes is None:
            return []
        names = processes.column("rlnPipeLineProcessName")
        rows = zip(names, processes.records(), strict=True)
        jobs = [Job(name, _status(row), tuple(outputs.get(name, ()))) for name, row in rows]
        return sorted(jobs, key=lambda job: job.number)

    def job(self, name: str) -> Job:
        """One job.

        Raises
        ------
        InputError
            When the project has none of that name.
        """
        wanted = name.rstrip("/") + "/"
        for job in self.jobs():
            if job.name == wanted:
                return job
        names = ", ".join(job.name.rstrip("/") for job in self.jobs()) or "none"
        raise InputError(f"{self.folder}: no job {name}; there are: {names}")

    def options(self, job: Job) -> dict[str, str]:
        """A job's form, as it was last run."""
        path = self.folder / job.name / "job.star"
        return options_in(read_star(path)) if path.exists() else {}

    def add(self, job_star: Path) -> Job:
        """Add a job by RELION's pipeliner; it does not run yet.

        Raises
        ------
        OutputError
            When RELION does not add it.
        """
        before = {job.name for job in self.jobs()}
        said = self._pipeliner("--addJobFromStar", str(job_star.absolute()))
        added = [job for job in self.jobs() if job.name not in before]
        if len(added) != 1:
            raise OutputError(f"{self.folder}: RELION has not added the job: {said[-500:]}")
        return added[0]

    def run(self, job: Job) -> Job:
        """Run a job, or continue it, and wait for its end; the job with its new status."""
        log = "cryoemmae_" + job.name.strip("/").replace("/", "_")
        (self.folder / f"RUNNING_PIPELINER_default_{log}").unlink(missing_ok=True)  # left by a run that was interrupted
        self._pipeliner("--schedule", log, "--RunJobs", job.name, "--sec_wait_after", "1")
        self.check_completion()
        return self.job(job.name)

    def check_completion(self) -> None:
        """Ask RELION to check which running jobs have ended."""
        self._pipeliner("--check_job_completion")

    def _pipeliner(self, *words: str) -> str:
        """Run RELION's pipeliner in the project; return its output. Its exit status has no meaning."""
        program = shutil.which("relion_pipeliner")
        if program is None:
            raise OutputError(
                "relion_pipeliner is not on the PATH", remedy=("load RELION's module first", "give $dry_run=yes")
            )
        done = subprocess.run(
            [program, *words], cwd=self.folder, capture_output=True, text=True, errors="replace", check=False
        )
        return done.stdout + done.stderr


def options_in(tables: Sequence[Table]) -> dict[str, str]:
    """Return the form of a job, by the names of its options."""
    form = find_table(tables, "joboptions_values")
    if form is None:
        return {}
    return dict(zip(form.column("rlnJobOptionVariable"), form.column("rlnJobOptionValue"), strict=True))


def _status(row: Row) -> str:
    return row.get("rlnPipeLineProcessStatusLabel") or STATUS_OF_3.get(
        row.get("rlnPipeLineProcessStatus", ""), "unknown"
    )
