"""Where the time of a run went."""

from __future__ import annotations

import pytest

from cryoemmae_plugin.run.profile import Profile

STEPS = {"wait": 0.5, "read": 2.0, "preprocess": 1.0, "encode": 5.0, "cluster": 1.5, "locate": 2.0, "write": 0.1}


@pytest.fixture
def profile() -> Profile:
    profile = Profile()
    profile.add({step: 0.5 * seconds for step, seconds in STEPS.items()})
    profile.add({step: 1.5 * seconds for step, seconds in STEPS.items()})
    return profile


def test_shares_are_of_the_picking_and_add_up_without_what_runs_beside_it(profile: Profile) -> None:
    shares = profile.shares()
    assert shares == {
        "reading": 0.2,
        "preprocessing": 0.1,
        "encoding": 0.5,
        "clustering": 0.15,
        "locating": 0.2,
        "writing": 0.01,
        "waiting": 0.05,
    }
    assert sum(share for label, share in shares.items() if label not in ("reading", "writing")) == pytest.approx(1)


def test_means_are_per_micrograph(profile: Profile) -> None:
    assert profile.per_micrograph() == STEPS


def test_a_line_says_how_fast_and_where_the_time_went(profile: Profile) -> None:
    assert profile.line(wall_s=8.0) == (
        "0.25 micrographs per second. Time per step: preprocessing 10%, encoding 50%, clustering 15%, locating 20%, "
        "waiting 5% (in parallel: reading 20%, writing 1%)"
    )


def test_nothing_picked_has_no_shares() -> None:
    assert Profile().shares() == {}
    assert Profile().per_micrograph() == {}
