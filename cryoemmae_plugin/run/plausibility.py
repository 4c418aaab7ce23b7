"""Check whether the results fit the pixel size, diameter and contrast that the user gave.

After the first micrographs, a few of them are compared at other diameters and with the other contrast. At the end, the
picks of all are counted. Each problem is one warning, with the value that would fit where it is known.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.core.picker import load_head
from cryoemmae_plugin.core.size_check import BetterFit, find_better_fit
from cryoemmae_plugin.errors import ImageError, ModelError
from cryoemmae_plugin.run.prefetch import Loader
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.stream import MicrographResult
from cryoemmae_plugin.settings import DEFAULT_MODEL, PickerSettings
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.weights import load_model

logger = logging.getLogger(__name__)

FIRST = 3
"""Micrographs after which the first comparison is made."""
RUN_PER_COMPARISON = 20
"""One micrograph in this many is compared, so that it takes a small part of the run; at least 1, at most `FIRST`, and
all of the first where they show no picks."""
CROWDED = 0.85
"""Share of the frame under the discs of the picks that only overlapping or packed particles reach."""
LEAST_EMPTY, EMPTY_SHARE = 4, 0.5
"""Micrographs without picks that are worth a warning beside others with picks."""
FAINT = 0.02
"""Threshold at which the candidates of very faint particles are seen, and of much else."""
CHECK = "Check, in this order: $pixel_size_A, $diameter_A, $contrast"


class Plausibility:
    """Collects the results of a run, and warns of what does not fit the settings; once for each problem.

    Parameters
    ----------
    pending, skipped : int
        Micrographs that the run is going to pick, and those that earlier runs have picked.
    """

    def __init__(
        self,
        settings: PickerSettings,
        selection: Selection,
        pending: int,
        loader: Loader,
        skipped: int = 0,
    ) -> None:
        self._settings, self._selection, self._loader = settings, selection, loader
        self._pending, self._skipped = pending, skipped
        self._first: list[Micrograph] = []
        self._picked, self._empty, self._faint = 0, 0, 0
        self._coverage: list[float] = []
        self._explained = False

    def add(self, outcome: MicrographResult) -> list[str]:
        """Count one micrograph; the warnings that follow from the first ones."""
        result = outcome.result
        if result is None:
            return []
        candidates = self._selection.candidates(result)
        picks = candidates.above(self._selection.threshold)
        self._faint += len(candidates.above(FAINT))
        diameters_px = np.broadcast_to(picks.diameter_px(self._settings.diameter_A, result.pixel_size_A), len(picks))
        self._coverage.append(float((diameters_px**2).sum()) * math.pi / 4 / math.prod(picks.shape))
        self._picked += bool(len(picks))
        self._empty += not len(picks)
        if len(self._first) == FIRST:
            return []
        self._first.append(outcome.micrograph)
        if len(self._first) < min(FIRST, self._pending):
            return []
        found = self._compare()
        if not found and not self._picked and self._pending > FIRST and not self._skipped:
            self._explained = True
            return [nothing_found(f"the first {FIRST} micrographs", self._faint / FIRST)]
        return found

    def conclude(self) -> list[str]:
        """The warnings that follow from all micrographs."""
        late = [] if len(self._first) == min(FIRST, self._pending) else self._compare()  # some have failed
        if self._explained:
            return late  # what was reported needs no second warning
        done = self._picked + self._empty
        if self._empty == done >= (LEAST_EMPTY if self._skipped else 1):
            where = "this micrograph" if done == 1 else f"any of {done} micrographs"
            return [*late, nothing_found(where, self._faint / done)]
        if self._coverage and np.median(self._coverage) > CROWDED:
            share = float(np.median(self._coverage))
            return [
                *late,
                f"The picks are implausibly dense: their discs cover {share:.0%} of the micrograph. They may be parts "
                f"of larger particles, or background. {CHECK}",
            ]
        if self._empty >= LEAST_EMPTY and self._empty >= EMPTY_SHARE * done:
            return [*late, f"{self._empty} of {done} micrographs have no picks. Look at some of them; lower $threshold"]
        return late

    def _compare(self) -> list[str]:
        if self._settings.sizes_A:
            return []  # particles of other sizes are there
        try:
            head = load_head(load_model(DEFAULT_MODEL["default"]))
        except ModelError as err:
            logger.debug("not compared with the settings: %s", err)
            return []
        count = int(np.clip(self._pending // RUN_PER_COMPARISON, 1, FIRST)) if self._picked else FIRST
        sample = _Sample(self._first[:count], self._settings.diameter_A, self._loader)
        fit = find_better_fit(sample, head, bright=self._settings.contrast == "bright")
        self._explained = fit is not None
        return [] if fit is None else [describe(fit, sample.pixel_size_A, self._settings)]


class _Sample:
    """Reads some micrographs, as often as it is called; those that cannot be read are left out.

    Attributes
    ----------
    pixel_size_A : float
        Of the last one.
    """

    def __init__(self, micrographs: Sequence[Micrograph], diameter_A: float, loader: Loader) -> None:
        self._micrographs, self._diameter_A, self._loader = micrographs, diameter_A, loader
        self.pixel_size_A = math.nan

    def __call__(self) -> Iterator[tuple[NDArray[np.float32], float]]:
        """Give each image, and the diameter in its pixels."""
        for micrograph in self._micrographs:
            if not micrograph.path.is_file():
                continue  # a file that is not on this host is not fetched again for this
            try:
                loaded = self._loader(micrograph)
            except ImageError as err:
                logger.debug("not compared with the settings: %s", err)
                continue
            self.pixel_size_A = loaded.pixel_size_A
            yield loaded.image, self._diameter_A / loaded.pixel_size_A


def nothing_found(where: str, faint: float) -> str:
    """What to check, in which order, where no pick was found; and how many faint candidates a micrograph has."""
    if faint < 1:
        return f"No picks in {where}. {CHECK}. If these are right, there is not even a faint candidate"
    return (
        f"No picks in {where}. {CHECK}. If these are right, very faint particles may be among the {faint:.0f} "
        f"candidates a micrograph that $threshold={FAINT:g} would show"
    )


def describe(fit: BetterFit, pixel_size_A: float, settings: PickerSettings) -> str:
    """What does not fit, what to check, and the value that would fit."""
    if fit.inverted:
        now, other = ("lighter", "dark") if settings.contrast == "bright" else ("darker", "bright")
        return f"The particles do not seem to be {now} than the ice. Check $contrast first: $contrast={other} would fit"
    size = "smaller" if fit.factor < 1 else "larger"
    return (
        f"The particles seem to be {size} than {settings.diameter_A:g} Å at {pixel_size_A:.4g} Å/px. {CHECK}. "
        f"What would fit: a pixel size of {pixel_size_A / fit.factor:.2g} Å with this diameter, or a diameter of "
        f"{_rounded(settings.diameter_A * fit.factor)} Å with this pixel size"
    )


def _rounded(diameter_A: float) -> int:
    return round(diameter_A / 10) * 10 if diameter_A >= 100 else round(diameter_A)
