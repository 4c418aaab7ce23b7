"""Micrograph pixels to model grid and back: the only place that scales coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MicrographFrame:
    """The affine map between a micrograph and the grid that a model sees.

    Both frames count pixels from the centre of the first one (0.0, 0.0), x along a row, y down the rows. Axis by axis
    ``micrograph = (grid + 1/2 - offset) * scale - 1/2``: an area-preserving resize by `scale`, of an image whose
    content the preprocessing has moved by `offset` grid pixels.

    Attributes
    ----------
    shape : tuple of int
        (ny, nx) of the micrograph in pixels.
    grid_shape : tuple of int
        (rows, columns) of the model grid in pixels.
    offset : tuple of float
        (x, y) by which preprocessing has moved the content, in grid pixels; (0, 0) if it does not.
    """

    shape: tuple[int, int]
    grid_shape: tuple[int, int]
    offset: tuple[float, float] = (0.0, 0.0)

    @property
    def scale(self) -> tuple[float, float]:
        """Micrograph pixels per grid pixel, (x, y)."""
        return self.shape[1] / self.grid_shape[1], self.shape[0] / self.grid_shape[0]

    def to_micrograph(self, grid_xy: NDArray[np.floating]) -> NDArray[np.float64]:
        """Map grid coordinates, shape (N, 2), to micrograph pixels."""
        grid = np.asarray(grid_xy, float).reshape(-1, 2)
        micrograph: NDArray[np.float64] = (grid + 0.5 - np.asarray(self.offset)) * np.asarray(self.scale) - 0.5
        return micrograph

    def to_grid(self, micrograph_xy: NDArray[np.floating]) -> NDArray[np.float64]:
        """Map micrograph pixels, shape (N, 2), to grid coordinates."""
        xy = np.asarray(micrograph_xy, float).reshape(-1, 2)
        grid: NDArray[np.float64] = (xy + 0.5) / np.asarray(self.scale) - 0.5 + np.asarray(self.offset)
        return grid
