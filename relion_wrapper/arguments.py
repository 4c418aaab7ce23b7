"""The command line that RELION makes of an External job's form, and what it asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NoReturn

from pydantic import BeforeValidator, Field

from cryoemmae_plugin.errors import ParameterNames, SettingsError
from cryoemmae_plugin.settings import (
    REPORT_PICTURES,
    ComputeOptions,
    DeviceOptions,
    ExecutorOptions,
    Options,
    ReportPictures,
    RequestedSettings,
    TrainEpochs,
    TrainOn,
    form,
    make_options,
)

_GPUS = form(r"^(auto|cpu|(\d{1,4}([,:]\d{1,4})*)?)$", "0, or 0,1, or 0:1; an empty value is the CPU")
_MAJOR = BeforeValidator(lambda text: re.sub(r"^(\d+\.\d+)\..*$", r"\1", str(text)).removesuffix(".0"))
"""The version that 4.0 and 5.0.1 belong to."""


class JobOptions(Options):
    """What else a job can be asked for. Frozen."""

    gpu: Annotated[str, _GPUS] | None = Field(
        default=None,
        description="GPUs as RELION writes them: 0, or 0,1, or 0:1; cpu for none. [default: the first GPU, if any]",
    )
    train_on: TrainOn = None
    train_epochs: TrainEpochs = None
    report: ReportPictures = REPORT_PICTURES
    rejected: str | None = Field(
        default=None,
        description="With input particles: a STAR file of the particles that 2D classification has dropped. "
        "[default: those that the Select job has not kept]",
    )
    relion_version: Annotated[Literal["auto", "3.1", "4", "5"], _MAJOR] = Field(
        default="auto",
        description="Says how the output is written; auto looks at the project.",
    )


GROUPS = (RequestedSettings, JobOptions, ComputeOptions, ExecutorOptions)
FIELDS = {name.removesuffix("_A"): name for group in GROUPS for name in group.model_fields}
"""Field of each parameter label: ``diameter_A`` of ``diameter``."""

FROM_RELION = ("o", "in_mics", "in_parts", "j", "pipeline_control")
"""What RELION itself puts on the command line."""

OTHER_INPUTS = {
    "in_movies": "movies",
    "in_coords": "coordinates",
    "in_3dref": "a 3D reference",
    "in_mask": "a mask",
}
_CALLED = {"device": "gpu", "threads": "Number of threads"}


def label_of(field: str) -> str | None:
    """The Param label of a settings field; None where RELION's form has none."""
    label = _CALLED.get(field, field.removesuffix("_A"))
    return label if label in (*FIELDS, *_CALLED.values()) else None


PARAMETERS = ParameterNames(
    spell=label_of,
    assign=lambda label, value: f"{label} = {value}",
    instead=dict.fromkeys(("out", "overwrite"), "start a new job"),
)
"""Settings as the Param labels of an External job."""


@dataclass(frozen=True)
class JobArguments:
    """What one External job is asked to do: its folder in the project, its micrographs STAR, and the settings.

    `in_parts` are particles that 2D classification has kept: the model is refined by them.
    """

    folder: Path
    in_mics: Path
    settings: RequestedSettings
    job: JobOptions
    compute: ComputeOptions
    workers: ExecutorOptions
    threads: int
    in_parts: Path | None = None


def find_folder(words: Sequence[str]) -> Path | None:
    """The job's folder, also on a command line with other errors; None if it is missing."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--o" and following and not following.startswith("--"):
            return Path(following)
        if word.startswith("--o="):
            return Path(word[4:])
    return None


def parse_arguments(words: Sequence[str]) -> JobArguments:
    """Read the command line of a job.

    Raises
    ------
    SettingsError
        When something is missing, wrong, or not known here; the message says where to change it in RELION.
    """
    given = _pairs(words)
    for label in given:
        if label not in (*FROM_RELION, *FIELDS):
            _refuse(label)
    for label, missing in _MISSING.items():
        if not given.get(label):
            raise SettingsError(missing)
    if given.get("rejected") and not given.get("in_parts"):
        raise SettingsError("rejected: fill in 'Input particles' too, with the particles that were kept")
    values = {FIELDS[label]: value for label, value in given.items() if label in FIELDS and (value or label == "gpu")}
    settings, job, compute, workers = make_options(values, *GROUPS)
    threads = DeviceOptions(threads=given.get("j") or 0).threads or 0
    in_parts = Path(given["in_parts"]) if given.get("in_parts") else None
    return JobArguments(Path(given["o"]), Path(given["in_mics"]), settings, job, compute, workers, threads, in_parts)


def accepted_labels() -> str:
    """All parameter labels, for messages."""
    return ", ".join(FIELDS)


_MISSING = {
    "o": "--o JOBFOLDER/ is missing: RELION gives it; by hand, run it in the project folder with --o External/jobNNN/",
    "in_mics": "no micrographs: fill in 'Input micrographs' on the Input tab of the External job (--in_mics)",
    "diameter": "the particle's diameter is missing: on the Params tab give Param1 the label diameter and, as its "
    "value, the longest extent of the particle in Å, or auto to have it estimated",
}


def _pairs(words: Sequence[str]) -> dict[str, str]:
    """Labels and values. A label without a value is "", since that is what RELION makes of an empty value."""
    given: dict[str, str] = {}
    label = None
    for word in words:
        if word.startswith("--") and len(word) > 2:
            label, equals, value = word[2:].partition("=")
            label = label.replace("-", "_")
            given[label] = value
            label = None if equals else label
        elif label is None:
            raise SettingsError(
                f"{word!r} on the command line belongs to no label; "
                "a value with a blank in it needs quotation marks inside quotation marks: \"'two words'\""
            )
        else:
            given[label], label = word, None
    return given


def _refuse(label: str) -> NoReturn:
    if label in OTHER_INPUTS:
        raise SettingsError(
            f"--{label}: {OTHER_INPUTS[label]} cannot be used here, particles are picked in micrographs: "
            "fill in 'Input micrographs' (and 'Input particles' to refine), and leave the other inputs of the External "
            "job empty"
        )
    raise SettingsError(f"--{label}: no such parameter. Param labels can be: {accepted_labels()}")
