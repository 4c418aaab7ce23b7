"""Matched filters for unknown particles: a bank of round templates, from which the micrograph selects one.

Blob detectors assume a filled disc; apoferritin is a ring, and many particles are narrower than the diameter that their
users give. So a small bank of templates is tried. The template with the best response on the micrograph is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoemmae_plugin.core.flattening import max_filter, subsample

SUPPORT = 0.9
"""Radius of a template, in particle diameters: the particle and the ice around it."""
PEAK_SPACING = 0.35
"""Least distance between two maxima of a response, in particle diameters."""
OUTLIER_SIGMAS = 6.0
"""Responses are cut at this value before a template is chosen, so that contamination does not decide."""


@dataclass(frozen=True)
class RoundTemplate:
    """A dark disc or ring on lighter ice; radii in particle radii.

    Attributes
    ----------
    outer : float
        Radius of the dark part.
    inner : float
        Radius of its hole; 0 for a disc.
    sharpness : float
        Steepness of its edges: a logistic function with this many units per particle radius.
    """

    outer: float
    inner: float = 0.0
    sharpness: float = 10.0

    def kernel(self, diameter_px: float) -> Tensor:
        """Return weights of zero mean and unit norm, shape (2 R + 1, 2 R + 1); positive where the particle is dark."""
        reach = int(np.ceil(SUPPORT * diameter_px))
        line = torch.arange(-reach, reach + 1, dtype=torch.float32)
        radius = torch.hypot(line[:, None], line) / (diameter_px / 2)
        whole = torch.sigmoid((self.outer - radius) * self.sharpness)
        hole = torch.sigmoid((self.inner - radius) * self.sharpness) if self.inner else torch.zeros_like(radius)
        surroundings = torch.sigmoid((1.5 * self.outer - radius) * self.sharpness)
        dark, ice = whole - hole, surroundings - whole + hole
        weights = dark / dark.sum() - ice / ice.sum()
        return weights / weights.square().sum().sqrt()


BANK = (
    RoundTemplate(0.6, sharpness=4.0),
    RoundTemplate(0.8, sharpness=4.0),
    RoundTemplate(0.6),
    RoundTemplate(0.7),
    RoundTemplate(0.8),
    RoundTemplate(0.9),
    RoundTemplate(1.0),
    RoundTemplate(0.9, 0.6),
    RoundTemplate(1.0, 0.5),
)


@dataclass(frozen=True)
class Response:
    """Response of a matched filter at every place.

    Attributes
    ----------
    sigmas : Tensor, shape (rows, columns)
        Response in robust standard deviations of the micrograph's own; positive where there is a dark particle.
    """

    sigmas: Tensor
    template: RoundTemplate


def match_templates(pixels: Tensor, valid: Tensor, diameter_px: float) -> Response:
    """Respond to every template of the bank and keep the one that finds most.

    The noise's response is symmetric, particles add a positive tail: the template with the most positively skewed
    response is the one that fits them best.

    Parameters
    ----------
    pixels : Tensor, shape (rows, columns)
        Flattened micrograph, particles dark.
    valid : Tensor, shape (rows, columns), bool
        Where there is image; elsewhere the response is 0.
    diameter_px : float
        Particle diameter in these pixels.
    """
    best: tuple[float, RoundTemplate, Tensor] | None = None
    for template, response in zip(BANK, correlate(pixels, [t.kernel(diameter_px) for t in BANK]), strict=True):
        skew = skewness(response, valid)
        if best is None or skew > best[0]:
            best = skew, template, response
    assert best is not None  # the bank is not empty
    _, template, response = best
    return Response(in_sigmas(response, valid), template)


def skewness(response: Tensor, valid: Tensor) -> float:
    """Mean cube of the response over `valid`, in its robust deviations, outliers cut; 0 where nothing is valid."""
    sample = subsample(response if bool(valid.all()) else response[valid])
    if not sample.numel():
        return 0.0
    median, sigma = _median_and_deviation(sample)
    return float((((sample - median) / sigma).clamp(-OUTLIER_SIGMAS, OUTLIER_SIGMAS) ** 3).mean())


def disc_weights(diameter_px: float) -> Tensor:
    """Return weights of sum 1 over a disc; the side is odd."""
    reach = int(np.ceil(0.5 * diameter_px))
    line = torch.arange(-reach, reach + 1, dtype=torch.float32)
    disc = (torch.hypot(line[:, None], line) < 0.5 * diameter_px).float()
    return disc / disc.sum()


def correlate(pixels: Tensor, kernels: list[Tensor]) -> Iterator[Tensor]:
    """Correlate (rows, columns) with kernels of odd, equal sides, dark being positive; the mean beyond the frame.

    The responses are computed one after the other: all at once would take more memory than everything else.
    """
    rows, columns = pixels.shape
    side = kernels[0].shape[0]
    shape = [scipy.fft.next_fast_len(n + side - 1, real=True) for n in (rows, columns)]
    spectrum = torch.fft.rfft2(pixels, s=shape)
    half = side // 2
    for kernel in kernels:
        product = spectrum * torch.fft.rfft2(kernel.flip(0, 1).to(pixels), s=shape)
        yield -torch.fft.irfft2(product, s=shape)[half : half + rows, half : half + columns]


def in_sigmas(response: Tensor, valid: Tensor) -> Tensor:
    """Express a response in robust deviations from its median over `valid`; 0 elsewhere."""
    if not bool(valid.any()):
        return torch.zeros_like(response)
    median, sigma = _median_and_deviation(response[valid])
    return torch.where(valid, (response - median) / sigma, torch.zeros_like(response))


def _median_and_deviation(values: Tensor) -> tuple[Tensor, Tensor]:
    """Median, and robust standard deviation about it."""
    median = values.median()
    return median, ((values - median).abs().median() * 1.4826).clamp(min=1e-12)


def find_peaks(sigmas: Tensor, diameter_px: float, least: float) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Find local maxima of at least `least`, to a fraction of a pixel.

    Returns
    -------
    xy : ndarray, shape (N, 2)
        Column and row, best first.
    height : ndarray, shape (N,)
    """
    reach = max(1, int(PEAK_SPACING * diameter_px))
    highest = max_filter(sigmas[None, None], 2 * reach + 1, reach)[0, 0]
    y, x = torch.nonzero((sigmas == highest) & (sigmas >= least), as_tuple=True)
    height = sigmas[y, x]
    order = torch.argsort(height, descending=True, stable=True)
    x, y, height = x[order], y[order], height[order]
    dx = _vertex(sigmas, x, y, 0, 1)
    dy = _vertex(sigmas, x, y, 1, 0)
    xy = torch.stack([x + dx, y + dy], dim=1).double()
    return xy.cpu().numpy(), height.float().cpu().numpy()


def _vertex(image: Tensor, x: Tensor, y: Tensor, step_y: int, step_x: int) -> Tensor:
    """Where the parabola through a maximum and its neighbours along an axis has its vertex; within half a pixel."""
    rows, columns = image.shape
    before = image[(y - step_y).clamp(min=0), (x - step_x).clamp(min=0)]
    after = image[(y + step_y).clamp(max=rows - 1), (x + step_x).clamp(max=columns - 1)]
    curvature = before - 2 * image[y, x] + after
    offset = torch.where(curvature < 0, 0.5 * (before - after) / curvature, torch.zeros_like(curvature))
    return offset.clamp(-0.5, 0.5)
