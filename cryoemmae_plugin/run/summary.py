"""``summary.json``: what a run did, with what, and how long it took."""

from __future__ import annotations

import json
import platform
import re
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from cryoemmae_plugin.errors import PYTHON
from cryoemmae_plugin.files import read_bytes, write_json
from cryoemmae_plugin.run.outputs import Totals
from cryoemmae_plugin.run.preparation import diameter_account
from cryoemmae_plugin.run.profile import Profile
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import RunRecord
from cryoemmae_plugin.run.stream import MicrographResult
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.version import package_version

Status = Literal["running", "done", "interrupted", "failed"]
SUMMARY_FILE = "summary.json"
PACKAGES = ("torch", "numpy", "scipy", "mrcfile")
RETHRESHOLDED = "rethresholded"
"""Entry that is true where the user has chosen among the candidates after picking."""


@dataclass
class RunCounts:
    """How the micrographs of one run ended; `skipped` were done by an earlier run."""

    micrographs: int = 0
    skipped: int = 0
    picked: int = 0
    empty: int = 0
    failed: int = 0

    @property
    def remaining(self) -> int:
        """Micrographs that the run has not reached."""
        return self.micrographs - self.skipped - self.picked - self.empty - self.failed


@dataclass
class RunLog:
    """Adds up the results of a run as they come.

    Attributes
    ----------
    failures : list of dict
        Micrograph and reason of each that failed.
    profile : Profile
        Where the time of those that were picked went.
    seconds : dict
        Seconds that picking took, by the path of the micrograph.
    warnings : list of str
        What does not fit the settings; settings are named as ``$field``.
    """

    selection: Selection
    counts: RunCounts = field(default_factory=RunCounts)
    failures: list[dict[str, str]] = field(default_factory=list)
    profile: Profile = field(default_factory=Profile)
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def threshold(self) -> float:
        """Figure of merit from which a candidate is a pick."""
        return self.selection.threshold

    def add(self, outcome: MicrographResult) -> int:
        """Count one micrograph; its number of picks."""
        if outcome.result is None:
            self.counts.failed += 1
            self.failures.append({"micrograph": str(outcome.micrograph.path), "reason": outcome.reason or ""})
            return 0
        self.profile.add(outcome.seconds)
        self.seconds[str(outcome.micrograph.path)] = sum(s for step, s in outcome.seconds.items() if step != "wait")
        picks = len(self.selection.picks(outcome.result))
        if picks:
            self.counts.picked += 1
        else:
            self.counts.empty += 1
        return picks

    def timings(self) -> dict[str, Any]:
        """Seconds of the run, per micrograph, and per micrograph and step; shares as in :meth:`Profile.shares`."""
        done, wall = self.profile.micrographs, self.profile.wall_s
        return {
            "wall_s": round(wall, 3),
            "micrographs": done,
            "micrographs_per_s": round(done / wall, 4) if wall else None,
            "per_micrograph_s": round(wall / done, 4) if done else None,
            "per_micrograph_by_step_s": self.profile.per_micrograph(),
            "share_by_step": self.profile.shares(),
        }


def write_summary(
    folder: Path, record: RunRecord, log: RunLog, totals: Totals | None, status: Status, device: str
) -> None:
    """Write the summary of a run.

    Parameters
    ----------
    totals : Totals or None
        Those of all results in the folder; None where none were written.
    device : str
        Where the run computes.

    A run that has picked nothing leaves the timings and the warnings of the run before it.
    """
    hardware = hardware_name(device)
    timings = log.timings() | {"hardware": hardware}
    warnings: object = [PYTHON(text) for text in log.warnings]
    before = read_summary(folder)
    if not log.profile.micrographs:
        timings, warnings = before.get("timings") or timings, before.get("warnings") or warnings
    summary = {
        "status": status,
        "written": _now(),
        "command": sys.argv,
        "settings": record.settings.model_dump() | log.selection.settings(),
        RETHRESHOLDED: before.get(RETHRESHOLDED) is True and _choices_in(before) == log.selection.settings(),
        "diameter": diameter_account(folder, record.settings.diameter_A),
        "model": {"name": record.model_name, "sha256": record.model_sha256},
        "fingerprint": record.fingerprint,
        "device": {"torch": device, "name": hardware},
        "versions": versions(),
        "run": asdict(log.counts) | {"remaining": log.counts.remaining},
        "failed": [failure | {"reason": PYTHON(failure["reason"])} for failure in log.failures],
        "warnings": warnings,
        "total": _totals(totals) if totals else None,
        "timings": timings,
        "peak_memory_MB": peak_memory(),
    }
    _write(folder, summary)


