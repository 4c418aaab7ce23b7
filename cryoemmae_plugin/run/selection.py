"""Which stored candidates are picks: a choice at output time, so that it can change without picking again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.core.suppression import non_maximum_suppression
from cryoemmae_plugin.run.record import Result
from cryoemmae_plugin.settings import OUTPUT_SETTINGS, PickerSettings
from cryoemmae_plugin.types import Picks


@dataclass(frozen=True)
class Selection:
    """The rule that makes picks of candidates.

    Attributes
    ----------
    threshold : float
        Least figure of merit.
    edge_distance : float
        Least distance of a centre from the frame, in diameters.
    min_distance : float
        Least distance of two picks, in diameters.
    drop_group : str or None
        Groups of picks that are left out, such as "3" or "3,5".
    """

    threshold: float
    diameter_A: float
    edge_distance: float
    min_distance: float
    drop_group: str | None = None

    @classmethod
    def of(cls, settings: PickerSettings, threshold: float | None = None) -> Selection:
        """The rule that settings ask for; `threshold` overrides theirs."""
        chosen = settings.pick_threshold if threshold is None else threshold
        return cls(chosen, settings.diameter_A, settings.edge_distance, settings.min_distance, settings.drop_group)

    @property
    def dropped_groups(self) -> frozenset[int]:
        """The groups that are left out."""
        return frozenset(int(number) for number in (self.drop_group or "").split(",") if number)

    def settings(self) -> dict[str, float | str | None]:
        """The settings that it stands for, for a summary."""
        return {name: getattr(self, name) for name in OUTPUT_SETTINGS}

    def candidates(self, result: Result) -> Picks:
        """Return the candidates that become picks once the threshold is low enough, best first."""
        return self.allowed(result.picks, result.pixel_size_A)

    def picks(self, result: Result) -> Picks:
        """Return the picks, best first."""
        return self.candidates(result).above(self.threshold)

    def allowed(self, picks: Picks, pixel_size_A: float) -> Picks:
        """Return the candidates outside dropped groups that keep both distances; `picks` are best first."""
        picks = picks.outside_groups(self.dropped_groups)
        diameter_px = picks.diameter_px(self.diameter_A, pixel_size_A)
        inside = picks.away_from_edge(self.edge_distance * diameter_px) if self.edge_distance else picks
        if not self.min_distance:
            return inside
        return keep_apart(inside, self.min_distance * inside.diameter_px(self.diameter_A, pixel_size_A))


def keep_apart(picks: Picks, distance_px: float | NDArray[np.float64]) -> Picks:
    """Of any two picks closer than `distance_px`, drop the one with the lower figure of merit.

    Picks are best first. What is kept at a threshold does not depend on candidates below it. Where each pick has its
    own distance, the mean of both counts.
    """
    return picks.only(non_maximum_suppression(picks.xy, picks.score, distance_px * (1 - 1e-6)))
