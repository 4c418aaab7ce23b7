"""What one data set looks like, told from the head's own picks: its particle, its noise, and how densely it lies.

Averages of picks that were turned onto each other are strewn over noise of the micrographs' own spectrum. The centres
in such a micrograph are known, so that a head can learn from it, and no label was needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from cryoemmae_plugin.core.class_averages import REACH, average_classes, cut_patches, soft_mask
from cryoemmae_plugin.core.crop_detection import CropDetections
from cryoemmae_plugin.core.default import GRID_DIAMETER_PX
from cryoemmae_plugin.core.head import expected_f1
from cryoemmae_plugin.simulate.place import place_centres

SURE = 0.55
"""Chance of the candidates that are averaged."""
LEAST_SURE = 60
"""Fewer sure picks, in all micrographs together, say too little."""
LEAST_CLEAR = 0.75
"""F1 to expect below which particles are too faint for their averages to be learnt from."""
MOST_AVERAGED = 1200
MASK_RADIUS = 0.55
"""Radius of the soft mask that takes a particle out of its surroundings, in diameters."""
WINDOW = 48
"""Side of the windows that the spectrum is taken from, in grid pixels."""
RINGS = 32
"""Of the spectrum, from zero to the corner's frequency."""
FILLED_SHARE = 0.02
"""Windows with a larger share of pixels that are no image are left out."""
LEAST_NOISE = 0.1
"""Noise is what the particles leave of the spectrum, and at least this share of it."""
EMPTY_TRIED, LEAST_EMPTY = 400, 20
"""Places a micrograph that are tried, and how few that are far from every pick say nothing."""
CONTRAST_LIMITS = (1.0, 2.0)
"""Least and greatest factor by which averages are strengthened."""
DENSITY_SHARE = 0.85
"""Share of the particles to expect that micrographs made of the specimen hold: with more, the head gets too sure."""
CLOSEST_QUANTILE, CLOSEST_SLACK, CLOSEST_LIMIT = 0.03, 0.05, 0.5
"""Particles lie as close as this share of the picks do, less some slack, and no closer than the limit, in diameters."""
DENSITY_SPREAD, STRENGTH_SPREAD, GAIN_SPREAD = 0.35, 0.25, 0.12
"""Deviation of the logarithm of a scene's density, of a particle's contrast, of the logarithm of a scene's contrast."""
LEAST_STRENGTH = 0.3
LEAST_DEVIATION = 0.5


