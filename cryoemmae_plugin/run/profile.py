"""Where the time of a run went."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

LABELS = {
    "read": "reading",
    "preprocess": "preprocessing",
    "encode": "encoding",
    "cluster": "clustering",
    "locate": "locating",
    "write": "writing",
    "wait": "waiting",
}
"""What to call a step; others keep their name."""

BESIDE = ("read", "write")
"""Steps that run beside the picking, in threads of their own."""


@dataclass
class Profile:
    """Adds up the seconds of micrographs by step.

    Attributes
    ----------
    seconds : dict
        Seconds by step, summed over micrographs, and over workers where there are several.
    start : float
        When the run began, by the monotonic clock.
    """

    micrographs: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    start: float = field(default_factory=time.monotonic)

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add the steps of one micrograph."""
        self.micrographs += 1
        for step, spent in seconds.items():
            self.seconds[step] += spent

    def per_micrograph(self) -> dict[str, float]:
        """Mean seconds of each step."""
        return {step: round(total / self.micrographs, 4) for step, total in self.seconds.items()}

    def shares(self) -> dict[str, float]:
        """Seconds of each step as a share of those that picking took, waiting included.

        The steps of picking and the waiting add up to 1; reading and writing come on top, since they run beside it.
        """
        whole = sum(spent for step, spent in self.seconds.items() if step not in BESIDE)
        ordered = sorted(self.seconds, key=lambda step: list(LABELS).index(step) if step in LABELS else -1)
        return {LABELS.get(step, step): round(self.seconds[step] / whole, 4) for step in ordered} if whole else {}

    @property
    def wall_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.start

    def line(self, wall_s: float | None = None) -> str:
        """Say in one line how fast it went, until now or in `wall_s` seconds, and where the time went."""
        wall_s = self.wall_s if wall_s is None else wall_s
        shares = self.shares()
        names = [LABELS[step] for step in BESIDE]
        picking = ", ".join(f"{label} {share:.0%}" for label, share in shares.items() if label not in names)
        beside = ", ".join(f"{label} {shares[label]:.0%}" for label in names if label in shares)
        rate = self.micrographs / wall_s if wall_s > 0 else 0.0
        return f"{rate:.3g} micrographs per second. Time per step: {picking} (in parallel: {beside})"
