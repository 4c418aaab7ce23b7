"""Every setting that a user may choose, once: its help text, limits and default.

Command lines, RELION's Param labels, CryoSPARC's options, plan files and the Python API derive from these fields. A
help text names another setting by its plain name.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import math
import re
import sys
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails

from cryoemmae_plugin.errors import SettingsError

Mode = Literal["default", "paper"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""Of the encoder's arithmetic; "auto" is the fastest that picks the same: float16 on a GPU that has tensor cores,
else float32."""

Auto = Literal["auto"]
Diameter = Annotated[float, Field(gt=0, lt=10_000, allow_inf_nan=False)]
"""A particle diameter in Å."""

SLURM = "slurm"

SIZE_STEP, LEAST_SIZE_STEP, MOST_SIZES = 1.5, 1.15, 8
"""Ratio of neighbouring diameters in a range, the least ratio of given ones, and how many there may be."""

DEFAULT_MODEL: dict[str, str] = {"default": "emmae-base", "paper": "emmae-paper"}
"""Shipped model of each mode."""

DEFAULT_THRESHOLD: dict[str, float] = {"default": 0.5, "paper": 0.0}
"""Figure of merit from which a candidate is a pick, by mode. `default` scores are shifted so that picks from 0.5 on are
worth most on simulated micrographs, empty ones counted; the published method has no score to cut at."""

Purity = Literal["high", "balanced", "complete"]
PURITY_THRESHOLD: dict[str, float] = {"high": 0.75, "balanced": DEFAULT_THRESHOLD["default"], "complete": 0.25}
"""Threshold that each preset stands for."""

PUBLISHED_FRACTION = 0.04
"""Share of the area above the threshold of the published method."""
PAPER_ONLY: dict[str, object] = {"particle_fraction": PUBLISHED_FRACTION, "max_radius_ratio": None}
"""Settings of paper mode alone, and their defaults."""

REPORT_PICTURES = 50
"""Micrographs that a report has pictures of, unless the user says otherwise."""

OUTPUT_SETTINGS = ("threshold", "edge_distance", "min_distance", "drop_group")
"""Settings that choose among stored candidates. They may change without picking again."""


