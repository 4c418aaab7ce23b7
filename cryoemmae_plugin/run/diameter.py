"""Estimate the particle diameter from a sample of the micrographs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.core.diameter import (
    REFINEMENTS,
    DiameterEstimate,
    LikelyParticles,
    SizeScan,
    estimate_diameter,
    likely_particles,
    measure_extent,
    scan_sizes,
)
from cryoemmae_plugin.core.picker import load_head
from cryoemmae_plugin.errors import CannotTellError, ImageError
from cryoemmae_plugin.files import Note
from cryoemmae_plugin.run.inputs import evenly_spread
from cryoemmae_plugin.run.prefetch import Loaded, Loader, load
from cryoemmae_plugin.settings import DEFAULT_MODEL, RequestedSettings
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.weights import load_model

SAMPLE = 8
"""Number of micrographs to estimate from, evenly spread over the list."""
KEPT_PX = 3072
"""Side of the middle piece of each that is kept in memory to be looked at again: 36 MB, whatever the camera."""


class DiameterNote(Note):
    """An estimated diameter, and what it was estimated from.

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

    diameter_A: float
    error: float
    particles: int
    curve: dict[str, float]
    micrographs: tuple[str, ...]
    extent_A: float | None = None
    left_out: tuple[str, ...] = ()
    contrast: str = "dark"
    pixel_size_A: float | None = None

    def holds_for(self, asked: RequestedSettings) -> bool:
        """Whether the estimate used the contrast and pixel size that `asked` has."""
        return (self.contrast, self.pixel_size_A) == (asked.contrast, asked.pixel_size_A)

    def describe(self) -> str:
        """The estimate and its reasons, for the user."""
        near = [float(size) for size, confidence in self.curve.items() if confidence >= 0.5]
        count = len(self.micrographs)
        averages = "" if self.extent_A is None else f" Averages of them are {self.extent_A:g} Å long."
        return (
            f"Estimated diameter: {self.diameter_A:g} Å, give or take {self.error:.0%}. "
            f"{self.particles} particles of this size stand out in {count} micrograph{'s' if count > 1 else ''}. "
            f"The score stays above half of its best from {min(near):.0f} to {max(near):.0f} Å.{averages} "
            "Check the picks; to use another value, give $diameter_A."
        )


def estimate_from(
    micrographs: Sequence[Micrograph],
    asked: RequestedSettings,
    loader: Loader = load,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DiameterNote:
    """Estimate the diameter from up to `SAMPLE` micrographs, evenly spread over the list.

    Each is read once. `progress` is told how many of how many looks are done: four at each micrograph.

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
    pieces: list[tuple[NDArray[np.float32], float]] = []
    sample = evenly_spread(micrographs, SAMPLE)
    looks = (1 + REFINEMENTS) * len(sample)
    progress(0, looks)
    for micrograph, loaded in _readable(sample, loader, left_out):
        scans.append(scan_sizes(loaded.image, loaded.pixel_size_A, head, bright=bright))
        pieces.append((_middle(loaded.image), loaded.pixel_size_A))
        seen.append(micrograph)
        progress(len(seen), looks)
    if not scans:
        reason = f"; first {left_out[0]}" if left_out else ""
        raise CannotTellError(f"no diameter can be estimated: none of {len(left_out)} micrographs can be read{reason}")
    rounds = count(1)

    def look(diameter_A: float) -> list[LikelyParticles]:
        earlier, likely = next(rounds) * len(sample), []
        for piece, pixel_size_A in pieces:
            likely.append(likely_particles(piece, pixel_size_A, diameter_A, head, bright=bright))
            progress(earlier + len(likely), looks)
        return likely

    estimate = measure_extent(estimate_diameter(scans), look)
    progress(looks, looks)
    return _note(estimate, asked, [str(m.path) for m in seen], left_out)


def _middle(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Copy the middle of an image (ny, nx), of at most `KEPT_PX` a side, so that the rest can be forgotten."""
    top, left = (max(0, (n - KEPT_PX) // 2) for n in image.shape)
    middle: NDArray[np.float32] = image[top : top + KEPT_PX, left : left + KEPT_PX].copy()
    return middle


def _readable(
    micrographs: Sequence[Micrograph], loader: Loader, left_out: list[str]
) -> Iterator[tuple[Micrograph, Loaded]]:
    """Load the readable micrographs, one at a time; `left_out` receives the errors of the others."""
    for micrograph in micrographs:
        try:
            yield micrograph, loader(micrograph)
        except ImageError as err:
            left_out.append(str(err))


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
