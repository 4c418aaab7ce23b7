"""Options that come from a settings object: one field, one option, with the field's own help and default.

Help lists them in groups, those that most users need first.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter
from pydantic import create_model
from pydantic_core import PydanticUndefined

from cryoemmae_plugin.errors import ParameterNames
from cryoemmae_plugin.settings import (
    ComputeOptions,
    DeviceOptions,
    ExecutorOptions,
    Options,
    OutputOptions,
    RequestedSettings,
)

PICKING = Group("Picking", sort_key=1)
INPUT_OUTPUT = Group("Input and output", sort_key=2)
DEVICE = Group("Device", sort_key=3)
PROCESSES = Group("Several processes", sort_key=4)
SLURM = Group("SLURM", sort_key=5)


def option_name(field: str) -> str:
    """The option of a settings field: ``diameter_A`` is ``diameter``, since the unit stands in its help."""
    return re.sub("_(A|kV|mm|px|deg|s)$", "", field).replace("_", "-")


def _assign(option: str, value: str) -> str:
    """A switch, or an option with its value."""
    switches = {"yes": option, "no": option.replace("--", "--no-", 1)}
    return switches.get(value, f"{option} {value}")


OPTIONS = ParameterNames(spell=lambda field: f"--{option_name(field)}", assign=_assign)
"""Settings as options of a command line."""


def _in_groups() -> type[ExecutorOptions]:
    """The options about workers, those about SLURM in a group of their own."""
    fields: dict[str, Any] = {
        name: (Annotated[field.annotation, Parameter(group=SLURM)], copy.copy(field))
        for name, field in ExecutorOptions.model_fields.items()
        if name.startswith("slurm_")
    }
    return create_model("ExecutorOptions", __base__=ExecutorOptions, **fields)


def _parameter(group: Group) -> Parameter:
    return Parameter(name="*", name_transform=option_name, group=group)


SettingsOptions = Annotated[RequestedSettings, _parameter(PICKING)]
OutputChoice = Annotated[OutputOptions, _parameter(INPUT_OUTPUT)]
DeviceChoice = Annotated[DeviceOptions, _parameter(DEVICE)]
ComputeChoice = Annotated[ComputeOptions, _parameter(DEVICE)]
if TYPE_CHECKING:
    WorkerOptions = Annotated[ExecutorOptions, _parameter(PROCESSES)]
else:
    WorkerOptions = Annotated[_in_groups(), _parameter(PROCESSES)]
Flag = Annotated[bool, Parameter(negative="", show_default=False)]
"""A bare switch, without a --no- form."""


def option_of(field: str, options: type[Options] = RequestedSettings, default: str = "") -> Parameter:
    """An option with the help of one settings field, for a command that does not take the whole group.

    `default` says what the command does without the option, if that is not the default of the field.
    """
    found = options.model_fields[field]
    text = found.description or ""
    if default:
        return Parameter(help=f"{text.partition(' [default:')[0]} [default: {default}]", show_default=False)
    own = "" if found.default in (None, PydanticUndefined) or "[default:" in text else f" [default: {found.default}]"
    return Parameter(help=text + own, show_default=False)


MicrographPaths = Annotated[
    list[str],
    Parameter(
        name="PATH",
        negative="",
        help="Micrographs (MRC, TIFF, PNG, JPEG), folders, globs in quotes, or a micrographs STAR.",
    ),
]
OneDiameter = Annotated[float, Parameter(help="Longest extent of the particle, in Å.")]
PixelSize = Annotated[float | None, option_of("pixel_size_A")]
OneDevice = Annotated[str, Parameter(help="auto (a GPU where there is one), cpu, or cuda:N.")]
Recursive = Annotated[Flag, Parameter(help="Search the folders inside a folder too.")]
Box = Annotated[Flag, Parameter(help="Write EMAN .box files as well; the same as --formats eman.")]
ResultFolder = Annotated[Path, Parameter(name="DIR", help="Folder that pick has written.")]
Formats = Annotated[str, option_of("formats", OutputOptions)]


def given(**values: Any) -> dict[str, Any]:
    """Those values that the user has given: all but None."""
    return {name: value for name, value in values.items() if value is not None}
