"""What most tests ask for."""

from __future__ import annotations

from typing import Any

import stub

from cryoemmae_plugin.settings import RequestedSettings
from cryosparc_job.create import begin
from cryosparc_job.picking import JobReport
from cryosparc_job.request import PickRequest


def request(**values: Any) -> PickRequest:
    """Pick J2.exposures into W1, particles of 30 Å."""
    chosen = {"edge_distance": 0.0, "min_distance": 0.0, **values.pop("settings", {})}  # the stand-in picks anywhere
    settings = RequestedSettings(diameter_A=values.pop("diameter_A", 30.0), **chosen)
    usual = {"project": "P3", "workspace": "W1", "exposures": "J2.exposures", "settings": settings}
    return PickRequest(**{**usual, **values})


def pick(world: Any, *, engines: Any = None, work: Any = None, **values: Any) -> tuple[JobReport, Any]:
    """Run a job; its report, and the job as the instance has it."""
    job = begin(world.connect(), request(**values), engines or stub.StubEngines(), work=work)
    report = job.run()
    return report, world.state.jobs["P3", report.job]
