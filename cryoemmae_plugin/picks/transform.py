"""Coordinates of another frame: binned, flipped in y, shifted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.picks.table import PickTable


@dataclass(frozen=True)
class Transform:
    """What turns coordinates of another frame into those of the stored micrograph, in this order.

    Attributes
    ----------
    scale : float
        Micrograph pixels per pixel of the coordinates. Pixel areas correspond: 0 becomes (scale - 1) / 2.
    flip_y : bool
        Rows are counted from the last one.
    shift : tuple of float
        (x, y) to add, in micrograph pixels.
    """

    scale: float = 1.0
    flip_y: bool = False
    shift: tuple[float, float] = (0.0, 0.0)

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return self == Transform()

    def apply(self, xy: NDArray[np.float64], ny: int | None) -> NDArray[np.float64]:
        """Turn centres (N, 2); `ny` are the micrograph's rows, needed for a flip alone."""
        turned = (xy + 0.5) * self.scale - 0.5
        if self.flip_y:
            if ny is None:
                raise InputError(
                    "the rows of a micrograph are not known, so its coordinates cannot be flipped",
                    remedy="give the $micrographs",
                )
            turned = np.column_stack([turned[:, 0], ny - 1 - turned[:, 1]])
        return np.asarray(turned + np.array(self.shift))

    def apply_to(self, table: PickTable) -> PickTable:
        """Turn the picks of a micrograph."""
        if self.is_identity:
            return table
        diameter = None if table.diameter_px is None else table.diameter_px * self.scale
        ny = None if table.shape is None else table.shape[0]
        size_A = None if table.pixel_size_A is None else table.pixel_size_A / self.scale
        return replace(table, xy=self.apply(table.xy, ny), diameter_px=diameter, pixel_size_A=size_A)

    def options(self) -> str:
        """The options that apply it, for a message."""
        parts = [f"$scale={self.scale:g}"] if self.scale != 1 else []
        parts += ["$flip_y=yes"] if self.flip_y else []
        parts += [f"$shift={self.shift[0]:.0f},{self.shift[1]:.0f}"] if self.shift != (0.0, 0.0) else []
        return " ".join(parts)

    def describe(self) -> str:
        """Say what is wrong with coordinates that need it."""
        parts = [f"binned (1 of their pixels is {self.scale:g} of the other's)"] if self.scale != 1 else []
        parts += ["flipped in y"] if self.flip_y else []
        x, y = self.shift
        parts += [f"shifted by {x:.0f}, {y:.0f} px"] if self.shift != (0.0, 0.0) else []
        return " and ".join(parts)


AS_IT_IS = Transform()
"""Changes nothing."""
