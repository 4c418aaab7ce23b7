"""Errors keep their parts, and every front end names the settings in its own words."""

from __future__ import annotations

import ast
import doctest
import pickle
import re
from pathlib import Path

import pytest

from cryoemmae_plugin import errors
from cryoemmae_plugin.errors import (
    UNSPELLED,
    CryoemmaeError,
    DeviceError,
    ParameterNames,
    SettingsError,
    StoreError,
    render,
)
from cryoemmae_plugin.terminal.options import OPTIONS
from relion_wrapper.arguments import PARAMETERS

ABSENT = DeviceError("there is no GPU", setting="device", value="cuda:0", remedy=("wait", "use $device=cpu"))
TAKEN = StoreError("picks: holds other results", remedy=("choose another $out", "start over with $overwrite=yes"))


@pytest.mark.parametrize(
    ("err", "python", "options", "labels"),
    [
        (
            ABSENT,
            "device is 'cuda:0': there is no GPU; wait, or use device='cpu'",
            "--device is 'cuda:0': there is no GPU; wait, or use --device cpu",
            "gpu is 'cuda:0': there is no GPU; wait, or use gpu = cpu",
        ),
        (
            TAKEN,
            "picks: holds other results; choose another out, or start over with overwrite=True",
            "picks: holds other results; choose another --out, or start over with --overwrite",
            "picks: holds other results; start a new job",
        ),
        (
            SettingsError("must be greater than 0", setting="pixel_size_A", value=-1.0, remedy="see $adapt=no"),
            "pixel_size_A is -1: must be greater than 0; see adapt=False",
            "--pixel-size is -1: must be greater than 0; see --no-adapt",
            "pixel_size is -1: must be greater than 0; see adapt = no",
        ),
    ],
)
def test_each_front_end_names_its_own_parameters(err: CryoemmaeError, python: str, options: str, labels: str) -> None:
    assert str(err) == python
    assert render(err, OPTIONS) == options
    assert render(err, PARAMETERS) == labels


def test_a_remedy_that_a_front_end_does_not_have_is_left_out() -> None:
    nothing = ParameterNames(spell=lambda field: None)
    assert render(ABSENT, nothing) == "device is 'cuda:0': there is no GPU; wait"
    assert render(TAKEN, nothing) == "picks: holds other results"


def test_what_is_no_setting_stays_as_it_is() -> None:
    assert str(CryoemmaeError("$HOME/a$1.mrc costs 5$")) == "$HOME/a$1.mrc costs 5$"
    assert render(OSError("disk full"), OPTIONS) == "disk full"


@pytest.mark.parametrize(
    "name", ["$HOME x$threshold.mrc", "$threshold.mrc", "a $mode.mrc", "$out/b.mrc", "a-$adapt=no.tif"]
)
def test_a_file_name_with_dollar_signs_comes_out_as_it_is(name: str) -> None:
    err = StoreError(f"/data/{name}: cut short", remedy=f"choose another $out, or delete {name}")
    assert render(err, OPTIONS) == f"/data/{name}: cut short; choose another --out, or delete {name}"
    assert OPTIONS(render(err, UNSPELLED)) == render(err, OPTIONS)
    assert str(CryoemmaeError(f"{name!r}: gone")) == f"{name!r}: gone"


def test_several_problems_are_one_error() -> None:
    one, other = (
        SettingsError("too small", setting="limit", value=0),
        SettingsError("unknown", setting="mode", value="x"),
    )
    assert SettingsError.together([one]) is one
    both = SettingsError.together([one, other])
    assert render(both, OPTIONS) == "--limit is 0: too small; --mode is 'x': unknown"


def test_an_error_travels_between_processes_with_its_parts() -> None:
    again = pickle.loads(pickle.dumps(ABSENT))
    assert type(again) is DeviceError
    assert (again.what, again.setting, again.value, again.remedies) == (
        ABSENT.what,
        ABSENT.setting,
        ABSENT.value,
        ABSENT.remedies,
    )
    assert str(again) == str(ABSENT)


ITS_OWN = {"--preload", "--no-dashboard"}
"""Words for programs that workers start."""


def test_only_front_ends_know_the_names_of_options() -> None:
    package = Path(errors.__file__).parent
    front_ends = {package / "cli", package / "terminal"}
    below = [path for path in package.rglob("*.py") if not front_ends & {path, *path.parents}]
    found = [
        f"{path.relative_to(package)}:{node.lineno}: {node.value[:60]}"
        for path in below
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.search(r"(?<![\w`\"-])--[a-z]", node.value) and node.value not in ITS_OWN
    ]
    assert len(below) > 50
    assert not found


def test_examples_hold() -> None:
    tried = doctest.testmod(errors)
    assert tried.attempted > 0
    assert tried.failed == 0
