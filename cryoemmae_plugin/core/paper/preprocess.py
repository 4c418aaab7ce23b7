"""Paper mode's preprocessing: a micrograph to the 8-bit, 1024 x 1024 image that published weights were trained on.

Source: Zamanos et al. 2025, equations 1 and 2. Where the paper and its released code differ, this follows the code:
that is what the weights have seen. What the code does to positions is measured, and taken out by the frame returned.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cryoemmae_plugin.core.geometry import MicrographFrame
from cryoemmae_plugin.errors import ImageError, SettingsError

PAPER_GRID_PX = 1024

STATISTICS_OVER_CORNERS = True
"""Local mean and deviation are taken over the four corners between the particle's disc and its bounding square. The
paper says over the disc; its released code builds the mask inverted, so corners are what published weights know."""

MIN_STATISTICS_PX = 8
"""Below this diameter the bounding square has no pixel outside the disc."""

SIGMA_FLOOR = 0.01
"""Least local deviation, as a fraction of its mean: only dead areas (gaps, padding) are that flat, and they would
otherwise take the whole grey scale, or be undefined."""

WIENER_KERNEL_PX = 9
WIENER_SIGMA_PX = 3.0
WIENER_NOISE_TO_SIGNAL = 30.0

CLAHE_CLIP_LIMIT = 2.0
CLAHE_TILES = 16

BOX_PX = 20
"""Side of the guided filter's box."""

