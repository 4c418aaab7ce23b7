"""Settings are checked when they are made, and an error says which one is wrong and what would be right."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
from pydantic import ValidationError

from cryoemmae_plugin import settings
from cryoemmae_plugin.errors import SettingsError
from cryoemmae_plugin.settings import (
    DEFAULT_THRESHOLD,
    PURITY_THRESHOLD,
    DeviceOptions,
    Options,
    PickerSettings,
    RequestedSettings,
)
from cryoemmae_plugin.training.recipe import FitSettings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "diameter_A is missing"),
        ({"diameter": 150}, "there is no setting 'diameter'; do you mean diameter_A?"),
        (
            {"diameter_A": 150, "colour": "red"},
            "there is no setting 'colour'; choose from diameter_A, pixel",
        ),
        ({"diameter_A": "wide"}, "diameter_A is 'wide': must be a number, or 'auto'"),
        ({"diameter_A": -5}, "diameter_A is -5: must be greater than 0, or 'auto'"),
        ({"diameter_A": 150, "threshold": 2}, "threshold is 2: must be at most 1"),
        ({"diameter_A": 150, "adapt": "perhaps"}, "adapt is 'perhaps': say yes or no"),
        (
            {"diameter_A": 150, "mode": "fast", "edge_distance": -1},
            "mode is 'fast': must be 'default' or 'paper'; ",
        ),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        RequestedSettings(**values)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "name"),
    [(DeviceOptions, "threads"), (FitSettings, "epochs"), (FitSettings, "batch"), (FitSettings, "seed")],
)
def test_a_number_beyond_what_libraries_take_is_refused(options: type[Options], name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is 9{{20}}: must be"):
        options(**{name: int("9" * 20)})


def test_settings_in_a_file_are_checked_by_the_reader_of_the_file() -> None:
    with pytest.raises(ValidationError):
        PickerSettings.model_validate_json('{"diameter_A": -1}')


def test_examples_hold() -> None:
    tried = doctest.testmod(settings)
    assert tried.attempted > 0
    assert tried.failed == 0


def test_a_purity_stands_for_a_threshold() -> None:
    settings = RequestedSettings(diameter_A=100, purity="high")
    assert settings.pick_threshold == PURITY_THRESHOLD["high"]
    assert settings.with_diameter(100) == PickerSettings(diameter_A=100, threshold=PURITY_THRESHOLD["high"])
    assert RequestedSettings(diameter_A=100, purity="balanced").pick_threshold == DEFAULT_THRESHOLD["default"]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"purity": "high", "threshold": 0.7}, "one of the two"),
        ({"purity": "high", "mode": "paper"}, "belongs to default mode"),
        ({"purity": "best"}, "purity is 'best'"),
        ({"drop_group": "0"}, "give something like 3, or 3,5"),
    ],
)
def test_a_purity_or_group_that_cannot_be_is_refused(values: dict[str, object], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        RequestedSettings(diameter_A=100, **values)
