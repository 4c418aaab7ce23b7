"""Many exposures outputs, a job each; nothing that is there is touched."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stub
from ask import pick

from cryoemmae_plugin.errors import InputError, Interrupted
from cryosparc_job.plan import all_exposures, read_plan
from cryosparc_job.repicking import Repicking, share_found, table
from cryosparc_job.request import PickRequest
from cryosparc_job.slots import Exposure

PLAN = """
diameter = 30
edge_distance = 0
min_distance = 0
project = "P3"

[[job]]
exposures = "J2.exposures"
compare = "J3.particles"

[[job]]
exposures = "J2.nothing"

[[job]]
exposures = "J2.exposures"
workspace = "W1"
threshold = 0.7
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


def repicking(world: Any, plan: Path, engines: Any = None) -> Repicking:
    state = plan.with_suffix(".done.json")
    return Repicking(world.connect(), read_plan(plan), state, engines or stub.StubEngines())


def digest(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_dry_run_makes_nothing(world: Any, plan: Path) -> None:
    world.few(3)
    rows = repicking(world, plan).dry_run()
    assert [(row.status, row.micrographs) for row in rows] == [("to do", 3), ("wrong", 0), ("to do", 3)]
    assert "no output 'nothing'" in table(rows)
    assert world.state.calls.count("jobs.create") == 0


@pytest.mark.slow
def test_a_plan_is_picked_and_nothing_that_was_there_is_changed(world: Any, plan: Path) -> None:
    world.few(3)
    pick(world)  # J3, to compare with
    before = digest(world.project)
    rows = repicking(world, plan).run()
    assert [(row.job, row.status) for row in rows] == [("J4", "completed"), ("", "wrong"), ("J5", "completed")]
    assert [row.picks for row in rows] == [9, 0, 6]
    assert rows[0].found_again == 1.0
    assert rows[2].found_again is None
    text = table(rows)
    assert "100%" in text
    assert "J5" in text
    after = digest(world.project)
    assert {path: after.get(path) for path in before} == before
    assert "clear" not in " ".join(world.state.calls)


@pytest.mark.slow
def test_the_same_plan_goes_on_where_it_stopped(world: Any, plan: Path) -> None:
    world.few(4)
    plan.write_text(PLAN.replace('compare = "J3.particles"\n', ""))
    with pytest.raises(Interrupted):
        repicking(world, plan, _StopsAt(6)).run()
    engines = stub.StubEngines()
    rows = repicking(world, plan, engines).run()
    assert [row.status for row in rows] == ["completed", "wrong", "completed"]
    assert engines.picked == 8 - 6
    state, again = plan.with_suffix(".done.json"), stub.StubEngines()
    known = json.loads(state.read_text())
    full = {PickRequest.model_validate_json(key).model_dump_json(): job for key, job in known.items()}
    state.write_text(json.dumps(full))  # as earlier releases wrote it: with every default
    assert [row.job for row in repicking(world, plan, again).run()] == [row.job for row in rows]
    assert again.picked == 0


class _StopsAt(stub.StubEngines):
    """Is stopped by SIGTERM while it picks so many micrographs in all."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def __call__(self, *arguments: Any) -> Any:
        engine = super().__call__(*arguments)
        inner, pick_one = engine.picker, engine.picker.pick

        def stop_and_pick(*details: Any, **more: Any) -> Any:
            if self.picked == self._at - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return pick_one(*details, **more)

        inner.pick = stop_and_pick
        return engine


def test_all_exposures_are_the_last_of_each_chain(world: Any) -> None:
    world.few(2)  # J2
    world.state.add_output("P3", "J4", "exposures_accepted", world.few(2, "J3").dataset())
    world.state.jobs["P3", "J4"].inputs["exposures"] = _input([("J3", "exposures")])
    world.state.add_output("P3", "J4", "exposures_rejected", world.exposures().dataset())
    world.state.add_output("P3", "J5", "particles", world.exposures().dataset(("location",)), kind="particle")
    world.state.jobs["P3", "J5"].inputs["micrographs"] = _input([("J4", "exposures_accepted")])
    _, mine = pick(world)  # only divides J2
    assert mine.outputs["exposures_accepted"].items == 2
    found = [entry.exposures for entry in all_exposures(world.connect(), "P3")]
    assert found == ["J2.exposures", "J4.exposures_accepted"]


def _input(connections: list[tuple[str, str]]) -> Any:
    from testserver.state import FakeInput

    return FakeInput("exposure", [("micrograph_blob", True)], connections=connections)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "job"), ("[[job]]\nproject = 3\n", "exposures"), ("[[job", "plan"), ('[[job]]\nproject = "P3"', "exposures")],
)
def test_plans_that_are_none_say_why(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_plan(path)


def test_share_found_counts_each_particle_once() -> None:
    exposure = Exposure(1, "a.mrc", (100, 200), 1.0, 0, None)
    old = {1: np.array([[0.5, 0.5], [0.1, 0.1], [0.9, 0.9]]), 2: np.zeros((5, 2))}
    new = {1: np.array([[0.51, 0.5], [0.52, 0.5], [0.1, 0.12]])}
    assert share_found(old, new, [exposure], diameter_A=10) == pytest.approx(2 / 3)
    assert share_found({}, new, [exposure], diameter_A=10) is None
