"""One picture per micrograph: the image, a circle around each pick, a scale bar, and a circle of the diameter."""

from __future__ import annotations

import io
import math
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
_MARGIN_PX = 10
_SUBPIXEL_BITS = 4


def draw_overlay(
    image: NDArray[np.float32], picks: Picks, diameter_px: float, threshold: float, title: str, *, pixel_size_A: float
) -> Image.Image:
    """Draw picks over a micrograph; row 0 of the image is the top row of the picture.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        The micrograph.
    picks : Picks
        Those to draw, in pixels of `image`; the colour says the figure of merit, from `threshold` to 1.
    diameter_px : float
        Diameter of the circles in pixels of `image`, for picks that have none of their own.
    title : str
        For the line below the picture; characters that cannot be drawn become question marks.
    pixel_size_A : float
        Å per pixel of `image`, for the scale bar in the lower right corner. The circle in the lower left corner has
        the diameter.
    """
    scale = min(1.0, LONG_SIDE_PX / max(image.shape))
    canvas = np.repeat(_stretched(image, diameter_px, scale)[:, :, None], 3, axis=2)
    colours = _colours(picks.score, threshold)
    radii = np.broadcast_to(picks.diameter_px(diameter_px * pixel_size_A, pixel_size_A), len(picks)) * scale / 2
    for (x, y), radius, colour in zip((picks.xy + 0.5) * scale - 0.5, radii.tolist(), colours, strict=True):
        _circle(canvas, x, y, radius, colour)
    title = title.encode("utf-8", "replace").decode()  # names of files may hold bytes that are not UTF-8
    picture = _with_footer(canvas, f"{title}   {len(picks)} picks", threshold)
    _draw_sizes(picture, canvas.shape[1], canvas.shape[0], diameter_px * scale, pixel_size_A / scale)
    return picture


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


def _draw_sizes(picture: Image.Image, width: int, height: int, diameter_px: float, pixel_size_A: float) -> None:
    """Draw a circle of the diameter and a scale bar into the lower corners of the image, white on black."""
    draw = ImageDraw.Draw(picture)
    draw.font = _font()
    bottom, radius = height - _MARGIN_PX, diameter_px / 2
    left, top = _MARGIN_PX, bottom - 2 * radius
    for line, colour in ((3, "black"), (1, "white")):
        draw.ellipse((left, top, left + 2 * radius, bottom), outline=colour, width=line)
    length_A = round_length(width / 5 * pixel_size_A)
    length_px = round(length_A / pixel_size_A)
    right = width - _MARGIN_PX
    draw.rectangle((right - length_px - 1, bottom - 4, right + 1, bottom + 1), fill="black")
    draw.rectangle((right - length_px, bottom - 3, right, bottom), fill="white")
    place = (right - length_px / 2, bottom - 6)
    draw.text(place, f"{length_A:g} Å", fill="white", anchor="mb", stroke_width=2, stroke_fill="black")


def round_length(most_A: float) -> float:
    """The longest of 1, 2 and 5 times a power of ten that is not above `most_A`, for a scale bar.

    Examples
    --------
    >>> round_length(430.0)
    200.0
    """
    unit = 10.0 ** math.floor(math.log10(most_A))
    return max(factor * unit for factor in (1, 2, 5) if factor * unit <= most_A)


def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 12)


def _with_footer(canvas: NDArray[np.uint8], text: str, threshold: float) -> Image.Image:
    """Put a line of text and the scale of colours below the picture."""
    height, width = canvas.shape[:2]
    picture = Image.new("RGB", (width, height + _FOOTER_PX), "black")
    picture.paste(Image.fromarray(canvas), (0, 0))
    draw = ImageDraw.Draw(picture)
    draw.font = _font()
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
