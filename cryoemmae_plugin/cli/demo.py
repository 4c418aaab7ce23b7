"""``cryoemmae demo``: see it work on simulated micrographs."""

from __future__ import annotations

from pathlib import Path

from cryoemmae_plugin.terminal.console import Reporter
from cryoemmae_plugin.terminal.options import OneDevice


def demo(*, out: Path = Path("demo"), device: OneDevice = "auto") -> int:
    """Simulate a few micrographs, pick them, score the picks against the known positions, and draw them.

    Parameters
    ----------
    out
        Folder for micrographs and results.
    """
    reporter = Reporter()
    reporter.say("Preparing the demo")  # before the imports, which take seconds
    from cryoemmae_plugin.cli.run_demo import run_demo

    return run_demo(out, device, reporter=reporter)
