"""What is wrong is said clearly, and before a job is made wherever it can be known before."""

from __future__ import annotations

from typing import Any

import pytest
import stub
from ask import pick, request
from testserver.state import Refusal

from cryoemmae_plugin.errors import CryoemmaeError, InputError, SettingsError
from cryosparc_job.errors import Refused


def jobs_made(world: Any) -> int:
    return world.state.calls.count("jobs.create")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"exposures": "J9.exposures"}, ["P3", "J9"]),
        ({"exposures": "J2.micrographs"}, ["no output 'micrographs'", "J2.exposures"]),
        ({"exposures": "J2.movies"}, ["micrograph_blob", "motion correction", "J2.exposures"]),
        ({"exposures": "J2.picks"}, ["particle, not exposure", "J2.exposures"]),
        ({"workspace": "W7"}, ["P3", "no workspace W7"]),
        ({"project": "P4"}, ["P4"]),
        ({"workspace": "W2"}, ["P3", "no workspace W2"]),  # of another project
    ],
)
def test_wrong_names_are_told_before_a_job_is_made(world: Any, changes: dict[str, str], words: list[str]) -> None:
    exposures = world.few(1)
    world.state.add_project("P5", ("W1", "W2"))
    world.state.add_output("P3", "J2", "movies", exposures.dataset(("mscope_params",)))
    picks = type(exposures.dataset()).allocate(1, [("location/micrograph_uid", "u8")])
    world.state.add_output("P3", "J2", "picks", picks, kind="particle")
    with pytest.raises(CryoemmaeError) as caught:
        pick(world, **changes)
    for word in words:
        assert word in str(caught.value)
    assert jobs_made(world) == 0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"micrograph_blob/psize_A": 0.0}, "pixel size of 0"),
        ({"micrograph_blob/psize_A": float("nan")}, "pixel size of nan"),
        ({"micrograph_blob/path": ""}, "no path"),
    ],
)
def test_exposures_without_what_is_needed_are_refused(world: Any, changes: dict[str, Any], word: str) -> None:
    exposures = world.exposures()
    exposures.add(stub.stub_image(0), **changes)
    world.state.add_output("P3", "J2", "exposures", exposures.dataset())
    with pytest.raises(InputError, match=word):
        pick(world)
    assert jobs_made(world) == 0


def test_empty_exposures_and_an_unfinished_job_are_told_apart(world: Any) -> None:
    world.few(1)
    world.state.add_output("P3", "J2", "exposures", world.exposures().dataset())
    with pytest.raises(InputError, match="is empty"):
        pick(world)
    world.state.jobs["P3", "J2"].outputs["exposures"].file = None
    with pytest.raises(Refused, match="has the job completed"):
        pick(world)
    assert jobs_made(world) == 0


def test_unreadable_kinds_of_files_are_told_before_a_job_is_made(world: Any) -> None:
    exposures = world.exposures()
    exposures.add(stub.stub_image(0), "J1/imported/movie.eer", write=False)
    world.state.add_output("P3", "J2", "exposures", exposures.dataset())
    with pytest.raises(InputError, match="eer"):
        pick(world)
    assert jobs_made(world) == 0


def test_a_model_that_is_not_there_is_told_before_a_job_is_made(world: Any) -> None:
    def build(*arguments: Any) -> Any:
        raise CryoemmaeError("no model of that name")

    world.few(1)
    with pytest.raises(CryoemmaeError, match="no model"):
        pick(world, engines=build)
    assert jobs_made(world) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"output": "my picks"},
        {"output": "1st"},
        {"project": "3"},
        {"workspace": "P3"},
        {"exposures": "J12"},
        {"exposures": "J12/exposures"},
        {"gpu": "0;1"},
        {"limit": 0},
        {"train_on": -1},
        {"overlays": -1},
        {"diameter_A": -5},
        {"settings": {"threshold": 2}},
    ],
)
def test_wrong_values_name_the_setting(changes: dict[str, Any]) -> None:
    name = next(iter(changes.get("settings", changes)))
    with pytest.raises(SettingsError, match=f"^{name} is "):
        request(**changes)


def test_a_refused_output_ends_the_job_as_failed_with_the_reason(world: Any) -> None:
    def refuse(state: Any) -> None:
        raise Refusal(422, [{"loc": ["path", "output_name"], "msg": "reserved name"}])

    world.few(1)
    world.state.hooks["jobs.add_external_output"] = refuse
    with pytest.raises(Refused, match=r"'particles' was refused: path.output_name: reserved name"):
        pick(world)
    job = world.state.jobs["P3", "J3"]
    assert job.status == "failed"
    assert "reserved name" in job.error


def test_refused_particles_end_the_job_as_failed_with_the_reason(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(state: Any) -> None:
        raise Refusal(422, "Given dataset missing required fields [('location/x', '<f4')]")

    world.few(1)
    world.state.hooks["jobs.save_output"] = refuse
    with pytest.raises(Refused, match="location/x"):
        pick(world)
    job = world.state.jobs["P3", "J3"]
    assert job.status == "failed"
    assert "location/x" in job.error
