"""Large pages: asked for by the commands, got where the system has them, left alone where the user says so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cryoemmae_plugin.cli import main
from cryoemmae_plugin.memory import HUGE_PAGES_VARIABLE, use_huge_pages

SYSTEM = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TENSOR = """
from cryoemmae_plugin.memory import use_huge_pages
use_huge_pages()
import torch
kept = torch.zeros(64 << 20, dtype=torch.uint8)
print(open("/proc/self/smaps_rollup").read())
"""


def test_commands_ask_for_large_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HUGE_PAGES_VARIABLE, "")  # so that it is put back afterwards
    monkeypatch.delenv(HUGE_PAGES_VARIABLE)
    main(["--version"])
    assert os.environ[HUGE_PAGES_VARIABLE] == "1"


def test_a_users_choice_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HUGE_PAGES_VARIABLE, "0")
    use_huge_pages()
    assert os.environ[HUGE_PAGES_VARIABLE] == "0"


@pytest.mark.slow
@pytest.mark.skipif(
    not SYSTEM.exists() or "[never]" in SYSTEM.read_text(), reason="this system hands out no large pages"
)
def test_tensors_lie_in_large_pages() -> None:
    environment = {name: value for name, value in os.environ.items() if name != HUGE_PAGES_VARIABLE}
    done = subprocess.run([sys.executable, "-c", TENSOR], capture_output=True, text=True, env=environment, check=True)
    found = re.search(r"AnonHugePages: +(\d+) kB", done.stdout)
    assert found is not None
    assert int(found[1]) > 32 << 10
