"""Options that come from a settings object: one field, one option, with the field's own help and default."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from cryoemmae_plugin.compute import ComputeOptions
from cryoemmae_plugin.run.executors.options import ExecutorOptions
from cryoemmae_plugin.settings import RequestedSettings


def option_name(field: str) -> str:
    """The option of a settings field: ``diameter_A`` is ``diameter``, since the unit stands in its help."""
    return field.removesuffix("_A").replace("_", "-")


SettingsOptions = Annotated[RequestedSettings, Parameter(name="*", name_transform=option_name)]
ComputeChoice = Annotated[ComputeOptions, Parameter(name="*", name_transform=option_name)]
WorkerOptions = Annotated[ExecutorOptions, Parameter(name="*", name_transform=option_name)]
Flag = Annotated[bool, Parameter(negative="", show_default=False)]
"""A bare switch, without a --no- form."""
