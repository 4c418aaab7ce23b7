"""Draw typical and worst pieces of micrographs, with found, missed and false picks.

    python benchmarks/pictures.py --data DATA --work DIR [--mode default|paper] [--model NAME|DIR] [--only SET ...]
        [--per-scene N] [--unadapted] [--out docs/images]

Takes the picks that ``accuracy.py`` has left under DIR, or makes them. One PNG a set: the piece whose F1 is nearest to
the set's, and the one with most errors. Found is what the benchmark calls found: centres within half a diameter, one to
one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib import get_data_path
from numpy.typing import NDArray
from pickers import CommandLine, pick_set
from PIL import Image, ImageDraw, ImageFont
from scoring import above
from sets import BenchmarkSet, chosen_sets

from cryoemmae_plugin.evaluation.metrics import Reference, match
from cryoemmae_plugin.images import read_image

PIECE_DIAMETERS = 9.0
"""Side of a piece, in particle diameters."""
PANEL_PX = 420
FOOTER_PX = 28
LOW_PASS_DIAMETERS = 0.06
"""Deviation of the Gaussian low-pass, in particle diameters."""
STRETCH_PERCENTILES = (0.5, 99.5)
MOST_BYTES = 200_000
GREYS = (64, 48, 32, 24, 16)
"""Numbers of grey levels to try until a picture is small enough."""
FOUND, MISSED, FALSE = (0, 200, 140), (255, 170, 0), (255, 80, 200)
"""Colours that the colour-blind tell apart; a false pick is a square besides."""


@dataclass(frozen=True)
class Piece:
    """A square of a micrograph, and what was found in it.

    Attributes
    ----------
    corner : tuple of int
        (x, y) of its first pixel.
    side : int
        In micrograph pixels.
    found, missed, false : ndarray, shape (N, 2)
        Picks that are right, reference particles without one, and picks that are wrong, in micrograph pixels.
    """

    path: Path
    corner: tuple[int, int]
    side: int
    found: NDArray[np.float64]
    missed: NDArray[np.float64]
    false: NDArray[np.float64]

    @property
    def wrong(self) -> int:
        """Missed and false ones."""
        return len(self.missed) + len(self.false)

    @property
    def f1(self) -> float:
        """F1 within the piece; 1 where there is nothing and nothing was picked."""
        return 2 * len(self.found) / (2 * len(self.found) + self.wrong) if len(self.found) + self.wrong else 1.0


def main() -> int:
    """Draw every chosen set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--mode", choices=("default", "paper"), default="default")
    parser.add_argument("--model")
    parser.add_argument("--only", nargs="+", default=[], metavar="SET")
    parser.add_argument("--per-scene", type=int, help="simulated micrographs of each scene; adapting takes 5")
    parser.add_argument("--unadapted", action="store_true", help="what is picked with --no-adapt")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    picker = CommandLine(options.mode, options.model, adapt=not options.unadapted)
    options.out.mkdir(parents=True, exist_ok=True)
    for chosen in chosen_sets(options.data, options.work, options.only, per_scene=options.per_scene):
        found = pick_set(picker, chosen, options.work / "picks")
        picks = above({stem: one.candidates for stem, one in found.items()}, picker.default_threshold)
        pieces = list(cut_set(chosen, {stem: scored.xy for stem, scored in picks.items()}))
        path = options.out / f"picks-{chosen.name}.png"
        write_small(draw(*typical_and_worst(pieces), chosen), path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    return 0


def cut_set(chosen: BenchmarkSet, picks: dict[str, NDArray[np.float64]]) -> Iterator[Piece]:
    """Cut all micrographs of a set into pieces that overlap by half."""
    reference = chosen.reference()
    for path in chosen.micrographs():
        shape = read_image(path).shape
        yield from cut(path, (shape[0], shape[1]), reference[path.stem], picks[path.stem])


def cut(path: Path, shape: tuple[int, int], reference: Reference, picks: NDArray[np.float64]) -> Iterator[Piece]:
    """Cut one micrograph of (ny, nx) pixels; particles are matched in the whole of it."""
    pairs = match(reference.xy, picks, reference.diameter, "half_d")
    found = picks[pairs[:, 1]]
    missed = np.delete(reference.xy, pairs[:, 0], axis=0)
    false = np.delete(picks, pairs[:, 1], axis=0)
    side = min(round(PIECE_DIAMETERS * reference.diameter), *shape)
    for y in range(0, shape[0] - side + 1, max(side // 2, 1)):
        for x in range(0, shape[1] - side + 1, max(side // 2, 1)):
            inside = [xy[((xy >= (x, y)) & (xy < (x + side, y + side))).all(axis=1)] for xy in (found, missed, false)]
            yield Piece(path, (x, y), side, *inside)


def typical_and_worst(pieces: list[Piece]) -> tuple[Piece, Piece]:
    """The piece whose F1 is nearest to that of all together, the fullest of equals; and the one with most wrong.

    Where nothing is to be found, the first is one with as many wrong picks as half of the pieces have at most.
    """
    if not any(len(piece.found) + len(piece.missed) for piece in pieces):
        by_wrong = sorted(pieces, key=lambda piece: piece.wrong)
        return by_wrong[len(pieces) // 2], by_wrong[-1]
    total = sum(len(piece.found) for piece in pieces)
    f1 = 2 * total / max(2 * total + sum(piece.wrong for piece in pieces), 1)
    typical = min(pieces, key=lambda piece: (round(abs(piece.f1 - f1), 2), -len(piece.found)))
    return typical, max(pieces, key=lambda piece: piece.wrong)


def draw(typical: Piece, worst: Piece, chosen: BenchmarkSet) -> Image.Image:
    """Both pieces side by side, a legend below."""
    picture = Image.new("RGB", (2 * PANEL_PX + 8, PANEL_PX + FOOTER_PX), "white")
    for at, piece in enumerate((typical, worst)):
        picture.paste(_panel(piece, chosen.diameter_px), (at * (PANEL_PX + 8), 0))
    pen = ImageDraw.Draw(picture)
    pen.font = ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 13)
    x, y = 8, PANEL_PX + FOOTER_PX // 2
    for colour, text in ((FOUND, "found"), (MISSED, "missed"), (FALSE, "false")):
        mark = (x, y - 7, x + 14, y + 7)
        (pen.rectangle if colour == FALSE else pen.ellipse)(mark, outline=colour, width=3)
        pen.text((x + 20, y), text, fill="black", anchor="lm")
        x += 84
    title = f"{chosen.name}: typical (left), most errors (right)"
    pen.text((2 * PANEL_PX, y), title, fill="black", anchor="rm")
    return picture


def _panel(piece: Piece, diameter_px: float) -> Image.Image:
    scale = PANEL_PX / piece.side
    x, y = piece.corner
    image = read_image(piece.path)[y : y + piece.side, x : x + piece.side]
    image = cv2.GaussianBlur(image, (0, 0), max(LOW_PASS_DIAMETERS * diameter_px, 0.5))
    image = cv2.resize(image, (PANEL_PX, PANEL_PX), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    low, high = np.percentile(image, STRETCH_PERCENTILES)
    grey = np.clip((image - low) / max(high - low, 1e-12) * 255, 0, 255).astype(np.uint8)
    panel = Image.fromarray(grey).convert("RGB")
    pen = ImageDraw.Draw(panel)
    radius = diameter_px * scale / 2
    for colour, points in ((FOUND, piece.found), (MISSED, piece.missed), (FALSE, piece.false)):
        for cx, cy in (points - piece.corner + 0.5) * scale - 0.5:
            mark = (cx - radius, cy - radius, cx + radius, cy + radius)
            (pen.rectangle if colour == FALSE else pen.ellipse)(mark, outline=colour, width=2)
    return panel


def write_small(picture: Image.Image, path: Path) -> None:
    """Write a PNG of at most `MOST_BYTES`: the marks' colours, and as many grey levels as fit."""
    for greys in GREYS:
        palette = Image.new("P", (1, 1))
        levels = [level for value in np.linspace(0, 255, greys).astype(int).tolist() for level in [value] * 3]
        palette.putpalette([*levels, *FOUND, *MISSED, *FALSE])
        picture.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            return
    raise SystemExit(f"{path}: {path.stat().st_size} bytes, more than {MOST_BYTES}; make PANEL_PX smaller")


if __name__ == "__main__":
    sys.exit(main())
