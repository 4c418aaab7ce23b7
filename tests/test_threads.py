"""Threads: no more than the machine grants, and asleep while they wait; a user's choice stands."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from cryoemmae_plugin import threads
from cryoemmae_plugin.cli import main
from cryoemmae_plugin.threads import WAITING, usable_cores, wait_passively


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WAITING:
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("unset")
def test_commands_let_threads_sleep_while_they_wait() -> None:
    main(["--version"])
    assert {name: os.environ[name] for name in WAITING} == WAITING


@pytest.mark.usefixtures("unset")
def test_a_users_choice_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_affinity_is_respected() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("content", "cores"),
    [("max 100000", math.inf), ("150000 100000", 1.5), ("nonsense", math.inf), ("1 0", math.inf), (None, math.inf)],
)
def test_the_limit_of_a_cgroup_is_read(tmp_path: Path, content: str | None, cores: float) -> None:
    if content is not None:
        (tmp_path / "cpu.max").write_text(content + "\n")
    assert threads._limit_in(tmp_path) == cores


def test_the_limit_of_a_cgroup_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    monkeypatch.setattr(threads, "CGROUP", tmp_path)
    assert usable_cores() == 1
