"""``cryoemmae demo``: see it work on simulated micrographs."""

from __future__ import annotations

from pathlib import Path


def demo(*, out: Path = Path("demo"), device: str = "auto") -> int:
    """Simulate a few micrographs, pick them, score the picks against the known positions, and draw them.

    Parameters
    ----------
    out
        Folder for micrographs and results.
    device
        auto (a GPU where there is one), cpu, or cuda:N.
    """
    from cryoemmae_plugin.demo import run_demo

    return run_demo(out, device)
