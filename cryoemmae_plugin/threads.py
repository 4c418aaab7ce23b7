"""How many CPU threads this process may use, and how they wait for each other."""

from __future__ import annotations

import math
import os
from pathlib import Path

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
"""Settings of the OpenMP libraries (GNU, LLVM, Intel), which they read when PyTorch is loaded."""

CGROUP = Path("/sys/fs/cgroup")


def wait_passively() -> None:
    """Let threads sleep while they wait for each other, unless the user has set one of these variables.

    By default they spin: on a busy machine, a thread that waits then takes the core that the thread it waits for needs.
    Commands call this before PyTorch is loaded. Results are the same.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ.update(WAITING)


def usable_cores() -> int:
    """Return the number of cores that this process may use: by its affinity and by the CPU limit of its cgroup."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _cgroup_limit())))


def _cgroup_limit() -> float:
    """Return the CPU limit of this process's cgroup and of those above it, in cores; infinite if there is none."""
    try:
        lines = Path("/proc/self/cgroup").read_text("ascii").splitlines()
    except (OSError, UnicodeError):
        return math.inf
    inside = next((line[3:] for line in lines if line.startswith("0::")), "/").strip("/")
    folder = CGROUP / inside
    return min(_limit_in(place) for place in (folder, *folder.parents) if place.is_relative_to(CGROUP))


def _limit_in(folder: Path) -> float:
    try:
        quota, period = (folder / "cpu.max").read_text("ascii").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
