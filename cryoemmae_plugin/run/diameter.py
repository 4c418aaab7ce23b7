"""A diameter that nobody gave: which micrographs are asked for it, and what is kept of the answer.

The answer is kept in the result folder, so that every later run there picks with the same number, also when more
micrographs have come by then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from cryoemmae_plugin import files
from cryoemmae_plugin.core.diameter import (
    DiameterEstimate,
    SizeScan,
    estimate_diameter,
    likely_patches,
    refine_diameter,
    scan_sizes,
)
from cryoemmae_plugin.core.picker import load_head
from cryoemmae_plugin.errors import CannotTellError, ImageError, StoreError
from cryoemmae_plugin.files import output_error
from cryoemmae_plugin.run.prefetch import Loaded, load
from cryoemmae_plugin.settings import DEFAULT_MODEL, PickerSettings, RequestedSettings
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.weights import load_model

logger = logging.getLogger(__name__)

NOTE_FILE = "diameter.json"
SAMPLE = 8
"""Micrographs that are looked at, evenly spread over the list."""

Tell = Callable[[str], None]


class DiameterNote(BaseModel):
    """An estimated diameter, and what it was estimated from: the content of `NOTE_FILE`.

    Attributes
    ----------
    diameter_A : float
        The estimate, in whole Å.
    error : float
        Its likely relative error.
    particles : int
        Particles that were seen at it.
    curve : dict of str to float
        How sure the head is, by diameter in Å; 1 at most.
    extent_A : float, optional
        How long averages of them are.
    micrographs, left_out : tuple of str
        Files that were looked at, and why others could not be.
    contrast, pixel_size_A
        The settings that the estimate depends on.
    """

    model_config = ConfigDict(frozen=True)

    diameter_A: float
    error: float
    particles: int
    curve: dict[str, float]
    micrographs: tuple[str, ...]
    extent_A: float | None = None
    left_out: tuple[str, ...] = ()
    contrast: str = "dark"
    pixel_size_A: float | None = None

    def describe(self) -> str:
        """What was found and why, for the user."""
        near = [float(size) for size, confidence in self.curve.items() if confidence >= 0.5]
        count = len(self.micrographs)
        averages = "" if self.extent_A is None else f"; averages of them are {self.extent_A:g} Å long"
        return (
            f"Estimated diameter: {self.diameter_A:g} Å, give or take {self.error:.0%}. "
            f"{self.particles} particles of this size stand out in {count} micrograph{'s' if count > 1 else ''}; "
            f"seen half as well or better from {min(near):.0f} to {max(near):.0f} Å{averages}. "
            "Look at the overlays; another value is given with --diameter."
        )


def settle_diameter(
    asked: RequestedSettings,
    micrographs: Sequence[Micrograph],
    folder: Path,
    *,
    anew: bool = False,
    renew: bool = False,
    tell: Tell = logger.info,
    loader: Callable[[Micrograph], Loaded] = load,
) -> PickerSettings:
    """Settings with a number for a diameter: the one asked for, that of the folder, or an estimate.

    Parameters
    ----------
    asked : RequestedSettings
        What the user wants.
    micrographs : sequence of Micrograph
        What is going to be picked.
    folder : Path
        The result folder; keeps the estimate.
    anew : bool
        Forget what earlier runs have left there.
    renew : bool
        Estimate anew where earlier runs had another contrast or pixel size: their results are going to be thrown away.
    tell : callable
        Takes lines for the user.
    loader : callable
        Reads a micrograph.

    Raises
    ------
    CannotTellError
        When the micrographs do not say how large their particles are.
    OutputError
        When the estimate cannot be kept.
    """
    if anew:
        _forget(folder)
    if asked.diameter_A != "auto":
        return asked.with_diameter(asked.diameter_A)
    known = _known(folder, asked, renew)
    if known is not None:
        tell(f"Diameter: {known:g} Å, as in {folder} before")
        return asked.with_diameter(known)
    note = estimate_from(micrographs, asked, loader)
    files.write_note(folder / NOTE_FILE, note)
    tell(note.describe())
    return asked.with_diameter(note.diameter_A)


def estimate_from(
    micrographs: Sequence[Micrograph], asked: RequestedSettings, loader: Callable[[Micrograph], Loaded] = load
) -> DiameterNote:
    """Estimate the diameter from up to `SAMPLE` micrographs, evenly spread over the list.

    Raises
    ------
    CannotTellError
        When none can be read, or those that can do not tell.
    """
    head = load_head(load_model(asked.model_name if asked.mode == "default" else DEFAULT_MODEL["default"]))
    bright = asked.contrast == "bright"
    seen: list[Micrograph] = []
    left_out: list[str] = []
    scans: list[SizeScan] = []
    for micrograph, loaded in _readable(evenly_spread(micrographs, SAMPLE), loader, left_out):
        scans.append(scan_sizes(loaded.image, loaded.pixel_size_A, head, bright=bright))
        seen.append(micrograph)
    if not scans:
        reason = f"; first {left_out[0]}" if left_out else ""
        raise CannotTellError(f"--diameter auto: none of {len(left_out)} micrographs can be read{reason}")
    estimate = estimate_diameter(scans)
    patches = [
        likely_patches(loaded.image, loaded.pixel_size_A, estimate.diameter_A, head, bright=bright)
        for _, loaded in _readable(seen, loader, left_out)
    ]
    return _note(refine_diameter(estimate, patches), asked, [str(m.path) for m in seen], left_out)


def _readable(
    micrographs: Sequence[Micrograph], loader: Callable[[Micrograph], Loaded], left_out: list[str]
) -> Iterator[tuple[Micrograph, Loaded]]:
    """Load those micrographs that can be, one at a time; `left_out` receives why others cannot be."""
    for micrograph in micrographs:
        try:
            yield micrograph, loader(micrograph)
        except ImageError as err:
            left_out.append(str(err))


def read_note(folder: Path) -> DiameterNote | None:
    """The estimate that is kept in a folder; None where there is none.

    Raises
    ------
    StoreError
        When the file is there and cannot be read.
    """
    return files.read_note(folder / NOTE_FILE, DiameterNote, "delete it to estimate the diameter anew")


def account_for(folder: Path, diameter_A: float) -> dict[str, object]:
    """Whether a run's diameter was given or estimated, and from what, as a summary tells it."""
    try:
        note = read_note(folder)
    except StoreError:
        note = None
    if note is None or note.diameter_A != diameter_A:
        return {"estimated": False}
    return {"estimated": True} | note.model_dump(mode="json")


