"""One picture per micrograph: the image, and a circle around each pick."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from matplotlib import colormaps, get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from cryoemmae_plugin.types import Picks

LONG_SIDE_PX = 1024
STRETCH_PERCENTILES = (0.5, 99.5)
LOW_PASS_DIAMETERS = 0.06
"""Deviation of the Gaussian low-pass, in particle diameters."""

_COLOURS = "plasma"
_FOOTER_PX = 26
_SUBPIXEL_BITS = 4


def draw_overlay(
    image: NDArray[np.float32], picks: Picks, diameter_px: float, threshold: float, title: str
) -> Image.Image:
    """Draw picks over a micrograph; row 0 of the image is the top row of the picture.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        The micrograph.
    picks : Picks
        Those to draw, in pixels of `image`; the colour says the figure of merit, from `threshold` to 1.
    diameter_px : float
        Diameter of the circles in pixels of `image`.
    title : str
        For the line below the picture.
    """
    scale = min(1.0, LONG_SIDE_PX / max(image.shape))
    canvas = np.repeat(_stretched(image, diameter_px, scale)[:, :, None], 3, axis=2)
    colours = _colours(picks.score, threshold)
    for (x, y), colour in zip((picks.xy + 0.5) * scale - 0.5, colours, strict=True):
        _circle(canvas, x, y, diameter_px * scale / 2, colour)
    return _with_footer(canvas, f"{title}   {len(picks)} picks", threshold)


def png_bytes(picture: Image.Image, notes: Mapping[str, str] | None = None) -> bytes:
    """The picture as the content of a PNG file, with `notes` as text in it."""
    info = PngInfo()
    for key, value in (notes or {}).items():
        info.add_text(key, value)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _stretched(image: NDArray[np.float32], diameter_px: float, scale: float) -> NDArray[np.uint8]:
    """Low-pass, make smaller, and stretch the grey levels to 0..255."""
    shape = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), max(LOW_PASS_DIAMETERS * diameter_px * scale, 0.5))
    low, high = np.percentile(small, STRETCH_PERCENTILES)
    grey: NDArray[np.uint8] = np.clip((small - low) / max(high - low, 1e-12) * 255, 0, 255).astype(np.uint8)
    return grey


def _colours(score: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """RGB of each score, shape (N, 3)."""
    place = (score - threshold) / max(1 - threshold, 1e-6)
    rgba: NDArray[np.uint8] = colormaps[_COLOURS](0.25 + 0.75 * np.clip(place, 0, 1), bytes=True)
    return rgba[:, :3]


def _circle(canvas: NDArray[np.uint8], x: float, y: float, radius: float, colour: NDArray[np.uint8]) -> None:
    one = 1 << _SUBPIXEL_BITS
    centre = (round(x * one), round(y * one))
    cv2.circle(canvas, centre, max(one, round(radius * one)), colour.tolist(), 1, cv2.LINE_AA, _SUBPIXEL_BITS)


def _with_footer(canvas: NDArray[np.uint8], text: str, threshold: float) -> Image.Image:
    """Put a line of text and the scale of colours below the picture."""
    height, width = canvas.shape[:2]
    picture = Image.new("RGB", (width, height + _FOOTER_PX), "black")
    picture.paste(Image.fromarray(canvas), (0, 0))
    draw = ImageDraw.Draw(picture)
    draw.font = ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 12)
    draw.text((6, height + 7), text, fill="white")
    bar = min(128, width // 4)
    scores = np.linspace(threshold, 1, bar, dtype=np.float32)
    strip = np.repeat(_colours(scores, threshold)[None], 8, axis=0)
    left = width - bar - 24
    if left > 40 + draw.textlength(text):
        draw.text((left - 30, height + 7), f"{threshold:.2f}", fill="white")
        picture.paste(Image.fromarray(strip), (left, height + 9))
        draw.text((left + bar + 6, height + 7), "1", fill="white")
    return picture
