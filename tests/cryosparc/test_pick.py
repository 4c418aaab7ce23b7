"""A whole job, from exposures to particles."""

from __future__ import annotations

import numpy as np
import stub

from cryosparc_job.picking import begin
from cryosparc_job.request import make_request
from cryoemmae_plugin.settings import make_settings


def request(**values):
    settings = make_settings(diameter_A=values.pop("diameter_A", 150.0), **values.pop("settings", {}))
    return make_request(
        **{"project": "P3", "workspace": "W1", "exposures": "J2.exposures", "settings": settings, **values}
    )


def test_job_goes_from_exposures_to_particles(world) -> None:
    exposures = world.few(3)
    report = begin(world.connect(), request(title="my picks"), stub.StubEngines()).run()
    job = world.state.jobs["P3", report.job]
    assert (report.status, job.status, job.statuses) == ("completed", "completed", ["running", "completed"])
    assert job.title == "my picks"
    particles = world.saved(report.job)
    assert len(particles) == report.picks == 3 * 3  # of five candidates three are above the threshold of 0.5
    assert sorted(set(particles["location/micrograph_uid"])) == [row["uid"] for row in exposures.rows]
    assert len(np.unique(particles["uid"])) == len(particles)