def evenly_spread(micrographs: Sequence[Micrograph], count: int) -> list[Micrograph]:
    """So many micrographs, evenly from the first to the last."""
    places = np.linspace(0, len(micrographs) - 1, min(count, len(micrographs))).round().astype(int)
    return [micrographs[place] for place in places]


def _known(folder: Path, asked: RequestedSettings, renew: bool) -> float | None:
    """The diameter that earlier runs in the folder have picked with, or have estimated."""
    from cryoemmae_plugin.run.store import ResultStore, has_results

    if has_results(folder):
        picked_with = ResultStore.open(folder).record.settings
        return picked_with.diameter_A if not renew or _seen_alike(picked_with, asked) else None
    note = read_note(folder)
    return note.diameter_A if note is not None and _seen_alike(note, asked) else None


def _seen_alike(before: PickerSettings | DiameterNote, asked: RequestedSettings) -> bool:
    """Whether images were looked at as they would be now."""
    return (before.contrast, before.pixel_size_A) == (asked.contrast, asked.pixel_size_A)


def _note(
    estimate: DiameterEstimate, asked: RequestedSettings, looked_at: Sequence[str], left_out: Sequence[str]
) -> DiameterNote:
    return DiameterNote(
        diameter_A=float(round(estimate.diameter_A)),
        error=round(estimate.error, 3),
        particles=estimate.particles,
        curve={f"{size:.0f}": round(value, 3) for size, value in estimate.curve},
        micrographs=tuple(looked_at),
        extent_A=None if estimate.extent_A is None else float(round(estimate.extent_A)),
        left_out=tuple(left_out),
        contrast=asked.contrast,
        pixel_size_A=asked.pixel_size_A,
    )


def _forget(folder: Path) -> None:
    try:
        (folder / NOTE_FILE).unlink(missing_ok=True)
    except OSError as err:
        raise output_error(folder, err) from err
