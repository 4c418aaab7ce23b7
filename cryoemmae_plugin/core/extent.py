"""From the average blob of one size to the particle's extent: measurements without units, and a small network."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from cryoemmae_plugin.core.blobs import Profile

CONSTANTS = "extent.safetensors"
"""The shipped network's constants, beside this module; fixed by :mod:`cryoemmae_plugin.training.extent`."""
CENTRE_RADII = 3
"""Radii over which the middle's height is taken."""
LEAST_BLOBS = 5
FARTHEST = 4.0
"""Measurements are cut at so many deviations."""


def measure_profile(profile: Profile) -> NDArray[np.float64] | None:
    """Measure an average blob, all relative to the height of its middle; None where it says too little."""
    height = float(profile.mean[:CENTRE_RADII].mean())
    within = float(profile.overlap[1:4].mean())
    if profile.blobs < LEAST_BLOBS or height <= 0 or within <= 0:
        return None
    return np.concatenate(
        [
            profile.mean[CENTRE_RADII:] / height,
            _signed_root(profile.orders[2:26:2].ravel()) / height,
            np.sqrt(profile.spread[::3]) / height,
            profile.overlap / within,
            np.log([profile.density, height, within, profile.noise]),
        ]
    )


def _signed_root(power: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sign(power) * np.sqrt(np.abs(power)))


class ExtentNetwork:
    """How much larger the particle is than the size at which it was looked at.

    Parameters
    ----------
    arrays : mapping
        ``centre`` and ``scale``, shape (measurements,); ``hidden`` (networks, units, measurements), ``hidden_bias``
        (networks, units), ``out`` (networks, units), ``out_bias`` (networks,): perceptrons whose answers are averaged.
    """

    def __init__(self, arrays: Mapping[str, NDArray[np.floating]]) -> None:
        self._arrays = {name: np.asarray(array, np.float64) for name, array in arrays.items()}

    @classmethod
    def shipped(cls) -> ExtentNetwork:
        """The network that comes with this package."""
        return cls(load((files(__package__) / CONSTANTS).read_bytes()))

    def to_bytes(self) -> bytes:
        """The constants, as the shipped file holds them: safetensors, single precision."""
        return save({name: np.ascontiguousarray(array, np.float32) for name, array in self._arrays.items()})

    def log_ratio(self, measured: NDArray[np.float64]) -> float:
        """Natural logarithm of the particle's diameter over the size; `measured` of :func:`measure_profile`."""
        a = self._arrays
        standard = ((measured - a["centre"]) / a["scale"]).clip(-FARTHEST, FARTHEST)
        hidden = np.tanh(a["hidden"] @ standard + a["hidden_bias"])
        return float(((a["out"] * hidden).sum(axis=1) + a["out_bias"]).mean())