WIENER_SHIFT_PX = -(WIENER_KERNEL_PX // 2)
"""The kernel starts at the origin instead of being centred on it, so the content moves (micrograph pixels, x and y)."""

BOX_SHIFT_PX = 1
"""Two means over an even box, each of which moves the content by half a pixel (micrograph pixels, x and y)."""


def preprocess_paper(
    image: Tensor | NDArray[np.floating], diameter_px: float, grid_px: int = PAPER_GRID_PX
) -> tuple[Tensor, MicrographFrame]:
    """Turn a micrograph into what a paper-mode model sees.

    Parameters
    ----------
    image : Tensor or ndarray, shape (ny, nx)
        Micrograph, particles dark. A tensor is worked on where it lies; only the equalisation runs on the host.
    diameter_px : float
        Particle diameter in micrograph pixels.
    grid_px : int
        Side of the result; both axes are stretched to it, as published.

    Returns
    -------
    grid : Tensor, shape (grid_px, grid_px), float32
        Values k / 255 with whole k in 0..255: the 8-bit rounding is part of what the weights have seen.
    frame : MicrographFrame
        Where its pixels lie in the micrograph, offsets of the filters included.

    Raises
    ------
    ImageError
        If the image is not 2-D, is tiny or constant, or has values that are not finite.
    SettingsError
        If the diameter does not fit the image.
    """
    image = torch.as_tensor(image)
    if image.ndim != 2:
        raise ImageError(f"image has {image.ndim} axes, {tuple(image.shape)}: a micrograph has two, give one frame")
    shape = (int(image.shape[0]), int(image.shape[1]))
    if min(shape) < BOX_PX:
        raise ImageError(f"image is {shape[1]} x {shape[0]} pixels: a micrograph has at least {BOX_PX} each way")
    normalised = normalise_locally(to_unit_range(image.float()), even_diameter(diameter_px))
    equalised = equalise(smooth_wiener(to_unit_range(normalised)))
    smooth = to_uint8(twice_box_sum(equalised, BOX_PX))
    grid = resize_uint8(smooth, (grid_px, grid_px)).float() / 255
    shift_px = WIENER_SHIFT_PX + BOX_SHIFT_PX
    offset = (shift_px * grid_px / shape[1], shift_px * grid_px / shape[0])
    return grid, MicrographFrame(shape, (grid_px, grid_px), offset)


def even_diameter(diameter_px: float) -> int:
    """Round a diameter to a whole number of pixels, and an odd one up to even."""
    whole = round(diameter_px)
    return whole + whole % 2


def to_unit_range(image: Tensor) -> Tensor:
    """Scale an image linearly to 0..1."""
    low, high = image.aminmax()
    span = float(high - low)
    if not np.isfinite(span):
        raise ImageError("image has values that are not finite (NaN or infinite): replace them, or leave it out")
    if span == 0:
        raise ImageError(f"image is constant (every pixel is {float(low):g}): there is nothing to pick")
    return (image - low).div_(span)


def to_uint8(image: Tensor) -> Tensor:
    """Scale an image linearly to 0..255 and cut decimals off, as a cast does."""
    return to_unit_range(image.float()).mul_(255).to(torch.uint8)


def statistics_mask(diameter_px: int) -> Tensor:
    """Return which pixels of the particle's bounding square count, shape (diameter, diameter), bool; diameter even."""
    half = diameter_px // 2
    line = torch.arange(diameter_px)
    distance = torch.where(line < half, half - 1 - line, line - half)  # the two middle pixels are both at 0
    inside = distance[:, None] ** 2 + distance[None, :] ** 2 < half**2
    return ~inside if STATISTICS_OVER_CORNERS else inside


def normalise_locally(image: Tensor, diameter_px: int) -> Tensor:
    """Subtract the local mean and divide by the local deviation (equations 1 and 2), periodic at the borders.

    Parameters
    ----------
    image : Tensor, shape (ny, nx), float32
    diameter_px : int
        Even diameter of the area the statistics are taken over.

    Returns
    -------
    Tensor, shape (ny, nx), float32
    """
    ny, nx = image.shape
    if not MIN_STATISTICS_PX <= diameter_px <= min(ny, nx):
        raise SettingsError(
            f"$diameter_A is {diameter_px} pixels of a {nx} x {ny} micrograph: it must lie between "
            f"{MIN_STATISTICS_PX} pixels and the shorter side",
            setting="diameter_A",
            remedy="check the diameter and the pixel size",
        )
    window = torch.fft.rfft2(_window(diameter_px, image)).conj_physical_()
    centred = image - image.mean()  # the deviation does not change, its rounding error does
    mean_square = _irfft2(torch.fft.rfft2(centred.square()).mul_(window), ny, nx)
    mean = _irfft2(window.mul_(torch.fft.rfft2(centred)), ny, nx)
    centred -= mean
    sigma = mean_square.sub_(mean.square_()).clamp_(min=0).sqrt_()
    return centred.div_(sigma.clamp_(min=SIGMA_FLOOR * float(sigma.mean())))


def _window(diameter_px: int, like: Tensor) -> Tensor:
    """Return the statistics mask with weights of sum 1, wrapped around the first pixel of an image like `like`."""
    square = statistics_mask(diameter_px).to(like)
    square /= square.sum()
    half = diameter_px // 2
    window = torch.zeros_like(like)
    for to_rows, rows in ((slice(half), slice(half, None)), (slice(-half, None), slice(half))):
        for to_columns, columns in ((slice(half), slice(half, None)), (slice(-half, None), slice(half))):
            window[to_rows, to_columns] = square[rows, columns]
    return window


def _irfft2(spectrum: Tensor, ny: int, nx: int) -> Tensor:
    out: Tensor = torch.fft.irfft2(spectrum, s=(ny, nx))
    return out


def smooth_wiener(image: Tensor) -> Tensor:
    """Divide by a Gaussian's spectrum H as conj(H) / (|H|^2 + 30), which with so much noise is a low-pass."""
    ny, nx = image.shape
    steps = torch.arange(WIENER_KERNEL_PX, dtype=torch.float64) - WIENER_KERNEL_PX // 2
    line = torch.exp(-0.5 * (steps / WIENER_SIGMA_PX) ** 2)
    line = (line / line.sum()).to(image)
    down, across = torch.fft.fft(line, ny), torch.fft.rfft(line, nx)  # H is their outer product
    power = torch.outer(down.abs().square_(), across.abs().square_()).add_(WIENER_NOISE_TO_SIGNAL)
    spectrum = torch.fft.rfft2(image).mul_(down.conj_physical()[:, None]).mul_(across.conj_physical()).div_(power)
    return _irfft2(spectrum, ny, nx).abs_()


def equalise(image: Tensor) -> Tensor:
    """Equalise contrast tile by tile (CLAHE) on 8 bit; on the host, whatever the device. Returns uint8."""
    clahe = cv2.createCLAHE(clipLimit=CLAHE_CLIP_LIMIT, tileGridSize=(CLAHE_TILES, CLAHE_TILES))
    equalised = clahe.apply(to_uint8(image).cpu().numpy())
    return torch.from_numpy(equalised).to(image.device)


def twice_box_sum(image: Tensor, box_px: int) -> Tensor:
    """Sum over a box, twice: what the released guided filter amounts to, times a constant.

    It divides its guide by 255, though that is not on an 8-bit scale, so that the guide's variance vanishes against
    epsilon (1e-10 against 0.1) and two box means remain. Borders are mirrored, the edge not repeated, before each.

    Parameters
    ----------
    image : Tensor, shape (ny, nx), uint8
    box_px : int
        Even side of the box; pixel p sums over p - box_px / 2 and the box_px - 1 pixels after it.

    Returns
    -------
    Tensor, shape (ny, nx), int32
        Exact sums, of which 255 * box_px**4 fit, on any device.
    """
    if image.device.type == "cpu":
        total = image.numpy()
        for _ in range(2):
            total = cv2.boxFilter(
                total, cv2.CV_32S, (box_px, box_px), normalize=False, borderType=cv2.BORDER_REFLECT_101
            )
        return torch.from_numpy(total)
    return _twice_box_sum_by_running_sums(image, box_px)


def _twice_box_sum_by_running_sums(image: Tensor, box_px: int) -> Tensor:
    total = image.int()
    for _ in range(4):  # along rows, along columns, and again
        total = _box_sum_along_rows(total, box_px).t()
    return total


def _box_sum_along_rows(image: Tensor, box_px: int) -> Tensor:
    """Sum along rows in exact 32-bit integers: a running sum may wrap around, its differences come out right."""
    half, nx = box_px // 2, image.shape[1]
    left, right = image[:, 1 : half + 1].flip(1), image[:, nx - half : nx - 1].flip(1)
    running = torch.cat([torch.zeros_like(image[:, :1]), left, image, right], dim=1).cumsum(1, dtype=torch.int32)
    return running[:, box_px:] - running[:, :nx]


def resize_uint8(image: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resize an 8-bit image as Pillow does by default: bicubic over the area, rounded after each axis, rows first.

    Parameters
    ----------
    image : Tensor, shape (ny, nx), uint8
    shape : tuple of int
        (rows, columns) of the result.

    Returns
    -------
    Tensor, shape `shape`, uint8
    """
    resized = image.float()[None, None]
    for size in ((image.shape[0], shape[1]), shape):
        if tuple(resized.shape[2:]) != tuple(size):
            resized = F.interpolate(resized, size, mode="bicubic", antialias=True, align_corners=False)
        resized = (resized + 0.5).floor_().clamp_(0, 255)
    return resized[0, 0].to(torch.uint8)