@dataclass(frozen=True)
class Specimen:
    """A data set's particle, noise and density, all on the head's grid.

    Attributes
    ----------
    averages : ndarray, shape (K, 2 REACH + 1, 2 REACH + 1)
        Of aligned picks, masked.
    shares : ndarray, shape (K,)
        Share of the picks in each.
    noise : ndarray, shape (RINGS,)
        Power spectrum of what is not particle, by spatial frequency.
    density : float
        Particles per square diameter.
    closest : float
        Least distance of two centres, in diameters.
    """

    averages: NDArray[np.float64]
    shares: NDArray[np.float64]
    noise: NDArray[np.float64]
    density: float
    closest: float

    def draw(self, side: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Draw a micrograph of this specimen: pixels (side, side) of deviation about 1, and all centres (N, 2)."""
        pixels = _noise_of(self.noise, side, rng)
        density = self.density * float(np.exp(rng.normal(0, DENSITY_SPREAD)))
        wide = side + 2 * GRID_DIAMETER_PX
        centres = place_centres(
            round(density * (wide / GRID_DIAMETER_PX) ** 2),
            (-GRID_DIAMETER_PX, -GRID_DIAMETER_PX),
            (side + GRID_DIAMETER_PX, side + GRID_DIAMETER_PX),
            self.closest * GRID_DIAMETER_PX,
            np.zeros((side, side), bool),
            rng,
        )
        gain = float(np.exp(rng.normal(0, GAIN_SPREAD)))
        for at in centres:
            strength = gain * max(LEAST_STRENGTH, float(rng.normal(1, STRENGTH_SPREAD)))
            average = self.averages[rng.choice(len(self.averages), p=self.shares)]
            _add(pixels, average if rng.random() < 0.5 else average[:, ::-1], at, rng.uniform(0, 2 * np.pi), strength)
        inside = ((centres > -0.5) & (centres < side - 0.5)).all(1)
        return (pixels / max(LEAST_DEVIATION, pixels.std())).astype(np.float32), centres[inside]


def count_sure(detections: Sequence[CropDetections]) -> int:
    """Picks that are sure enough to be averaged."""
    return sum(int((seen.chance >= SURE).sum()) for seen in detections)


def describe_specimen(detections: Sequence[CropDetections]) -> Specimen | None:
    """Tell what a data set looks like; None where too few picks are sure, or too much is in doubt."""
    if count_sure(detections) < LEAST_SURE:
        return None
    if expected_f1(np.concatenate([seen.chance for seen in detections])) < LEAST_CLEAR:
        return None
    rng = np.random.default_rng(0)
    sure = np.concatenate([seen.patches(SURE) for seen in detections])
    averages, shares = average_classes(sure[rng.permutation(len(sure))[:MOST_AVERAGED]], soft_mask(MASK_RADIUS), rng)
    empty = np.concatenate([cut_patches(seen.pixels, _empty_places(seen, rng)) for seen in detections])
    averages *= contrast_lost(averages, shares, sure, empty)
    expected = sum(float(seen.chance.sum()) for seen in detections)
    density = DENSITY_SHARE * expected / sum(seen.area for seen in detections)
    likely = [seen.likely for seen in detections]
    nearest = [cKDTree(xy).query(xy, k=2)[0][:, 1] for xy in likely if len(xy) > 1]
    closest = float(np.quantile(np.concatenate(nearest), CLOSEST_QUANTILE)) / GRID_DIAMETER_PX
    spectra = np.concatenate([window_spectra(seen.pixels) for seen in detections])
    if not len(spectra):
        return None
    whole = np.median(spectra, axis=0)  # of junk, most windows have little
    noise = np.maximum(whole - density * _power_of(averages, shares), LEAST_NOISE * whole)
    return Specimen(averages, shares, noise, density, max(CLOSEST_LIMIT, closest - CLOSEST_SLACK))


def contrast_lost(
    averages: NDArray[np.float64],
    shares: NDArray[np.float64],
    sure: NDArray[np.float32],
    empty: NDArray[np.float32],
) -> float:
    """Tell how much stronger single particles are than their averages, which lose where views are not quite aligned.

    Parameters
    ----------
    averages, shares
        As :func:`average_classes` gives them.
    sure, empty : ndarray, shape (N, side, side)
        Patches around picks, and far from all: what their powers differ by is the particle's.
    """
    if len(empty) < LEAST_EMPTY:
        return 1.0
    mask = soft_mask(MASK_RADIUS).numpy()
    power = ((sure * mask) ** 2).sum((1, 2)).mean() - np.median(((empty * mask) ** 2).sum((1, 2)))
    kept = float(shares @ (averages**2).sum((1, 2)))
    return float(np.clip(np.sqrt(max(0.0, float(power)) / kept), *CONTRAST_LIMITS))


def _empty_places(seen: CropDetections, rng: np.random.Generator) -> NDArray[np.float64]:
    """Places (N, 2) that are whole image, a diameter or more from every likely particle."""
    rows, columns = seen.pixels.shape
    places = rng.uniform(REACH, (columns - REACH, rows - REACH), (EMPTY_TRIED, 2))
    likely = seen.likely
    near = cKDTree(likely).query(places)[0] < GRID_DIAMETER_PX if len(likely) else np.zeros(len(places), bool)
    filled = (cut_patches(seen.pixels, places) == 0).mean((1, 2)) > FILLED_SHARE
    return np.asarray(places[~near & ~filled])


def _add(
    pixels: NDArray[np.float64], average: NDArray[np.float64], at: NDArray[np.float64], angle: float, strength: float
) -> None:
    """Add an average, turned, to pixels (side, side), centred at (x, y)."""
    left, top = np.floor(at).astype(int) - REACH
    rows = np.arange(max(0, top), min(pixels.shape[0], top + 2 * REACH + 2))
    columns = np.arange(max(0, left), min(pixels.shape[1], left + 2 * REACH + 2))
    if not len(rows) or not len(columns):
        return
    dy, dx = rows[:, None] - at[1], columns[None] - at[0]
    where = [np.cos(angle) * dy - np.sin(angle) * dx + REACH, np.sin(angle) * dy + np.cos(angle) * dx + REACH]
    pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] += strength * map_coordinates(average, where, order=1)


def window_spectra(pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Power by spatial frequency, shape (windows, RINGS), in every whole window of an image (rows, columns)."""
    taper = np.hanning(WINDOW)[:, None] * np.hanning(WINDOW)
    corners = [
        (row, column)
        for row in range(0, pixels.shape[0] - WINDOW + 1, WINDOW // 2)
        for column in range(0, pixels.shape[1] - WINDOW + 1, WINDOW // 2)
    ]
    windows = [pixels[row : row + WINDOW, column : column + WINDOW] for row, column in corners]
    whole = [window for window in windows if (window == 0).mean() <= FILLED_SHARE]
    power = [_by_ring(np.abs(np.fft.fft2(window * taper)) ** 2) for window in whole]
    return np.asarray(np.array(power).reshape(-1, RINGS) / (taper**2).sum())


def _power_of(averages: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power (RINGS,) that one particle per square diameter adds to the spectrum."""
    side = 2 * WINDOW  # an average is larger than a window
    power = np.abs(np.fft.fft2(averages, s=(side, side))) ** 2
    return _by_ring(np.tensordot(shares, power, 1)) / GRID_DIAMETER_PX**2


def _by_ring(power: NDArray[np.float64]) -> NDArray[np.float64]:
    ring = np.minimum(_rings(len(power)).astype(int), RINGS - 1).ravel()
    return np.asarray(np.bincount(ring, power.ravel(), RINGS) / np.maximum(np.bincount(ring, minlength=RINGS), 1))


def _rings(side: int) -> NDArray[np.float64]:
    """Place of each frequency of a square image among the rings."""
    frequency = np.fft.fftfreq(side)
    return np.asarray(np.hypot(frequency[:, None], frequency) / np.sqrt(0.5) * RINGS)


def _noise_of(power: NDArray[np.float64], side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Gaussian noise (side, side) of a spectrum (RINGS,)."""
    amplitude = np.sqrt(np.interp(_rings(side) - 0.5, np.arange(RINGS), power))
    return np.asarray(np.fft.ifft2(np.fft.fft2(rng.standard_normal((side, side))) * amplitude).real)