class Options(BaseModel):
    """Base of all groups of settings. Frozen; an unknown name or a wrong value is a :class:`SettingsError`.

    The description of a field is its help text. The title, where there is one, is its label in the report.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as err:
            raise settings_error(err, type(self).model_fields) from err

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined] # files are validated without it


def form(pattern: str, example: str) -> AfterValidator:
    """Take only text of a form; other text is answered with an example."""

    def check(text: str) -> str:
        if not re.search(pattern, text):
            raise ValueError(f"give something like {example}")
        return text

    return AfterValidator(check)


DropGroup = Annotated[str, form(r"^[1-9]\d?(,[1-9]\d?)*$", "3, or 3,5")]

Diameters = Annotated[str, form(r"^\d+(\.\d+)?([,-]\d+(\.\d+)?)+$", "150, 90,220 or 90-220")]
"""Several particle diameters in Å: a list, or a range."""


def sizes_of(text: str) -> tuple[float, ...]:
    """Read several diameters, the smallest first; a range is divided into steps of about :data:`SIZE_STEP`.

    Raises
    ------
    SettingsError
        When they are no diameters, too many, or too close to tell apart.

    Examples
    --------
    >>> sizes_of("220,90")
    (90.0, 220.0)
    >>> sizes_of("90-220")
    (90.0, 141.0, 220.0)
    """
    low, dash, high = text.partition("-")
    if dash and "," not in text and "-" not in high and float(low) < float(high):
        steps = max(1, round(math.log(float(high) / float(low)) / math.log(SIZE_STEP)))
        sizes = [float(low) * (float(high) / float(low)) ** (step / steps) for step in range(steps + 1)]
        sizes = [float(low), *(float(round(size)) for size in sizes[1:-1]), float(high)]
    elif dash:
        raise SettingsError(
            setting="diameter_A", value=text, remedy="give a list such as 90,220 or a range such as 90-220"
        )
    else:
        sizes = sorted(float(part) for part in text.split(","))
    steps_between = [large / small if small else 0.0 for small, large in itertools.pairwise(sizes)]
    if sizes[-1] >= 10_000 or min(steps_between) < LEAST_SIZE_STEP or len(sizes) > MOST_SIZES:
        raise SettingsError(
            setting="diameter_A",
            value=text,
            remedy=f"give at most {MOST_SIZES} diameters in Å, each at least {LEAST_SIZE_STEP:g} times the one before",
        )
    return tuple(sizes)


class RequestedSettings(Options):
    """Settings as a user asks for them: the diameter may be left to the micrographs.

    Examples
    --------
    >>> RequestedSettings(diameter_A="auto").mode
    'default'
    >>> RequestedSettings(diameter=150)
    Traceback (most recent call last):
        ...
    cryoemmae_plugin.errors.SettingsError: there is no setting 'diameter'; do you mean diameter_A?
    """

    diameter_A: Diameter | Auto | Diameters = Field(
        title="Particle diameter (Å)",
        description="Longest extent of the particle, in Å; auto estimates it from the micrographs. Several sizes at "
        "once: 90,220 or 90-220.",
    )
    pixel_size_A: float | None = Field(
        default=None,
        gt=0,
        lt=100,
        allow_inf_nan=False,
        title="Pixel size (Å)",
        description="Å per pixel of the stored micrographs; overrides the files' headers.",
    )
    mode: Mode = Field(
        default="default",
        title="Mode",
        description="'default' is the most accurate; 'paper' reproduces the published method step by step.",
    )
    model: str | None = Field(
        default=None,
        title="Model",
        description="Name of an installed model, or a model folder. [default: the mode's own]",
    )
    threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        title="Figure of merit threshold",
        description="Lowest score of a pick. Raise it for fewer, purer picks; lower it for more picks. "
        "[default: 0.5; 0 in paper mode]",
    )
    purity: Purity | None = Field(
        default=None,
        title="Purity",
        description="In place of a threshold: 'high' for few false picks, 'complete' for few missed particles, "
        "'balanced' for as few of both as possible. Default mode only.",
    )
    contrast: Literal["dark", "bright"] = Field(
        default="dark",
        title="Particle contrast",
        description="'dark' for particles darker than the ice (raw cryo-EM micrographs), 'bright' for inverted ones.",
    )
    adapt: bool = Field(
        default=True,
        title="Adapt to the micrographs",
        description="With five or more micrographs, fine-tune on the most confident picks: less than a minute on most "
        "CPUs, once per output folder. Default mode only.",
    )
    edge_distance: float = Field(
        default=0.5,
        ge=0,
        le=5,
        allow_inf_nan=False,
        title="Distance from the edge (diameters)",
        description="Leave out picks closer to the edge than this many particle diameters: 0.5 leaves out particles "
        "that the edge cuts, 0 keeps all.",
    )
    min_distance: float = Field(
        default=0.5,
        ge=0,
        le=5,
        allow_inf_nan=False,
        title="Distance between picks (diameters)",
        description="Of two picks closer to each other than this many particle diameters, keep only the better one.",
    )
    drop_group: DropGroup | None = Field(
        default=None,
        title="Groups to leave out",
        description="Leave out picks of these groups, such as 3 or 3,5. An adapted run groups its picks by what they "
        "look like; the report shows the groups.",
    )
    particle_fraction: Annotated[float, Field(gt=0, lt=1)] | Auto = Field(
        default=PUBLISHED_FRACTION,
        title="Share of the area that particles cover",
        description="Paper mode only: particles are taken to cover this share of a micrograph, as published; auto "
        "finds a threshold for each particle.",
    )
    max_radius_ratio: float | None = Field(
        default=None,
        ge=0.5,
        le=20,
        title="Largest radius (particle radii)",
        description="Paper mode only: drop what is larger than this many particle radii, such as ice and touching "
        "particles. [default: keep all]",
    )

    @model_validator(mode="before")
    @classmethod
    def _settle_purity(cls, values: Any) -> Any:
        """Put the threshold in place of a preset that it stands for; what is wrong is left to the fields."""
        purity = values.get("purity") if isinstance(values, dict) else None
        if purity not in PURITY_THRESHOLD:
            return values
        if values.get("threshold") is not None:
            raise ValueError("$purity stands for a $threshold; give one of the two")
        if values.get("mode") == "paper":
            raise ValueError("$purity belongs to default mode; in paper mode give a $threshold")
        return {**values, "purity": None, "threshold": PURITY_THRESHOLD[purity]}

    @model_validator(mode="after")
    def _check_mode(self) -> RequestedSettings:
        for name, default in PAPER_ONLY.items():
            if self.mode != "paper" and getattr(self, name) != default:
                raise ValueError(f"${name} belongs to paper mode; add $mode=paper, or leave it out")
        if isinstance(self.diameter_A, str) and self.diameter_A != "auto":
            sizes_of(self.diameter_A)
            if self.mode == "paper":
                raise SettingsError(
                    setting="diameter_A", value=self.diameter_A, remedy="give one diameter, as paper mode needs"
                )
        return self

    @property
    def model_name(self) -> str:
        """The model to load: the one asked for, or the mode's own."""
        return self.model or DEFAULT_MODEL[self.mode]

    @property
    def pick_threshold(self) -> float:
        """The figure of merit from which a candidate counts as a pick."""
        return DEFAULT_THRESHOLD[self.mode] if self.threshold is None else self.threshold

    def with_diameter(self, diameter_A: float | str) -> PickerSettings:
        """The same settings with this diameter, or these."""
        sizes = sizes_of(diameter_A) if isinstance(diameter_A, str) else ()
        given = {"diameter_A": sizes[-1], "sizes_A": sizes} if sizes else {"diameter_A": diameter_A}
        return PickerSettings(**self.model_dump() | given)


