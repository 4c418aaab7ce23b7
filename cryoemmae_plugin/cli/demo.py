"""``cryoemmae demo``: see it work on simulated micrographs."""

from __future__ import annotations

from pathlib import Path

from cryoemmae_plugin.terminal.console import Reporter


def demo(*, out: Path = Path("demo"), device: str = "auto") -> int:
    """Simulate a few micrographs, pick them, score the picks against the known positions, and draw them.

    Parameters
    ----------
    out
        Folder for micrographs and results.
    device
        auto (a GPU where there is one), cpu, or cuda:N.
    """
    reporter = Reporter()
    reporter.say("Preparing the demo")  # before the imports, which take seconds
    from cryoemmae_plugin.cli.run_demo import run_demo

    return run_demo(out, device, reporter=reporter)
