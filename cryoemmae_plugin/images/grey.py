"""Colours to grey."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue (ITU-R BT.601)."""


def to_grey(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return a grey image as float32.

    Parameters
    ----------
    pixels : ndarray, shape (ny, nx) or (ny, nx, channels)
        1 or 2 channels: grey, alpha. 3 or 4: red, green, blue, alpha. Alpha is ignored.

    Returns
    -------
    ndarray, shape (ny, nx), float32
    """
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is reported as such
        if pixels.ndim == 3 and pixels.shape[2] >= 3:
            return pixels[..., :3].astype(np.float32) @ LUMA
        return (pixels[..., 0] if pixels.ndim == 3 else pixels).astype(np.float32)
