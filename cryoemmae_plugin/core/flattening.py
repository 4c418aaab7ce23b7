"""Preprocessing of the default mode: one scale for every particle, flat ice, unit noise, and a mask of what is image.

The published preprocessing normalises over a disc as small as the particle, which lifts the noise between particles
to the particles' own amplitude. Here the background is taken at a scale well above the particle, so that its contrast
survives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import scipy.fft
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cryoemmae_plugin.core.geometry import MicrographFrame

BACKGROUND_SIGMA = 1.5
"""Gaussian width of the background that is subtracted, in particle diameters."""
DEVIATION_SIGMA = 4.0
"""Gaussian width of the local deviation that is divided by, in particle diameters."""
DEVIATION_FLOOR = 0.5
"""Least local deviation, as a share of the micrograph's median one: empty ice is not blown up into particles."""
CLIP = 6.0
"""Flattened pixels are cut at plus and minus this many deviations."""
HOT_PIXEL_SIGMAS = 8.0
"""Raw pixels farther than this from the median, in robust deviations, are hot or dead and are cut."""
SMEAR_SHARE = 0.4
"""Where pixels change along an axis by less than this share of the median change, there is smear, not image."""
BLUR_REACH = 5.0
"""A Gaussian is cut off at this many of its widths."""
SAMPLE = 200_000
"""Pixels from which medians and quantiles are taken."""


@dataclass(frozen=True)
class FlattenedMicrograph:
    """A micrograph as the default mode sees it.

    Attributes
    ----------
    pixels : Tensor, shape (rows, columns), float32
        Particles dark (negative); background 0, noise about 1.
    valid : Tensor, shape (rows, columns), bool
        False in smeared or padded borders and other regions without image.
    frame : MicrographFrame
        Map between micrograph pixels and these.
    diameter_px : float
        Particle diameter in these pixels.
    """

    pixels: Tensor
    valid: Tensor
    frame: MicrographFrame
    diameter_px: float

    @property
    def area(self) -> float:
        """Of the image in it, in square diameters."""
        return float(self.valid.sum()) / self.diameter_px**2


def flatten_background(image: Tensor, diameter_px: float, grid_diameter_px: float) -> FlattenedMicrograph:
    """Bring a micrograph to the model's scale, flatten its background, and scale its noise to one.

    Parameters
    ----------
    image : Tensor, shape (ny, nx), float32
        Stored pixels, particles dark.
    diameter_px : float
        Particle diameter in micrograph pixels.
    grid_diameter_px : float
        Particle diameter wanted on the grid.
    """
    scale = grid_diameter_px / diameter_px
    ny, nx = image.shape
    rows, columns = max(8, round(ny * scale)), max(8, round(nx * scale))
    small = resize(cut_hot_pixels(image), (rows, columns))
    valid = find_image(small, grid_diameter_px)
    pixels = normalise(small, valid, grid_diameter_px)
    return FlattenedMicrograph(pixels, valid, MicrographFrame((ny, nx), (rows, columns)), grid_diameter_px)


def cut_hot_pixels(image: Tensor) -> Tensor:
    """Cut pixels that no electron count explains: farther than `HOT_PIXEL_SIGMAS` from the median."""
    values = subsample(image)
    low, median, high = torch.quantile(values, values.new_tensor([0.1587, 0.5, 0.8413])).tolist()
    sigma = (high - low) / 2 or float(values.std())  # counts may leave no room between the quantiles
    return image.clamp(median - HOT_PIXEL_SIGMAS * sigma, median + HOT_PIXEL_SIGMAS * sigma)


