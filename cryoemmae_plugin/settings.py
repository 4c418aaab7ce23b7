"""What a user may choose about picking, and every default: the one place where a default lives."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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


class RequestedSettings(BaseModel):
    """Settings as a user asks for them: the diameter may be left to the micrographs. Frozen; validated on construction.

    Command lines and job forms are derived from these fields: the title is the label, the description the help text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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
        description="Candidates below it are stored but not picked. Raise for purer, lower for more picks. "
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
        description="Of five micrographs or more, first learn from the surest picks what these particles and this "
        "noise look like: a minute or two on a CPU, once a result folder. Default mode only.",
    )
    edge_distance: float = Field(
        default=0.0,
        ge=0,
        le=5,
        allow_inf_nan=False,
        title="Distance from the edge (diameters)",
        description="Picks nearer to the edge than so many particle diameters are left out: 0.5 leaves out "
        "what the frame cuts, 0 leaves that to extraction.",
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
    """Build settings, turning validation errors into one readable :class:`SettingsError`."""
    return _make(PickerSettings, values)


def request_settings(**values: Any) -> RequestedSettings:
    """Build settings whose diameter may be "auto"; errors as of :func:`make_settings`."""
    return _make(RequestedSettings, values)


_Settings = TypeVar("_Settings", bound=RequestedSettings)


def _make(kind: type[_Settings], values: dict[str, Any]) -> _Settings:
    try:
        return kind(**values)
    except ValidationError as err:
        raise settings_error(err) from err


def settings_error(err: ValidationError) -> SettingsError:
    """Say which settings are wrong, and why."""
    problems: dict[str, SettingsError] = {}
    for problem in err.errors():
        name = str(problem["loc"][0]) if problem["loc"] else None
        reason = "say yes or no" if problem["type"] == "bool_parsing" else problem["msg"].lower()
        known = problems.get(name or "")
        what = f"{known.what}, or {reason}" if known else reason
        problems[name or ""] = SettingsError(what, setting=name, value=problem["input"] if name else None)
    return SettingsError.together(list(problems.values()))
