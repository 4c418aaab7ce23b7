"""Tasks in threads of their own: in order, bounded, and none lost."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from functools import partial

import pytest

from cryoemmae_plugin.run.writer import Writer


@dataclass
class Numbered:
    number: int
    seconds: dict[str, float] = field(default_factory=dict)


def test_what_is_done_comes_back_in_order_whichever_is_done_first() -> None:
    def task(number: int) -> Numbered:
        time.sleep(0.02 * (number % 3 == 0))
        return Numbered(number)

    with Writer[Numbered]() as writer:
        for number in range(20):
            writer.put(partial(task, number))
        assert [done.number for done in writer.take()] == list(range(20))


def test_what_is_not_done_is_waited_for_only_where_room_is_short() -> None:
    gate = threading.Event()

    def task(number: int) -> Numbered:
        gate.wait()
        return Numbered(number)

    with Writer[Numbered]() as writer:
        for number in range(3):
            writer.put(partial(task, number))
        assert list(writer.take(room=3)) == []
        threading.Timer(0.5, gate.set).start()
        first = next(writer.take(room=2))
        assert first.number == 0
        assert first.seconds["wait"] > 0.02


def test_a_task_that_fails_is_told_at_its_turn_and_the_others_run_all_the_same() -> None:
    ran: list[int] = []

    def task(number: int) -> Numbered:
        if number == 2:
            raise OSError("disk full")
        ran.append(number)
        return Numbered(number)

    given: list[int] = []

    def work() -> None:
        with Writer[Numbered]() as writer:
            for number in range(5):
                writer.put(partial(task, number))
            given.extend(done.number for done in writer.take())

    with pytest.raises(OSError, match="disk full"):
        work()
    assert sorted(ran) == [0, 1, 3, 4]


def test_leaving_waits_for_every_task() -> None:
    ran: list[int] = []

    def task(number: int) -> Numbered:
        time.sleep(0.01)
        ran.append(number)
        return Numbered(number)

    def work() -> None:
        with Writer[Numbered]() as writer:
            for number in range(5):
                writer.put(partial(task, number))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert sorted(ran) == list(range(5))
