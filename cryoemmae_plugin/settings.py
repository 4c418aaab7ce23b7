"""Every setting that a user may choose, once: its label, help text, limits and default.

Command lines, RELION's Param labels, CryoSPARC's options, plan files and the Python API derive from these fields. A
help text names another setting by its plain name.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from cryoemmae_plugin.errors import SettingsError

Mode = Literal["default", "paper"]
Auto = Literal["auto"]
Diameter = Annotated[float, Field(gt=0, lt=10_000, allow_inf_nan=False)]
"""A particle diameter in Å."""

DEFAULT_MODEL: dict[str, str] = {"default": "emmae-base", "paper": "emmae-paper"}
"""Shipped model of each mode."""

DEFAULT_THRESHOLD: dict[str, float] = {"default": 0.5, "paper": 0.0}
"""Figure of merit from which a candidate is a pick, by mode. `default` scores are shifted so that picks from 0.5 on are
worth most on simulated micrographs, empty ones counted; the published method has no score to cut at."""


class Options(BaseModel):
    """Base of all groups of settings. Frozen; an unknown name or a wrong value is a :class:`SettingsError`.

    The title of a field is its label, the description its help text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as err:
            raise settings_error(err, type(self).model_fields) from err

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined] # files are validated without it


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

    diameter_A: Diameter | Auto = Field(
        title="Particle diameter (Å)",
        description="Longest extent of the particle, in Å; auto estimates it from the micrographs.",
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
    contrast: Literal["dark", "bright"] = Field(
        default="dark",
        title="Particle contrast",
        description="'dark' for particles darker than the ice (raw cryo-EM micrographs), 'bright' for inverted ones.",
    )
    adapt: bool = Field(
        default=True,
        title="Adapt to the micrographs",
        description="With five or more micrographs, fine-tune on the most confident picks: a minute or two on a CPU, "
        "once per output folder. Default mode only.",
    )
    edge_distance: float = Field(
        default=0.0,
        ge=0,
        le=5,
        allow_inf_nan=False,
        title="Distance from the edge (diameters)",
        description="Leave out picks closer to the edge than this many particle diameters: 0.5 leaves out particles "
        "that the edge cuts, 0 keeps all.",
    )

    @property
    def model_name(self) -> str:
        """The model to load: the one asked for, or the mode's own."""
        return self.model or DEFAULT_MODEL[self.mode]

    @property
    def pick_threshold(self) -> float:
        """The figure of merit from which a candidate counts as a pick."""
        return DEFAULT_THRESHOLD[self.mode] if self.threshold is None else self.threshold

    def with_diameter(self, diameter_A: float) -> PickerSettings:
        """The same settings with this diameter."""
        return PickerSettings(**self.model_dump() | {"diameter_A": diameter_A})


class PickerSettings(RequestedSettings):
    """Settings that decide which particles are found: those asked for, the diameter a number."""

    diameter_A: Diameter = Field(
        title="Particle diameter (Å)",
        description="Longest extent of the particle, in Å.",
    )

    def fingerprint(self, model_sha256: str) -> str:
        """Identify everything that candidates depend on: these settings but the threshold, and the model's weights."""
        chosen = self.model_dump(exclude={"threshold", "model"})
        text = json.dumps({"settings": chosen, "model": model_sha256}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_settings(**values: Any) -> PickerSettings:
    """Build settings; errors as of :class:`Options`."""
    return PickerSettings(**values)


def request_settings(**values: Any) -> RequestedSettings:
    """Build settings whose diameter may be "auto"; errors as of :class:`Options`."""
    return RequestedSettings(**values)


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
    err : ValidationError
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
            problems[name].what += f", or {_reason(problem).removeprefix('must be ')}"
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
