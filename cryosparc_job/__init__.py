"""The adapter between cryoemmae and CryoSPARC's external jobs: exposures in, particle locations out.

From Python::

    from cryosparc_job import connect, find_account, pick

    instance = connect(find_account())
    report = pick(instance, project="P3", workspace="W1", exposures="J12.exposures", diameter_A=150)
    print(report.job, report.picks)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryosparc_job.account import Account, find_account
    from cryosparc_job.instance import Instance, connect
    from cryosparc_job.library import pick, resume
    from cryosparc_job.picking import JobReport

__all__ = ["Account", "Instance", "JobReport", "connect", "find_account", "pick", "resume"]

_HOMES = {
    "Account": "account",
    "Instance": "instance",
    "JobReport": "picking",
    "connect": "instance",
    "find_account": "account",
    "pick": "library",
    "resume": "library",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for: importing this package stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
