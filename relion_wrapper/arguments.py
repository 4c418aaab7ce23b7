"""The command line that RELION makes of an External job's form, and what it asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from pydantic import Field

from cryoemmae_plugin.errors import ParameterNames, SettingsError
from cryoemmae_plugin.settings import (
    AS_SUITS,
    ONE_PROCESS,
    REPORT_PICTURES,
    ComputeOptions,
    ExecutorOptions,
    Options,
    OutputOptions,
    ReportPictures,
    RequestedSettings,
    TrainEpochs,
    TrainOn,
)
from relion_wrapper.dialect import DIALECTS

SETTINGS = {name.removesuffix("_A"): name for name in RequestedSettings.model_fields}
"""Parameter label of each setting: ``diameter`` for ``diameter_A``."""


class JobOptions(Options):
    """What else a job can be asked for. Frozen."""

    gpu: str | None = Field(
        default=None,
        title="GPU",
        description="GPUs as RELION writes them: 0, or 0,1, or 0:1; cpu for none. [default: the first GPU, if any]",
    )
    train_on: TrainOn = None
    train_epochs: TrainEpochs = None
    report: ReportPictures = REPORT_PICTURES
    relion_version: Literal["auto", "3.1", "4", "5"] = Field(
        default="auto",
        title="RELION version",
        description="Says how the output is written; auto looks at the project.",
    )


OWN = tuple(JobOptions.model_fields)
"""Parameter labels of the job itself."""

WORKERS = tuple(ExecutorOptions.model_fields)
"""Parameter labels about workers."""

COMPUTE = tuple(ComputeOptions.model_fields)
"""Parameter labels about how to compute."""

FROM_RELION = ("o", "in_mics", "j", "pipeline_control")
"""What RELION itself puts on the command line."""

OTHER_INPUTS = {
    "in_movies": "movies",
    "in_parts": "particles",
    "in_coords": "coordinates",
    "in_3dref": "a 3D reference",
    "in_mask": "a mask",
}
AUTO, CPU = "auto", "cpu"
_CALLED = {"device": "gpu", "threads": "Number of threads"}


def label_of(field: str) -> str | None:
    """The Param label of a settings field; None where RELION's form has none."""
    label = _CALLED.get(field, field.removesuffix("_A"))
    return label if label in (*SETTINGS, *OWN, *COMPUTE, *WORKERS, *_CALLED.values()) else None


PARAMETERS = ParameterNames(
    spell=label_of,
    assign=lambda label, value: f"{label} = {value}",
    instead=dict.fromkeys(("out", "overwrite"), "start a new job"),
)
"""Settings as the Param labels of an External job."""


@dataclass(frozen=True)
class JobArguments:
    """What one External job is asked to do.

    Attributes
    ----------
    folder : Path
        The job's folder, relative to the project (``--o``).
    in_mics : Path
        Micrographs STAR.
    settings : RequestedSettings
        What is to be picked; the diameter may be "auto".
    devices : tuple of str
        Where to compute: "auto", "cpu", or one "cuda:N" or several.
    threads : int
        CPU threads; 0 for all.
    train_on : int
        Micrographs to train on first; 0 for none.
    train_epochs : int or None
        Passes over the training tiles.
    report : int, "all" or "none"
        Of how many micrographs the report shows pictures.
    relion_version : str
        "auto", "3.1", "4" or "5".
    compute : ComputeOptions
        How to compute.
    workers : ExecutorOptions
        Where and by how many processes to pick.
    """

    folder: Path
    in_mics: Path
    settings: RequestedSettings
    devices: tuple[str, ...] = (AUTO,)
    threads: int = 0
    train_on: int = 0
    train_epochs: int | None = None
    report: ReportPictures = REPORT_PICTURES
    relion_version: str = AUTO
    compute: ComputeOptions = AS_SUITS
    workers: ExecutorOptions = ONE_PROCESS


def find_folder(words: Sequence[str]) -> Path | None:
    """The job's folder on a command line that may be wrong otherwise; None where there is none."""
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
        if label not in (*FROM_RELION, *SETTINGS, *OWN, *COMPUTE, *WORKERS):
            _refuse(label)
    for label in ("o", "in_mics"):
        if not given.get(label):
            raise SettingsError(_MISSING[label])
    return JobArguments(
        folder=Path(given["o"]),
        in_mics=Path(given["in_mics"]),
        settings=_settings(given),
        devices=parse_gpu(given["gpu"]) if "gpu" in given else (AUTO,),
        threads=_whole(given, "j", 0),
        train_on=_whole(given, "train_on", 0),
        train_epochs=_whole(given, "train_epochs", 1) if given.get("train_epochs") else None,
        report=_report(given),
        relion_version=_version(given.get("relion_version") or AUTO),
        compute=ComputeOptions(**{label: given[label] for label in COMPUTE if given.get(label)}),
        workers=_workers(given),
    )


def parse_gpu(text: str) -> tuple[str, ...]:
    """Devices that RELION's way of writing GPUs stands for; "" is the CPU.

    Raises
    ------
    SettingsError
        When it is not a list of numbers.
    """
    if text in ("", CPU):
        return (CPU,)
    if text == AUTO:
        return (AUTO,)
    if not re.fullmatch(r"\d{1,4}([,:]\d{1,4})*", text):
        raise SettingsError(f"gpu is {text!r}: write GPUs as 0, or 0,1, or 0:1, or leave the value empty for the CPU")
    return tuple(dict.fromkeys(f"cuda:{int(number)}" for number in re.split("[,:]", text)))


def accepted_labels() -> str:
    """All parameter labels, for messages."""
    return ", ".join([*SETTINGS, *OWN, *COMPUTE, *WORKERS])


_MISSING = {
    "o": "--o JOBFOLDER/ is missing: RELION gives it; by hand, run it in the project folder with --o External/jobNNN/",
    "in_mics": "no micrographs: fill in 'Input micrographs' on the Input tab of the External job (--in_mics)",
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
            "fill in 'Input micrographs' only, and leave the other inputs of the External job empty"
        )
    raise SettingsError(f"--{label}: no such parameter. Param labels can be: {accepted_labels()}")


def _settings(given: dict[str, str]) -> RequestedSettings:
    if not given.get("diameter"):
        raise SettingsError(
            "the particle's diameter is missing: on the Params tab give Param1 the label diameter and, as its value, "
            "the longest extent of the particle in Å, or auto to have it estimated"
        )
    return RequestedSettings(**{field: given[label] for label, field in SETTINGS.items() if given.get(label)})


def _workers(given: dict[str, str]) -> ExecutorOptions:
    return ExecutorOptions(**{label: given[label] for label in WORKERS if given.get(label)})


def _report(given: dict[str, str]) -> ReportPictures:
    return OutputOptions(report=given.get("report") or REPORT_PICTURES).report


def _whole(given: dict[str, str], label: str, least: int) -> int:
    text = given.get(label) or str(least)
    if not text.isdecimal() or int(text) < least:
        raise SettingsError(f"{label} is {text!r}: give a whole number of at least {least}")
    return int(text)


def _version(text: str) -> str:
    major_minor = ".".join(text.split(".")[:2])
    for known in (AUTO, *DIALECTS):
        if major_minor in (known, f"{known}.0"):
            return known
    raise SettingsError(f"relion_version is {text!r}: give auto, {', '.join(DIALECTS)}")