def _totals(totals: Totals) -> dict[str, Any]:
    """What is in the files; picks by size only where there are several."""
    found = asdict(totals)
    return found if totals.by_diameter_A else {name: found[name] for name in ("picked", "empty", "picks")}


def saved_selection(folder: Path, record: RunRecord) -> Selection:
    """Which candidates the files in a result folder hold: what its summary says, or else the defaults.

    Before there was a least distance between picks, all were kept.
    """
    return replace(Selection.of(record.settings), **_choices_in(read_summary(folder)))


def settle_selection(folder: Path, settings: PickerSettings) -> tuple[Selection, str]:
    """Which candidates a run takes for picks, and a line for the user where this is not what the folder held.

    What the user has chosen by rethreshold stays, unless the run is asked for something else.
    """
    asked, summary = Selection.of(settings), read_summary(folder)
    before = _choices_in(summary)
    if summary.get(RETHRESHOLDED) is True:
        left_open = {name for name in before if getattr(settings, name) == PickerSettings.model_fields[name].default}
        asked = replace(asked, **{name: before[name] for name in left_open})
        if "threshold" in left_open:
            return asked, f"Threshold {asked.threshold:g}, as chosen with rethreshold. For another one, give $threshold"
    threshold = before.get("threshold", asked.threshold)
    if threshold != asked.threshold:
        return asked, f"Threshold {asked.threshold:g}; the picks in {folder} had {threshold:g} until now"
    return asked, ""


def _choices_in(summary: dict[str, Any]) -> dict[str, Any]:
    """The output settings that a summary holds, where they make sense."""
    saved = summary.get("settings")
    if not isinstance(saved, dict):
        return {}
    known, limits = {"min_distance": 0.0} | saved, {"threshold": 1.0, "edge_distance": 5.0, "min_distance": 5.0}
    valid = {name: float(known[name]) for name, most in limits.items() if _is_within(known.get(name), most)}
    groups = known.get("drop_group")
    drop_group = groups if isinstance(groups, str) and re.fullmatch(r"(\d+(,\d+)*)?", groups) else None
    return valid | {"drop_group": drop_group}


def saved_failures(folder: Path) -> dict[str, str]:
    """Why micrographs of an earlier run have failed, by their path."""
    failed = read_summary(folder).get("failed")
    entries = [entry for entry in failed if isinstance(entry, dict)] if isinstance(failed, list) else []
    return {str(entry.get("micrograph")): str(entry.get("reason") or "") for entry in entries}


def _is_within(value: object, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most


def update_summary(folder: Path, selection: Selection, totals: Totals) -> None:
    """Note in an earlier run's summary that its files were written again with another selection."""
    summary = read_summary(folder)
    if not isinstance(summary.get("settings"), dict):
        return  # the files stand for themselves
    summary["settings"] |= selection.settings()
    summary[RETHRESHOLDED] = True
    _write(folder, summary | {"written": _now(), "total": _totals(totals)})


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that picks depend on."""
    found = {"cryoemmae": package_version(), "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def peak_memory() -> int:
    """Largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3 / 1.024))


def hardware_name(device: str) -> str:
    """Name of the GPU, or of the processor."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    lines: Sequence[str] = ()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of an earlier run; empty where there is none that can be read."""
    try:
        summary = json.loads(read_bytes(folder / SUMMARY_FILE))
    except (OSError, ValueError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}


def _write(folder: Path, summary: dict[str, Any]) -> None:
    write_json(folder / SUMMARY_FILE, summary)