def subsample(values: Tensor) -> Tensor:
    """Return an evenly spaced sample of at most about `SAMPLE` values, flat."""
    flat = values.reshape(-1)
    step = max(1, flat.numel() // SAMPLE)
    step += step % 2 == 0 and step > 1  # an odd stride walks through all columns of an even-sized image
    return flat[::step]


def resize(image: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resize (ny, nx) to `shape` with a low-pass against aliasing; pixel areas correspond, so nothing moves."""
    return F.interpolate(image[None, None], shape, mode="bilinear", antialias=True, align_corners=False)[0, 0]


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Blur (rows, columns) with a Gaussian of `sigma` pixels, renormalised at the borders; by FFT, zeros beyond."""
    rows, columns = image.shape
    down, across = (_gaussian(n, sigma, image) for n in image.shape)
    shape = [scipy.fft.next_fast_len(n + len(line) // 2, real=True) for n, line in ((rows, down), (columns, across))]
    spectrum = torch.fft.rfft2(image, s=shape)
    spectrum *= torch.fft.fft(_wrapped(down, shape[0])).real[:, None]
    spectrum *= torch.fft.rfft(_wrapped(across, shape[1])).real
    blurred: Tensor = torch.fft.irfft2(spectrum, s=shape)[:rows, :columns]
    return blurred / _share_inside(down, rows)[:, None] / _share_inside(across, columns)


def _gaussian(n: int, sigma: float, like: Tensor) -> Tensor:
    """Weights of a Gaussian on a line of `n` pixels, cut where they vanish; the centre in the middle."""
    reach = min(n - 1, math.ceil(BLUR_REACH * sigma))
    steps = torch.arange(-reach, reach + 1, device=like.device, dtype=like.dtype)
    return torch.exp(-0.5 * (steps / sigma) ** 2)


def _wrapped(line: Tensor, n: int) -> Tensor:
    """Put weights on a periodic line of `n` pixels, their centre first."""
    return F.pad(line, (0, n - len(line))).roll(-(len(line) // 2))


def _share_inside(line: Tensor, n: int) -> Tensor:
    """Sum of the weights that fall on the image around each of its `n` pixels."""
    running = F.pad(line.double().cumsum(0), (1, 0))
    reach, at = len(line) // 2, torch.arange(n, device=line.device)
    return (running[(reach - at + n).clamp(max=len(line))] - running[(reach - at).clamp(min=0)]).to(line.dtype)


def masked_blur(image: Tensor, mask: Tensor, sigma: float) -> Tensor:
    """Blur (rows, columns) over the pixels of a 0/1 `mask` alone; where none is near, the mean over the mask."""
    if bool(mask.all()):
        return gaussian_blur(image, sigma)
    weight = gaussian_blur(mask, sigma)
    mean = (image * mask).sum() / mask.sum().clamp(min=1)
    return torch.where(weight > 1e-3, gaussian_blur(image * mask, sigma) / weight.clamp(min=1e-3), mean)


def find_image(small: Tensor, diameter_px: float) -> Tensor:
    """Tell image from smeared or padded borders, where pixels repeat along an axis; bool, shape of `small`."""
    along_y = F.pad(small.diff(dim=0), (0, 0, 0, 1)).square()
    along_x = F.pad(small.diff(dim=1), (0, 1, 0, 0)).square()
    sigma = diameter_px / 8
    change = torch.minimum(gaussian_blur(along_y, sigma), gaussian_blur(along_x, sigma)).clamp(min=0).sqrt()
    repeated = (change < SMEAR_SHARE * subsample(change).median()).float()[None, None]
    core = round(sigma)  # specks thinner than 2 * core + 1 are chance, not a border
    padded = F.pad(repeated, (core,) * 4, value=1.0)
    eroded = 1 - max_filter(1 - padded, 2 * core + 1, 0)
    grown = max_filter(eroded, 4 * core + 1, 2 * core)
    return grown[0, 0] < 0.5


def max_filter(images: Tensor, side: int, padding: int) -> Tensor:
    """Highest value in a square of `side` pixels around each pixel; (N, 1, rows, columns), axis by axis."""
    along_x = F.max_pool2d(images, (1, side), stride=1, padding=(0, padding))
    return F.max_pool2d(along_x, (side, 1), stride=1, padding=(padding, 0))


def normalise(small: Tensor, valid: Tensor, diameter_px: float) -> Tensor:
    """Subtract the background, divide by the local deviation, and cut outliers; 0 outside `valid`."""
    mask = valid.float()
    residual = small - masked_blur(small, mask, BACKGROUND_SIGMA * diameter_px)
    spread = subsample(residual[valid]).abs().median() * 1.4826 if bool(valid.any()) else small.new_tensor(1.0)
    spread = spread.clamp(min=1e-12)
    tame = residual.clamp(-4 * spread, 4 * spread)
    deviation = masked_blur(tame**2, mask, DEVIATION_SIGMA * diameter_px).clamp(min=0).sqrt()
    floor = DEVIATION_FLOOR * subsample(deviation).median()
    return (residual / torch.maximum(deviation, floor).clamp(min=1e-12)).clamp(-CLIP, CLIP) * mask
