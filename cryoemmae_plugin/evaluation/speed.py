"""How long the steps of picking take: whole micrographs through whole pickers, turn and turn about."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from cryoemmae_plugin.core.picker import CandidatePicker
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.run.prefetch import load
from cryoemmae_plugin.run.store import ResultStore, RunRecord
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.version import release
from cryoemmae_plugin.weights import Model

STEPS = ("read", "preprocess", "encode", "cluster", "locate", "write")
TOTAL = "total"


class TwoClocks(StepTimer):
    """A timer that books the processor's time beside the wall's: on a busy machine only the former can be compared.

    Attributes
    ----------
    cpu : dict of str to float
        Seconds of processor time by step, of all threads of this process.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        super().__init__(device)
        self.cpu: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Book the time spent inside the `with` block under `name`, also when it raises."""
        start = time.process_time()
        try:
            with super().step(name):
                yield
        finally:
            self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - start


class Contender(Protocol):
    """Something that takes a micrograph from its file to its picks."""

    name: str

    def run(self, micrograph: Micrograph, timer: StepTimer) -> int:
        """Pick a micrograph, book the steps under their names in `STEPS`, and return how many picks there are."""
        ...


class Ours:
    """Our picker in one mode, as a run uses it but without reading ahead.

    Parameters
    ----------
    folder : Path
        Receives the results.
    """

    def __init__(self, model: Model, settings: PickerSettings, device: torch.device, folder: Path) -> None:
        self.name: str = settings.mode
        self._picker = CandidatePicker(model, settings, device)
        record = RunRecord(version=release(), model_name=model.card.name, model_sha256=model.sha256, settings=settings)
        self._store = ResultStore(folder, record)
        self._threshold = settings.pick_threshold

    def run(self, micrograph: Micrograph, timer: StepTimer) -> int:
        """Pick a micrograph and store the result."""
        with timer.step("read"):
            loaded = load(micrograph)
        picks = self._picker.pick(loaded.image, loaded.pixel_size_A, timer)
        with timer.step("write"):
            self._store.save(micrograph, picks, loaded.pixel_size_A, loaded.source_bytes)
        return int((picks.score >= self._threshold).sum())


@dataclass(frozen=True)
class Measured:
    """One micrograph through one contender.

    Attributes
    ----------
    wall, cpu : dict of str to float
        Seconds by step.
    """

    contender: str
    micrograph: str
    turn: int
    picks: int
    wall: dict[str, float]
    cpu: dict[str, float]

    def seconds(self, clock: str, step: str) -> float:
        """Seconds of a step, or of all of them, by the clock "wall" or "cpu"; 0 for a step that it does not have."""
        booked: dict[str, float] = getattr(self, clock)
        return sum(booked.values()) if step == TOTAL else booked.get(step, 0.0)


@dataclass(frozen=True)
class Ratio:
    """How many times longer one contender takes than another, over all pairs of runs.

    Attributes
    ----------
    median, low, high : float
        Median, and the smallest and largest.
    """

    median: float
    low: float
    high: float
    pairs: int


def measure(
    contenders: Sequence[Contender],
    micrographs: Sequence[Micrograph],
    repeats: int = 1,
    device: torch.device | None = None,
    progress: Callable[[Measured], None] = lambda measured: None,
) -> list[Measured]:
    """Run every contender on every micrograph, one right after the other, each first in its turn.

    Parameters
    ----------
    device : torch.device, optional
        A GPU is waited for at the end of each step.
    """
    runs: list[Measured] = []
    for turn in range(repeats):
        for at, micrograph in enumerate(micrographs):
            first = (turn + at) % len(contenders)
            for contender in (*contenders[first:], *contenders[:first]):
                timer = TwoClocks(device)
                picks = contender.run(micrograph, timer)
                runs.append(Measured(contender.name, micrograph.uid, turn, picks, timer.seconds, timer.cpu))
                progress(runs[-1])
    return runs


def median_seconds(runs: Sequence[Measured], contender: str, clock: str) -> dict[str, float]:
    """Median seconds of each step of a contender, and of their total."""
    own = [run for run in runs if run.contender == contender]
    return {step: statistics.median(run.seconds(clock, step) for run in own) for step in (*STEPS, TOTAL)}


def paired_ratios(runs: Sequence[Measured], slower: str, faster: str, clock: str) -> dict[str, Ratio]:
    """Ratio of two contenders by step: of each pair of runs on the same micrograph in the same turn.

    Steps that one of the two does not have are left out.
    """
    first, second = ({(r.micrograph, r.turn): r for r in runs if r.contender == name} for name in (slower, faster))
    ratios = {}
    for step in (*STEPS, TOTAL):
        pairs = [(first[key].seconds(clock, step), second[key].seconds(clock, step)) for key in first if key in second]
        values = [long / short for long, short in pairs if long > 0 and short > 0]
        if values:
            ratios[step] = Ratio(statistics.median(values), min(values), max(values), len(values))
    return ratios
