"""The adapter between cryoemmae and CryoSPARC's external jobs: exposures in, particle locations out.

From Python::

    from cryosparc_job import connect, find_credentials, pick

    instance = connect(find_credentials())
    report = pick(instance, project="P3", workspace="W1", exposures="J12.exposures", diameter_A=150)
    print(report.job, report.picks)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryosparc_job.api import pick, resume
    from cryosparc_job.credentials import Credentials, find_credentials
    from cryosparc_job.instance import Instance, connect
    from cryosparc_job.picking import JobReport

__all__ = ["Credentials", "Instance", "JobReport", "connect", "find_credentials", "pick", "resume"]

_HOMES = {
    "Credentials": "credentials",
    "Instance": "instance",
    "JobReport": "picking",
    "connect": "instance",
    "find_credentials": "credentials",
    "pick": "api",
    "resume": "api",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for: importing this package stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
