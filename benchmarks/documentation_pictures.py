"""Draw the pictures of the README and of the landing page from simulated micrographs.

    python benchmarks/documentation_pictures.py docs/images [--model NAME|DIR]

``picks.jpg`` shows one micrograph with its picks and a legend, ``gallery.jpg`` six specimens. The shipped model picks
them as it is, without adapting.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cryoemmae_plugin import Picker, PickerSettings
from cryoemmae_plugin.run.overlay_picture import LOW_PASS_DIAMETERS, draw_overlay
from cryoemmae_plugin.simulate import Scene, SimulationSettings, simulate

PIXEL_A = 3.0
SEED = 11
GAP_PX = 6
COLUMNS = 3
QUALITY = 85
CONTRAST_DEVIATIONS = 4.0
"""Grey levels are shown this far from their median, so that carbon does not take the contrast of the particles."""

LANDING = Scene(
    "Simulated micrograph with carbon and ice. A circle is a pick. Colour: figure of merit.",
    SimulationSettings(
        shape=(620, 1020),
        pixel_size_A=PIXEL_A,
        particle="tetramer",
        diameter_A=180.0,
        n_particles=90,
        defocus_um=2.2,
        carbon=0.1,
        grains=6,
        frost=2,
    ),
)
SPECIMENS = {
    "shell, 200 Å": {"particle": "shell", "diameter_A": 200.0, "n_particles": 25},
    "barrel, 180 Å": {"particle": "barrel", "diameter_A": 180.0, "n_particles": 25},
    "ring, 240 Å": {"particle": "ring", "diameter_A": 240.0, "n_particles": 16, "grains": 2},
    "globular, 150 Å": {"particle": "globular", "diameter_A": 150.0, "n_particles": 35},
    "trilobe, 200 Å": {"particle": "trilobe", "diameter_A": 200.0, "n_particles": 20},
    "multidomain, 180 Å": {"particle": "multidomain", "diameter_A": 180.0, "n_particles": 20},
}


def main() -> int:
    """Draw both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model")
    options = parser.parse_args()
    save(draw(LANDING, options.model), options.folder / "picks.jpg")
    panels = []
    for name, values in SPECIMENS.items():
        scene = Scene(name, SimulationSettings(shape=(400, 400), pixel_size_A=PIXEL_A, defocus_um=2.0, **values))
        panels.append(draw(scene, options.model))
    save(side_by_side(panels), options.folder / "gallery.jpg")
    return 0


def draw(scene: Scene, model: str | None) -> Image.Image:
    """Simulate a micrograph, pick it, and draw the picks."""
    settings = PickerSettings(diameter_A=scene.settings.diameter_A, model=model)
    micrograph = simulate(scene.settings, SEED)
    picks = Picker(settings, device="cpu").pick(micrograph.image, PIXEL_A)
    shown = clip_greys(micrograph.image, LOW_PASS_DIAMETERS * scene.settings.diameter_px)
    threshold, pixel_size_A = settings.pick_threshold, scene.settings.pixel_size_A
    return draw_overlay(shown, picks, scene.settings.diameter_px, threshold, scene.name, pixel_size_A=pixel_size_A)


def clip_greys(image: NDArray[np.float32], blur_px: float) -> NDArray[np.float32]:
    """Low-pass, and cut grey levels that are far from the median."""
    smooth = cv2.GaussianBlur(image, (0, 0), blur_px)
    median = np.median(smooth)
    reach = CONTRAST_DEVIATIONS * 1.4826 * np.median(np.abs(smooth - median))
    return np.clip(smooth, median - reach, median + reach)


def side_by_side(panels: list[Image.Image]) -> Image.Image:
    """Panels of one size in rows of `COLUMNS`."""
    width, height = (side + GAP_PX for side in panels[0].size)
    rows = -(-len(panels) // COLUMNS)
    picture = Image.new("RGB", (COLUMNS * width - GAP_PX, rows * height - GAP_PX), "white")
    for index, panel in enumerate(panels):
        row, column = divmod(index, COLUMNS)
        picture.paste(panel, (column * width, row * height))
    return picture


def save(picture: Image.Image, path: Path) -> None:
    """Write a JPEG without smearing the colours of thin circles."""
    picture.save(path, quality=QUALITY, subsampling=0, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB, {picture.size} pixels")


if __name__ == "__main__":
    sys.exit(main())
