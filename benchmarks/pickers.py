"""What picks in a benchmark: cryoemmae from its command line, variants of it in this process; and the store of picks.

A picker has a name, a default threshold and a fingerprint. Its candidates are kept per micrograph under
``DIR/STORE/SET/`` and are used again as long as the fingerprint is the same: a run that was interrupted goes on, and
one with other code, another model or other options starts anew.
"""

from __future__ import annotations

import hashlib
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sets import BenchmarkSet

import cryoemmae_plugin
from cryoemmae_plugin.evaluation.metrics import Scored
from cryoemmae_plugin.images import read_image
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.settings import DEFAULT_MODEL, DEFAULT_THRESHOLD
from cryoemmae_plugin.types import Picks
from cryoemmae_plugin.weights import Model, load_model

Variant = Callable[[NDArray[np.float32], Model, float], Picks]
"""(image with dark particles, model on the CPU, diameter in pixels) -> all candidates."""


@dataclass(frozen=True)
class Found:
    """All candidates of one micrograph, and the processor seconds that they took: other work does not change those."""

    stem: str
    candidates: Scored
    seconds: float


class Picker(Protocol):
    """Anything that finds candidates in micrographs."""

    @property
    def name(self) -> str:
        """For tables."""

    @property
    def store(self) -> str:
        """For folders; pickers that differ by nothing but the threshold share one."""

    @property
    def default_threshold(self) -> float:
        """Score from which a candidate is picked when nobody asks for more or fewer."""

    @property
    def fingerprint(self) -> str:
        """Changes with everything that candidates depend on but the images."""

    def pick(self, chosen: BenchmarkSet, paths: list[Path], work: Path) -> Iterator[Found]:
        """Find the candidates in `paths`, micrographs of the set; `work` is a folder to work in."""


@dataclass(frozen=True)
class CommandLine:
    """``cryoemmae pick`` with its default settings, as a user runs it; or without adapting to the micrographs."""

    mode: str = "default"
    model: str | None = None
    device: str = "cpu"
    adapt: bool = True

    @property
    def name(self) -> str:
        """The mode, the model where it is not the mode's own, and whether it is left as it is."""
        model = f"-{Path(self.model).name}" if self.model else ""
        return f"cryoemmae-{self.mode}{model}" + ("" if self.adapt else "-unadapted")

    @property
    def store(self) -> str:
        """A folder of its own."""
        return self.name

    @property
    def default_threshold(self) -> float:
        """Of the mode."""
        return DEFAULT_THRESHOLD[self.mode]

    @property
    def fingerprint(self) -> str:
        """The package's source and the model's weights."""
        weights = load_model(self.model or DEFAULT_MODEL[self.mode]).sha256
        return f"{self.name} {source_hash()} {weights}"

    def pick(self, chosen: BenchmarkSet, paths: list[Path], work: Path) -> Iterator[Found]:
        """Run the command on the micrographs; the seconds are the run's, its start included, over their number."""
        out = work / "run"
        command = ["pick", *map(str, paths), "--out", str(out)]
        command += ["--diameter", f"{chosen.diameter_A:.6g}", "--mode", self.mode, "--device", self.device]
        command += ["--overlays", "none", "--overwrite", *(["--model", self.model] if self.model else [])]
        command += [] if self.adapt else ["--no-adapt"]
        clock = ChildClock()
        run_cryoemmae(command)
        seconds = clock.seconds() / len(paths)
        for stem, candidates in candidates_of(out).items():
            yield Found(stem, candidates, seconds)


