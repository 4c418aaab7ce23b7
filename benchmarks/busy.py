"""Seconds to pick a micrograph beside other busy processes, against the same on its own.

    python benchmarks/busy.py [--busy 2] [--pairs 3] [--pixels 2048]

Runs alternate: alone, then beside busy processes. Each variant is a process of its own. "as shipped" is what commands
do; "spinning" is OpenMP's own way of waiting; "one thread" is `--threads 1`. Figures hold for an idle machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

SPINNING = {"KMP_BLOCKTIME": "200"}
"""A choice of the user, with which the program leaves all others as the libraries have them."""
VARIANTS: dict[str, tuple[int, dict[str, str]]] = {
    "as shipped": (0, {}),
    "spinning": (0, SPINNING),
    "one thread": (1, {}),
}
BUSY_LOOP = "x = 1\nwhile True: x = x * 3 % 1000003"


def pick_here(threads: int, pixels: int) -> float:
    """Pick a simulated micrograph in this process; the seconds of the second time."""
    from cryoemmae_plugin.memory import use_huge_pages
    from cryoemmae_plugin.threads import wait_passively

    use_huge_pages()
    wait_passively()
    import numpy as np
    import torch

    from cryoemmae_plugin.core.picker import CandidatePicker
    from cryoemmae_plugin.device import use_threads
    from cryoemmae_plugin.settings import PickerSettings
    from cryoemmae_plugin.weights import load_model

    use_threads(threads)
    image = np.random.default_rng(0).normal(size=(pixels, pixels)).astype(np.float32)
    settings = PickerSettings(diameter_A=160)
    picker = CandidatePicker(load_model(settings.model_name), settings, torch.device("cpu"))
    picker.pick(image, 1.5)
    start = time.perf_counter()
    picker.pick(image, 1.5)
    return time.perf_counter() - start


@contextmanager
def beside(count: int) -> Iterator[None]:
    """Keep `count` processes busy."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY_LOOP]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(threads: int, changes: dict[str, str], pixels: int) -> float:
    """Pick in a process of its own."""
    command = [sys.executable, __file__, "--child", str(threads), "--pixels", str(pixels)]
    done = subprocess.run(command, env=os.environ | changes, check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--pixels", type=int, default=2048)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(pick_here(options.child, options.pixels))
        return
    alone: dict[str, list[float]] = {name: [] for name in VARIANTS}
    busy: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(options.pairs):
        for name, (threads, changes) in VARIANTS.items():
            alone[name].append(measure(threads, changes, options.pixels))
            with beside(options.busy):
                busy[name].append(measure(threads, changes, options.pixels))
    print(
        f"load average at the end: {os.getloadavg()[0]:.1f}; cores: {os.cpu_count()}; median of {options.pairs} pairs"
    )
    print(f"{'':12}  alone s  busy s  busy / alone")
    for name in VARIANTS:
        ratio = median(b / a for a, b in zip(alone[name], busy[name], strict=True))
        print(f"{name:12}  {median(alone[name]):7.2f}  {median(busy[name]):6.2f}  {ratio:12.2f}")


if __name__ == "__main__":
    main()