class PickerSettings(RequestedSettings):
    """Settings that decide which particles are found: those asked for, the diameter a number."""

    diameter_A: Diameter = Field(
        title="Particle diameter (Å)",
        description="Longest extent of the particle, in Å; of the largest where there are several sizes.",
    )
    sizes_A: tuple[Diameter, ...] = Field(
        default=(),
        title="Particle diameters (Å)",
        description="All diameters where particles of several sizes are picked.",
    )

    @model_serializer(mode="wrap")
    def _without_sizes(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave the sizes out where there is one: results and notes are then as they always were."""
        values: dict[str, Any] = handler(self)
        if not self.sizes_A:
            values.pop("sizes_A", None)
        return values

    @property
    def diameters(self) -> str:
        """The diameter or diameters, for a message."""
        return ", ".join(f"{size:g}" for size in self.sizes_A or (self.diameter_A,))

    def fingerprint(self, model_sha256: str) -> str:
        """Identify everything that candidates depend on: settings without :data:`OUTPUT_SETTINGS`, and the weights."""
        chosen = self.model_dump(exclude={"model", "purity", *OUTPUT_SETTINGS}) | {
            "edge_distance": 0.0
        }  # as before it was one
        for name, default in PAPER_ONLY.items():  # results from before these settings stay valid
            if chosen[name] == default:
                del chosen[name]
        text = json.dumps({"settings": chosen, "model": model_sha256}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


TrainOn = Annotated[
    int | None,
    Field(
        ge=0,
        description="First train a model on this many of the micrographs, without labels: minutes on a GPU, hours "
        "without one. [default: 0, use the model as it is]",
    ),
]
TrainEpochs = Annotated[
    int | None,
    Field(
        ge=1,
        description="Passes over the training tiles. [default: the recipe's own]",
    ),
]


Count = Annotated[int, Field(ge=0)] | Literal["all", "none"]
"""A number of micrographs, as a user gives it; :func:`count_of` is the number itself."""

ReportPictures = Annotated[
    Count,
    Field(
        description="Of how many micrographs the report shows pictures: N evenly spread, all, or none for no report.",
    ),
]
"""What a user asks of the report of a run; :func:`pictures_of` says how many pictures that is."""


def count_of(count: Count) -> int:
    """The number that "all" and "none" stand for, or the number itself."""
    numbers = {"all": sys.maxsize, "none": 0}
    return numbers[count] if isinstance(count, str) else count


def pictures_of(report: ReportPictures) -> int | None:
    """Of how many micrographs to draw pictures for the report; None for no report."""
    return None if report == "none" else count_of(report)


class OutputOptions(Options):
    """What a run writes besides its results, without influence on what is picked. Frozen."""

    overlays: Count = Field(
        default=3,
        description="Draw the picks on the first N micrographs, or on all, or none.",
    )
    formats: str | None = Field(
        default=None,
        description="Write files for other programs as well: relion, cryosparc, eman, cryolo, or several with commas "
        "between them.",
    )
    report: ReportPictures = REPORT_PICTURES


AS_A_RULE = OutputOptions()
"""Nothing chosen."""


class DeviceOptions(Options):
    """On what to compute, without influence on what is picked but for the last digits. Frozen."""

    device: str = Field(
        default="auto",
        description="auto (a GPU where there is one), cpu, cuda:N, or cuda:N,M and cuda (all) for a worker on each of "
        "them.",
    )
    threads: int | None = Field(
        default=None,
        ge=0,
        le=4096,
        description="CPU threads of each worker to compute with. [default: the cores, shared among the workers]",
    )


ON_ANY_DEVICE = DeviceOptions()
"""Nothing chosen."""


def device_of_gpus(gpus: str | None) -> str:
    """The device that RELION or CryoSPARC name by numbers of GPUs; a text without a number is the CPU.

    Examples
    --------
    >>> device_of_gpus("0:1"), device_of_gpus("none"), device_of_gpus(None)
    ('cuda:0,1', 'cpu', 'auto')
    """
    if gpus in (None, "auto"):
        return "auto"
    numbers = dict.fromkeys(str(int(number)) for number in re.findall(r"\d+", gpus or ""))
    return f"cuda:{','.join(numbers)}" if numbers else "cpu"


class ComputeOptions(Options):
    """How a run computes, without influence on what is picked but for the last digits. Frozen."""

    gpu_memory: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Most GiB of the GPU's memory to use. [default: what is free]",
    )
    precision: Precision = Field(
        default="auto",
        description="Of the encoder: auto (16 bits where the device multiplies in them), float32, bfloat16, float16.",
    )
    jobs: int = Field(
        default=2,
        ge=1,
        le=1000,
        description="Micrographs to read ahead while one is picked; each takes the memory of its image.",
    )


AS_SUITS = ComputeOptions()
"""Nothing chosen."""


class ExecutorOptions(Options):
    """Where and by how many processes micrographs are picked; without influence on what is picked. Frozen."""

    executor: Literal["local", "dask"] = Field(
        default="local",
        description="'local' picks on this machine, 'dask' on the workers of a Dask scheduler.",
    )
    scheduler: Annotated[str, form(r"^(slurm|(tcp|tls)://\S+|[\w.-]+:\d+)$", "tcp://HOST:8786, or slurm")] | None = (
        Field(
            default=None,
            description="Address of the Dask scheduler, such as tcp://HOST:8786, or slurm. Needs executor dask.",
        )
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Number of processes that pick side by side. "
        "[default: 1; one for each GPU of the device; all workers of the scheduler]",
    )
    worker_memory: Annotated[str, form(r"^\d+(\.\d+)? ?[MGT]i?B$", "16GB")] | None = Field(
        default=None,
        description="Memory of a worker, such as 16GB; one that takes more ends. [default: no limit; 16GB on SLURM]",
    )
    worker_wait: float = Field(
        default=60.0,
        gt=0,
        allow_inf_nan=False,
        description="Minutes to wait for workers when there is none.",
    )
    slurm_partition: str | None = Field(default=None, pattern=r"^\S+$", description="Partition of the workers' jobs.")
    slurm_account: str | None = Field(default=None, pattern=r"^\S+$", description="Account of the workers' jobs.")
    slurm_time: Annotated[str, form(r"^[\d:-]+$", "08:00:00")] | None = Field(
        default=None, description="Time limit of each worker's job, such as 08:00:00."
    )
    slurm_options: str | None = Field(
        default=None,
        description="Further options of sbatch, such as 'gres=gpu:1;constraint=a100'.",
    )

    @model_validator(mode="after")
    def _fit(self) -> ExecutorOptions:
        """Refuse options that contradict each other."""
        slurm = [name for name in type(self).model_fields if name.startswith("slurm_") and getattr(self, name)]
        if self.scheduler is not None and self.executor != "dask":
            raise SettingsError(setting="scheduler", value=self.scheduler, remedy="give $executor=dask too")
        if self.executor == "dask" and self.scheduler is None and self.workers is None:
            raise SettingsError(
                setting="executor",
                value="dask",
                remedy=(
                    "give the address of a $scheduler",
                    "give $scheduler=slurm and the number of $workers",
                    "give the number of $workers for processes of this machine",
                ),
            )
        if slurm and self.scheduler != SLURM:
            raise SettingsError(
                setting=slurm[0], value=getattr(self, slurm[0]), remedy="give $executor=dask and $scheduler=slurm too"
            )
        if self.scheduler == SLURM and self.workers is None:
            raise SettingsError(
                setting="scheduler", value=SLURM, remedy="give the number of jobs to start with $workers"
            )
        self.sbatch_options()
        return self

    def sbatch_options(self) -> list[str]:
        """The further options of sbatch, one by one."""
        options = []
        for word in re.split(r"[;\s]+", self.slurm_options or ""):
            if re.match(r"-[^-]|[^-\w]", word):
                raise SettingsError(
                    setting="slurm_options", value=word, remedy="write options as name=value, with ; between them"
                )
            options += [f"--{word.removeprefix('--')}"] if word else []
        return options


ONE_PROCESS = ExecutorOptions()
"""The process at hand and no other: the default."""


def make_options(values: Mapping[str, Any], *kinds: type[Options]) -> tuple[Any, ...]:
    """Build one object of each kind from values by name: each takes those of its own fields.

    Raises
    ------
    SettingsError
        A name belongs to none of them, or a value is wrong.
    """
    names = [name for kind in kinds for name in kind.model_fields]
    unknown = [_unknown(name, names) for name in values if name not in names]
    if unknown:
        raise SettingsError.together(unknown)
    return tuple(kind(**{name: values[name] for name in kind.model_fields if name in values}) for kind in kinds)


_REASONS = {
    "bool_parsing": "say yes or no",
    "bool_type": "say yes or no",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "finite_number": "must be a finite number",
}
_WORDS = {"Input should be": "must be", "less than or equal to": "at most", "greater than or equal to": "at least"}


def settings_error(err: ValidationError, names: Collection[str] = ()) -> SettingsError:
    """Say which settings are wrong, and why.

    Parameters
    ----------
    names : collection of str
        The settings that there are, for a name that is none of them.
    """
    problems: dict[str, SettingsError] = {}
    for problem in sorted(err.errors(), key=lambda problem: problem["type"] == "missing"):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "extra_forbidden":
            problems[name] = _unknown(name, names)
        elif problem["type"] == "missing":
            if not any(f"${name}" in remedy for other in problems.values() for remedy in other.remedies):
                problems[name] = SettingsError(f"${name} is missing", setting=name)
        elif name in problems:
            other = "" if problem["type"] == "string_type" else f", or {_reason(problem).removeprefix('must be ')}"
            problems[name].what += other
        else:
            value = problem["input"] if name else None
            problems[name] = SettingsError(_reason(problem), setting=name or None, value=value)
    return SettingsError.together(list(problems.values()))


def _reason(problem: ErrorDetails) -> str:
    text = _REASONS.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
    for theirs, ours in _WORDS.items():
        text = text.replace(theirs, ours)
    return text


def _unknown(name: str, names: Collection[str]) -> SettingsError:
    """The error for a setting that does not exist, with the one that was meant."""
    near = difflib.get_close_matches(name, names, n=1)
    remedy = f"do you mean ${near[0]}?" if near else f"choose from {', '.join(f'${field}' for field in names)}"
    return SettingsError(f"there is no setting {name!r}", remedy=remedy if names else ())