@dataclass(frozen=True)
class InProcess:
    """A variant of the default mode, called in this process: for ablations."""

    variant: str
    function: Variant
    model: str | None = None

    @property
    def name(self) -> str:
        """The variant's."""
        return f"variant-{self.variant}"

    @property
    def store(self) -> str:
        """A folder of its own."""
        return self.name

    @property
    def default_threshold(self) -> float:
        """Of the default mode."""
        return DEFAULT_THRESHOLD["default"]

    @property
    def fingerprint(self) -> str:
        """The package's source, the variants' and the model's weights."""
        weights = load_model(self.model or DEFAULT_MODEL["default"]).sha256
        return f"{self.name} {source_hash()} {file_hash(Path(__file__).with_name('variants.py'))} {weights}"

    def pick(self, chosen: BenchmarkSet, paths: list[Path], work: Path) -> Iterator[Found]:
        """Call the variant on each micrograph."""
        model = load_model(self.model or DEFAULT_MODEL["default"])
        for path in paths:
            image = read_image(path)
            start = time.process_time()
            with torch.inference_mode():
                picks = self.function(image, model, chosen.diameter_px)
            seconds = time.process_time() - start
            yield Found(path.stem, Scored(picks.xy, picks.score.astype(float)), seconds)


def pick_set(picker: Picker, chosen: BenchmarkSet, work: Path, paths: Sequence[Path] | None = None) -> dict[str, Found]:
    """Candidates of every micrograph of a set, or of `paths` of it, by stem: stored ones, and the others found now."""
    paths = chosen.micrographs() if paths is None else paths
    folder = work / picker.store / chosen.name
    stored = PickStore(folder, f"{picker.fingerprint} {chosen.fingerprint()}")
    found = {path.stem: stored.load(path.stem) for path in paths}
    missing = [path for path in paths if found[path.stem] is None]
    if missing:
        for fresh in picker.pick(chosen, missing, folder / "work"):
            stored.save(fresh)
            found[fresh.stem] = fresh
    absent = [stem for stem, result in found.items() if result is None]
    if absent:
        raise SystemExit(f"{picker.name} left no result for {', '.join(absent)} of {chosen.name}")
    return {stem: result for stem, result in found.items() if result is not None}


class PickStore:
    """Candidates of one picker on one set: an ``.npz`` a micrograph; emptied when the fingerprint has changed."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder = folder
        mark = folder / "fingerprint.txt"
        if not mark.exists() or mark.read_text() != fingerprint:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            mark.write_text(fingerprint)

    def load(self, stem: str) -> Found | None:
        """The candidates of a micrograph, or None."""
        path = self._folder / f"{stem}.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as arrays:
            return Found(stem, Scored(arrays["xy"], arrays["score"]), float(arrays["seconds"]))

    def save(self, found: Found) -> None:
        """Keep them, at once or not at all."""
        partial = self._folder / f"{found.stem}.partial.npz"
        np.savez(partial, xy=found.candidates.xy, score=found.candidates.score, seconds=found.seconds)
        partial.replace(self._folder / f"{found.stem}.npz")


def call(command: list[str], **options: object) -> None:
    """Run another program; where it fails, end with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )


QUIET = ("--overlays", "none", "--report", "none", "--device", "cpu")
"""Options of a run that nobody looks at."""


def run_cryoemmae(words: Sequence[str]) -> None:
    """Run `cryoemmae` from its command line; where it fails, end with what it said."""
    call([sys.executable, "-m", "cryoemmae_plugin", *words])


def candidates_of(run: Path) -> dict[str, Scored]:
    """All candidates that a run has stored, by the micrograph's name without its suffix."""
    with ResultStore.open(run) as store:
        found = {Path(result.micrograph).stem: result.picks for result in store}
    return {stem: Scored(picks.xy, picks.score.astype(float)) for stem, picks in found.items()}


class ChildClock:
    """Processor seconds of the programs that were started and have ended since."""

    def __init__(self) -> None:
        self._start = self._now()

    def seconds(self) -> float:
        """User and system time of them all."""
        return self._now() - self._start

    @staticmethod
    def _now() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime


def source_hash() -> str:
    """Identify the package's source: a benchmark must not score what older code has picked."""
    digest = hashlib.sha256()
    for path in sorted(Path(cryoemmae_plugin.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def file_hash(path: Path) -> str:
    """Identify one file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
