"""A phantom of which nothing is symmetric, micrographs that show it, and the STAR files about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray

TEMPLATE_PX = 25  # odd: the middle pixel is the particle's centre
PIXEL_SIZE_A = 3.0
DIAMETER_A = 60.0
NOISE = 0.4

# (x, y, width, weight) of the phantom's blobs around its centre, in pixels; nothing about them is symmetric.
BLOBS = (
    (-5.0, -4.0, 2.2, 1.0),
    (4.0, -5.0, 1.6, 0.8),
    (-1.0, 1.0, 2.0, 1.0),
    (5.0, 5.0, 2.6, 1.2),
    (-5.0, 6.0, 1.3, 0.6),
)


def draw_phantom(image: NDArray[np.float32], x: float, y: float, angle: float = 0.0, side: int = 0) -> None:
    """Darken `image` by the phantom at (x, y), turned by `angle` in rad; `side` 1 is another view of it."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    c, s = np.cos(angle), np.sin(angle)
    for bx, by, width, weight in BLOBS:
        bx, weight = (0.35 * bx + 3.0, 1.3 * weight) if side else (bx, weight)
        cx, cy = x + c * bx - s * by, y + s * bx + c * by
        image -= weight * np.exp(-((columns - cx) ** 2 + (rows - cy) ** 2) / (2 * width**2))


def phantom(size: int = TEMPLATE_PX, angle: float = 0.0, side: int = 0) -> NDArray[np.float32]:
    """The phantom alone, centred on pixel size // 2."""
    image = np.zeros((size, size), np.float32)
    draw_phantom(image, size // 2, size // 2, angle, side)
    return image


def write_mrc(path: Path, image: NDArray[np.generic], pixel_size_A: float = PIXEL_SIZE_A) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, image, overwrite=True) as mrc:
        mrc.voxel_size = pixel_size_A
    return path


def noisy(shape: tuple[int, int], seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, NOISE, shape).astype(np.float32)


def place(shape: tuple[int, int], count: int, seed: int, least: float = 30.0) -> NDArray[np.float64]:
    """Centres (x, y) with fractions of pixels, apart from each other and from the edges."""
    rng = np.random.default_rng(seed)
    kept: list[NDArray[np.float64]] = []
    while len(kept) < count:
        xy = rng.uniform((20, 20), (shape[1] - 20, shape[0] - 20))
        if all(np.hypot(*(xy - other)) > least for other in kept):
            kept.append(xy)
    return np.array(kept)


def micrographs_star(names: Sequence[str], pixel_sizes: Sequence[float] = (PIXEL_SIZE_A,)) -> str:
    """A micrographs STAR of RELION 3.1 and newer; with several pixel sizes, one optics group each, in turn."""
    optics = "".join(f"group{i} {i} {A} {A / 2} 300 2.7 0.1\n" for i, A in enumerate(pixel_sizes, 1))
    rows = "".join(f"{name} {1 + i % len(pixel_sizes)}\n" for i, name in enumerate(names))
    return (
        "\n# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n"
        "_rlnMicrographPixelSize #3\n_rlnMicrographOriginalPixelSize #4\n_rlnVoltage #5\n"
        f"_rlnSphericalAberration #6\n_rlnAmplitudeContrast #7\n{optics}\n\n# version 30001\n\ndata_micrographs\n\n"
        f"loop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\n{rows}\n"
    )
