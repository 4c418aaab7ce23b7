"""Lines in the log of a job, for the user in the CryoSPARC interface."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from cryoemmae_plugin.run.engine import AnyEngine
from cryoemmae_plugin.run.summary import RunCounts, hardware_name
from cryoemmae_plugin.settings import sizes_of
from cryoemmae_plugin.version import package_version
from cryosparc_job.request import PickRequest
from cryosparc_job.slots import Exposure, pixel_sizes

_BAR = 24


def table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """A title, then one line for each name and value."""
    width = max(len(name) for name, _ in rows)
    return "\n".join([title, *(f"  {name.ljust(width)}   {value}" for name, value in rows)])


def greeting(exposures: Sequence[Exposure], request: PickRequest, folder: Path) -> str:
    """What is picked, and how."""
    settings = request.settings
    sizes = [settings.pixel_size_A] if settings.pixel_size_A else pixel_sizes(exposures)
    pixels = f"{sizes[0]:g}" if len(sizes) == 1 else f"{sizes[0]:g} to {sizes[-1]:g}"
    ny, nx = exposures[0].shape
    rows = [
        ("exposures", f"{request.exposures}: {len(exposures)} micrographs, {nx} × {ny} px, {pixels} Å per pixel"),
        ("diameter", _diameter(settings.diameter_A, sizes[0])),
        ("contrast", f"particles {settings.contrast}"),
        ("mode", settings.mode),
        ("threshold", f"figure of merit {settings.pick_threshold:g}"),
        ("results", f"{folder} (needed to resume)"),
    ]
    if request.limit:
        rows.insert(1, ("limit", f"the first {request.limit}"))
    if request.selected:
        rows.insert(1, ("refined by", f"{request.selected}, picked by {request.picked_by}"))
    if request.flip_y:
        rows.append(("flip-y", "the vertical axis of the picks is flipped"))
    if not any(exposure.exp_group_id for exposure in exposures):
        rows.append(("note", "the exposures have no exposure groups (mscope_params, ctf); 0 is written"))
    return table(f"cryoemmae {package_version()}: particle picking without a single label", rows)


def _diameter(asked_A: float | str, pixel_size_A: float) -> str:
    if asked_A == "auto":
        return "to be estimated from the micrographs"
    if isinstance(asked_A, str):
        return ", ".join(f"{size:g} Å, {size / pixel_size_A:.0f} px" for size in sizes_of(asked_A))
    return f"{asked_A:g} Å, {asked_A / pixel_size_A:.0f} px"


def engine(engine: AnyEngine) -> str:
    """Which model picks, and where."""
    return table(
        "Ready to pick",
        [
            ("model", f"{engine.model_name}, sha256 {engine.model_sha256[:12]}"),
            ("device", f"{engine.device}, {hardware_name(str(engine.device))}"),
        ],
    )


def summary(counts: RunCounts, picks: int, median: float) -> str:
    """The results, and what to do next."""
    done = counts.skipped + counts.picked + counts.empty
    rows = [
        ("micrographs", f"{done} picked" + (f", {counts.failed} left out" if counts.failed else "")),
        ("particles", f"{picks}, {median:g} in a micrograph (median)"),
    ]
    if counts.empty:
        rows.append(("without any", f"{counts.empty} micrographs"))
    rows.append(("next", "Inspect Particle Picks (NCC score: figure of merit; power: contrast),"))
    rows.append(("", "then Extract From Micrographs and 2D Classification"))
    return table("Done", rows)


class Progress:
    """A line of progress."""

    def __init__(self, total: int, title: str = "Picking", unit: str = "picks") -> None:
        self.total, self.done = total, 0
        self._title, self._unit, self._sum = title, unit, 0
        self._start = time.monotonic()

    def advance(self, picks: int) -> str:
        """Count one micrograph, and say the line."""
        self.done, self._sum = self.done + 1, self._sum + picks
        each = (time.monotonic() - self._start) / self.done
        left = timedelta(seconds=round(each * (self.total - self.done)))
        return (
            f"{self._title}  {bar(self.done, self.total)}  {self.done} / {self.total}   "
            f"{self._sum / self.done:.0f} {self._unit} in each   {each:.1f} s each   {left} left"
        )


def bar(done: int, total: int) -> str:
    """A bar of text."""
    filled = _BAR * done // max(total, 1)
    return "[" + "#" * filled + "-" * (_BAR - filled) + "]"
