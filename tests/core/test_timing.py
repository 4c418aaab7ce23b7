"""Seconds per step."""

from __future__ import annotations

import time

import pytest

from cryoemmae_plugin.core.timing import StepTimer


def test_time_of_a_repeated_step_adds_up() -> None:
    timer = StepTimer()
    for _ in range(2):
        with timer.step("sleep"):
            time.sleep(0.01)
    assert timer.seconds["sleep"] >= 0.02


def test_a_step_that_fails_is_booked() -> None:
    timer = StepTimer()
    with pytest.raises(RuntimeError), timer.step("fail"):
        raise RuntimeError
    assert timer.seconds["fail"] >= 0
