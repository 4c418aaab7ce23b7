"""What a Select job has kept, as the second input of a picking job: the picks that refine its model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cryoemmae_plugin.errors import SettingsError
from cryoemmae_plugin.run.class_selection import ClassSelection
from cryoemmae_plugin.run.reading_selection import read_selection
from cryoemmae_plugin.star import records_of
from relion_wrapper.arguments import JobArguments
from relion_wrapper.micrographs import JobMicrograph

JOB_STAR = "job.star"
_CLASSES = re.compile(r"(.*_it\d{3})_(?:model|optimiser|data)\.star")
"""The file of a classification that a Select job was given: the model in RELION 3.1, the optimiser later on."""


def selection_of_job(arguments: JobArguments, micrographs: Sequence[JobMicrograph]) -> ClassSelection | None:
    """What the job's input particles say of picks; None where it has no such input.

    Raises
    ------
    InputError
        When the particles cannot be read, or are not of these micrographs.
    SettingsError
        When the particle's size is left open.
    """
    particles = arguments.in_parts
    if particles is None:
        return None
    diameter_A = arguments.settings.diameter_A
    if isinstance(diameter_A, str):
        raise SettingsError(
            f"diameter is {diameter_A}: with input particles, give the one diameter in Å that they were picked with"
        )
    rejected = Path(arguments.job.rejected) if arguments.job.rejected else all_classified(particles)
    known = [micrograph.micrograph for micrograph in micrographs]
    return read_selection([particles], [rejected] if rejected else None, known, float(diameter_A))


def all_classified(particles: Path) -> Path | None:
    """The particles that a Select job has chosen from, kept and dropped ones; None where nothing tells."""
    for row in records_of(particles.parent / JOB_STAR, "joboptions_values"):
        found = _CLASSES.fullmatch(row.get("rlnJobOptionValue", ""))
        if found and (data := Path(f"{found[1]}_data.star")).is_file():
            return data
    return None
