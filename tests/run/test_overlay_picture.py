"""Circles sit where the picks are, the image is not flipped, and colours rank."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from cryoemmae_plugin.run.overlay_picture import draw_overlay, png_bytes
from cryoemmae_plugin.types import Picks


def picks_at(*points: tuple[float, float, float], shape: tuple[int, int]) -> Picks:
    table = np.array(points, float).reshape(-1, 3)
    return Picks(table[:, :2], table[:, 2].astype(np.float32), np.ones(len(table), np.float32), shape)


def coloured(picture: Image.Image, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """(y, x) of the pixels that are not grey."""
    pixels = np.asarray(picture)[:rows].astype(int)
    return np.nonzero(pixels.max(axis=2) - pixels.min(axis=2) > 30)


def test_the_picture_keeps_the_images_rows_and_columns() -> None:
    image = np.zeros((2000, 3000), np.float32)
    image[:200, :300] = 10  # bright upper left corner
    picture = draw_overlay(image, Picks.none(image.shape), 100, 0.5, "mic", pixel_size_A=2.0)
    pixels = np.asarray(picture)
    assert pixels.shape[1] == 1024
    assert pixels[20, 20].min() > 200
    assert pixels[20, 1000].max() < 50
    assert pixels[600, 20].max() < 50


def test_a_circle_is_centred_on_its_pick() -> None:
    shape = (1200, 2048)
    picture = draw_overlay(
        np.zeros(shape, np.float32), picks_at((1500.5, 300.5, 1.0), shape=shape), 200, 0.5, "mic", pixel_size_A=2.0
    )
    y, x = coloured(picture, 600)
    assert abs((x.min() + x.max()) / 2 - 750) < 0.6
    assert abs((y.min() + y.max()) / 2 - 150) < 0.6
    assert abs((x.max() - x.min()) - 100) <= 3


def test_better_picks_have_another_colour() -> None:
    shape = (100, 200)
    picture = draw_overlay(
        np.zeros(shape, np.float32),
        picks_at((50, 50, 1.0), (150, 50, 0.5), shape=shape),
        20,
        0.5,
        "m",
        pixel_size_A=2.0,
    )
    pixels = np.asarray(picture).astype(int)
    assert np.abs(pixels[50, 60] - pixels[50, 160]).sum() > 100


def test_notes_are_kept_in_the_png() -> None:
    picture = draw_overlay(np.zeros((50, 50), np.float32), Picks.none((50, 50)), 10, 0.5, "mic", pixel_size_A=2.0)
    with Image.open(io.BytesIO(png_bytes(picture, {"key": "value"}))) as again:
        assert again.info["key"] == "value"


def test_a_scale_bar_and_a_circle_of_the_diameter_are_in_the_lower_corners() -> None:
    shape = (1000, 1000)
    picture = draw_overlay(np.zeros(shape, np.float32), Picks.none(shape), 200, 0.5, "mic", pixel_size_A=2.0)
    white = np.asarray(picture)[:1000, :, :3].min(axis=2) > 200
    circle = np.argwhere(white[:, :500])
    assert np.ptp(circle, axis=0).tolist() == [200, 200]
    bar = white[988, 500:]
    assert abs(int(bar.sum()) - 100) <= 2, "200 Å at 2 Å/px"


def test_a_name_that_is_not_utf8_can_be_drawn() -> None:
    shape = (100, 100)
    assert draw_overlay(np.zeros(shape, np.float32), Picks.none(shape), 20, 0.5, "mic\udcff", pixel_size_A=2.0)
