"""A job whose diameter is left to the exposures."""

from __future__ import annotations

from typing import Any

import pytest
from ask import pick

from cryoemmae_plugin.core.diameter import DiameterEstimate
from cryoemmae_plugin.errors import CannotTellError
from cryoemmae_plugin.run import diameter as module
from cryoemmae_plugin.run.store import ResultStore


def test_a_job_estimates_the_diameter_and_tells_it(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    estimate = lambda scans: DiameterEstimate(44.0, 0.09, 12, ((40.0, 1.0),))  # noqa: E731
    monkeypatch.setattr(module, "estimate_diameter", estimate)
    world.few(3)
    report, job = pick(world, diameter_A="auto", settings={"min_distance": 0.5})
    assert report.status == "completed"
    assert ResultStore.open(report.folder / "picks").record.settings.diameter_A == 44
    assert set(world.saved(report.job)["location/min_dist_A"]) == {22}
    assert any("Estimated diameter: 44 Å" in str(entry) for entry in job.events)


def test_a_job_that_cannot_tell_fails_with_the_way_out(world: Any) -> None:
    world.few(2)
    with pytest.raises(CannotTellError, match="no particles stand out"):
        pick(world, diameter_A="auto")
