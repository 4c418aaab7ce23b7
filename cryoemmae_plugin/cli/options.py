"""Options that come from a settings object: one field, one option, with the field's own help and default."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from cryoemmae_plugin.compute import ComputeOptions
from cryoemmae_plugin.errors import ParameterNames
from cryoemmae_plugin.run.workers.options import ExecutorOptions
from cryoemmae_plugin.settings import RequestedSettings


def option_name(field: str) -> str:
    """The option of a settings field: ``diameter_A`` is ``diameter``, since the unit stands in its help."""
    return field.removesuffix("_A").replace("_", "-")


def _assign(option: str, value: str) -> str:
    """A switch, or an option with its value."""
    switches = {"yes": option, "no": option.replace("--", "--no-", 1)}
    return switches.get(value, f"{option} {value}")


OPTIONS = ParameterNames(spell=lambda field: f"--{option_name(field)}", assign=_assign)
"""Settings as options of a command line."""


SettingsOptions = Annotated[RequestedSettings, Parameter(name="*", name_transform=option_name)]
ComputeChoice = Annotated[ComputeOptions, Parameter(name="*", name_transform=option_name)]
WorkerOptions = Annotated[ExecutorOptions, Parameter(name="*", name_transform=option_name)]
Flag = Annotated[bool, Parameter(negative="", show_default=False)]
"""A bare switch, without a --no- form."""
