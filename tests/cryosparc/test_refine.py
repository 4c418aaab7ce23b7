"""Pick again by what Select 2D has kept: which job it is, what it teaches, and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import stub
from ask import pick
from testserver.state import FakeInput

from cryoemmae_plugin.core.picker import load_head
from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.run import class_selection
from cryoemmae_plugin.training import refine as training
from cryosparc_job.create import begin
from cryosparc_job.refining import refining_request

pytestmark = pytest.mark.slow


@pytest.fixture
def picked(world: Any, tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """A job that has picked nine particles of three exposures; J30 has kept six of them and dropped three."""
    monkeypatch.setattr(class_selection, "LEAST_KEPT", 3)
    exposures = world.exposures()
    for number in range(3):
        exposures.add(stub.stub_image(number, (160, 200)), f"J1/imported/mic_{number:04d}.mrc")
    world.state.add_output("P3", "J2", "exposures", exposures.dataset())
    report, _ = pick(world, settings={"model": str(tiny_model), "adapt": False}, title="first")
    particles = world.saved(report.job)
    kept = np.isin(np.arange(9), (0, 1, 3, 4, 6, 7))
    for name, mask in (("particles_selected", kept), ("particles_excluded", ~kept)):
        world.state.add_output("P3", "J30", name, particles.mask(mask), "particle", "select_2D")
    extract = world.state.add_output("P3", "J29", "particles", particles, "particle", "extract_micrographs_multi")
    for job, source in ((extract, report.job), (world.state.jobs["P3", "J30"], "J29")):
        job.inputs["particles"] = FakeInput("particle", [], connections=[(source, "particles")])
    return str(report.job)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Kept and dropped picks of each micrograph that the model was shown; training is left out."""
    seen: list[tuple[int, int]] = []

    def refine(model: Any, head: object, judged: Sequence[training.JudgedMicrograph], **_: object) -> object:
        seen.extend((len(one.kept), len(one.dropped)) for one in judged)
        return load_head(model)

    monkeypatch.setattr(training, "refine_head", refine)
    return seen


def test_a_new_job_picks_the_same_exposures_with_a_refined_model(
    world: Any, picked: str, shown: list[tuple[int, int]]
) -> None:
    instance = world.connect()
    request = refining_request(instance, "P3", "J30.particles_selected")
    assert (request.exposures, request.picked_by, request.title) == ("J2.exposures", picked, "first, refined")
    assert request.rejected == "J30.particles_excluded"
    report = begin(instance, request, stub.StubEngines()).run()
    assert (report.status, report.picks) == ("completed", 9)
    assert report.job != picked
    assert shown == [(2, 1)] * 3
    job = world.state.jobs["P3", report.job]
    assert job.inputs["particles"].connections == [("J30", "particles_selected")]
    assert f"J30.particles_selected, picked by {picked}" in job.texts
    assert "6 kept particles are few" in job.texts
    assert len(world.saved(picked)) == 9


def test_without_the_dropped_ones_all_other_picks_are(world: Any, picked: str, shown: list[tuple[int, int]]) -> None:
    del world.state.jobs["P3", "J30"].outputs["particles_excluded"]
    instance = world.connect()
    request = refining_request(instance, "P3", "J30.particles_selected")
    assert request.rejected is None
    begin(instance, request, stub.StubEngines()).run()
    assert shown == [(2, 1)] * 3


def test_particles_that_nobody_here_has_picked_are_refused(world: Any, picked: str) -> None:
    world.state.jobs["P3", "J29"].inputs.clear()
    with pytest.raises(InputError, match="no job that these particles come from has results"):
        refining_request(world.connect(), "P3", "J30.particles_selected")


def test_an_output_without_particles_is_refused_before_there_is_a_job(world: Any, picked: str) -> None:
    instance = world.connect()
    request = refining_request(instance, "P3", "J30.particles_selected")
    world.state.add_output("P3", "J31", "empty", world.saved(picked).mask(np.zeros(9, bool)), "particle", "select_2D")
    before = set(world.state.jobs)
    for name, problem in (("J31.empty", "is empty; select"), ("J31.none", "no output with particles")):
        with pytest.raises(InputError, match=problem):
            begin(instance, request.model_copy(update={"selected": name}), stub.StubEngines())
    assert set(world.state.jobs) == before
