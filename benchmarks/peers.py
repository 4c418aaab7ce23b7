"""Other programs on the same images: RELION's Laplacian of Gaussian, and Topaz with the detector that it ships.

Both run as programs of their own. Neither is a part of cryoemmae, and nothing of either is imported.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pickers import ChildClock, Found, call
from sets import BenchmarkSet

from cryoemmae_plugin.evaluation.metrics import Scored
from cryoemmae_plugin.evaluation.tables import read_picks
from cryoemmae_plugin.images import read_header

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
LARGE_PX = 3000
RUNNING = "running"
"""File that lies beside Topaz's tables while it writes them."""


@dataclass(frozen=True)
class RelionLoG:
    """``relion_autopick --LoG`` (Debian package relion, 3.1).

    RELION's threshold is mean + a × deviation of the figure of merit over one micrograph, a being
    ``--LoG_adjust_threshold``. It drops neighbours from the highest peak down, so that a run with a threshold low
    enough holds the picks of every higher one. Two further runs, with a = 0 and a = 1, say where mean and deviation
    lie; scores are then in units of a, and the default threshold is RELION's own, 0.

    ``--shrink 1`` keeps the micrograph's size, 0.5 halves that of large ones, which takes seconds instead of a minute.
    With ``--shrink 0``, as its GUI gives it, picks on a 1240 × 1024 micrograph came out 3 px off in y, from rounding.

    `smallest` and `largest` are ``--LoG_diam_min`` and ``--LoG_diam_max`` in particle diameters, the one choice that
    matters. 1 to 1 had the best mean F1 of six ranges on five simulated micrographs; 0.7 to 0.9 did better on particles
    that are less than their circle, empiar-10017's among them.
    """

    smallest: float = 1.0
    largest: float = 1.0
    executable: str = "relion_autopick"

    default_threshold = 0.0

    @property
    def name(self) -> str:
        """With the range of diameters."""
        return f"relion-log {self.smallest:g}–{self.largest:g}"

    @property
    def store(self) -> str:
        """A folder for each range."""
        return f"relion-log-{self.smallest:g}-{self.largest:g}"

    @property
    def fingerprint(self) -> str:
        """Its version and the options."""
        version = subprocess.run([self.executable, "--version"], capture_output=True, text=True, check=True).stdout
        return f"{version.splitlines()[0].strip()} {self.smallest:g} {self.largest:g}"

    def pick(self, chosen: BenchmarkSet, paths: list[Path], work: Path) -> Iterator[Found]:
        """Run it three times on each micrograph; the seconds are those of the first."""
        for path in paths:
            folder = work / path.stem
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / f"{path.stem}.mrc").symlink_to(path.absolute())
            clock = ChildClock()
            every = self._run(folder, path.stem, chosen, -20.0)
            seconds = clock.seconds()
            limits = [self._lowest(every, self._run(folder, path.stem, chosen, at)) for at in (0.0, 1.0)]
            deviation = max(limits[1] - limits[0], 1e-12)
            yield Found(path.stem, Scored(every.xy, (every.score - limits[0]) / deviation), seconds)
            shutil.rmtree(folder)

    def _run(self, folder: Path, stem: str, chosen: BenchmarkSet, adjust: float) -> Scored:
        command = [self.executable, "--i", f"{stem}.mrc", "--odir", f"at{adjust:g}/", "--pickname", "log"]
        shrink = "0.5" if max(read_header(folder / f"{stem}.mrc").shape) > LARGE_PX else "1"
        command += ["--angpix", f"{chosen.pixel_size_A:g}", "--LoG", "--shrink", shrink, "--lowpass", "20"]
        command += ["--LoG_diam_min", f"{chosen.diameter_A * self.smallest:g}"]
        command += ["--LoG_diam_max", f"{chosen.diameter_A * self.largest:g}", "--LoG_adjust_threshold", f"{adjust:g}"]
        call(command, cwd=folder)
        nothing = Scored(np.zeros((0, 2)), np.zeros(0))
        return read_picks([folder / f"at{adjust:g}" / f"{stem}_log.star"], [stem]).get(stem, nothing)

    @staticmethod
    def _lowest(every: Scored, kept: Scored) -> float:
        """Threshold that keeps so many: half-way between the last that is kept and the first that is not."""
        ranked = np.append(np.sort(every.score)[::-1], 0.0)
        n = len(kept.score)
        return float(ranked[0] if n == 0 else (ranked[n - 1] + ranked[min(n, len(ranked) - 1)]) / 2)


@dataclass(frozen=True)
class Topaz:
    """Topaz with its pretrained detector (resnet16, 64 units), in a virtual environment made for it.

    ``topaz preprocess`` makes the image smaller by a whole number, such that the particle's diameter comes to about
    `diameter_px`, and normalises it; ``topaz extract`` scores it and keeps maxima that are more than a particle's
    radius apart. RELION brings twice the diameter to the 71 px that Topaz sees at once, which is the same scale within
    rounding; half of it gave a lower F1 on a simulated micrograph.

    The default threshold, -6, is where the program stops looking (p = 0.0025); what a user would pick with starts at
    about 0 (p = 0.5).

    The commands are run as modules: the program ``topaz`` itself loads what its training needs too, torchvision among
    it, which picking does without.
    """

    environment: Path
    default_threshold: float = -6.0
    diameter_px: float = 30.0
    version: str = "0.3.20"

    store = "topaz"

    @property
    def name(self) -> str:
        """With the threshold."""
        return f"topaz, from {self.default_threshold:g}"

    @property
    def fingerprint(self) -> str:
        """Its version and the scale."""
        return f"topaz-em {self.version} resnet16 {self.diameter_px:g} px"

    def pick(self, chosen: BenchmarkSet, paths: list[Path], work: Path) -> Iterator[Found]:
        """Preprocess and extract all at once; tables that an interrupted run has left are used."""
        topaz = [str(self._python()), "-m"]
        tables = _whole_tables(work / "tables")
        left = [path for path in paths if not (tables / f"{path.stem}.coord").exists()]
        scale = max(1, round(chosen.diameter_px / self.diameter_px))
        radius = max(1, round(chosen.diameter_px / 2 / scale))
        clock = ChildClock()
        if left:
            call(
                [*topaz, "topaz.commands.preprocess", "-s", f"{scale}", "-o", str(work), *map(str, left)],
                env=ENVIRONMENT,
            )
            small = [str(work / f"{path.stem}.mrc") for path in left]
            extract = ["-d", "-1", "-r", f"{radius}", "-x", f"{scale}", "--per-micrograph", "-o", str(tables), *small]
            (tables / RUNNING).touch()
            call([*topaz, "topaz.commands.extract", *extract], env=ENVIRONMENT)
            (tables / RUNNING).unlink()
        seconds = clock.seconds() / max(len(left), 1)
        for path in paths:
            yield Found(path.stem, _read_topaz(tables / f"{path.stem}.coord"), seconds)
        shutil.rmtree(work)

    def _python(self) -> Path:
        """The environment's interpreter; the environment is made where it is not there."""
        python = self.environment / "bin" / "python"
        ready = self.environment / f"topaz-{self.version}.ready"
        if ready.exists():
            return python
        shutil.rmtree(self.environment, ignore_errors=True)
        call([sys.executable, "-m", "venv", str(self.environment)])
        install = [str(python), "-m", "pip", "install", "--quiet", "--no-compile"]
        constraints = Path(__file__).resolve().parents[1] / "constraints.txt"
        needed = ["torch", "numpy", "pandas", "scikit-learn", "scipy", "h5py", "pillow", "psutil", "tqdm", "future"]
        call([*install, "--constraint", str(constraints), *needed])
        call([*install, "--no-deps", f"topaz-em=={self.version}"])
        ready.touch()
        return python


def _whole_tables(folder: Path) -> Path:
    """The folder of tables; the last one that an interrupted run was writing is taken out."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / RUNNING).exists():
        written = sorted(folder.glob("*.coord"), key=lambda path: path.stat().st_mtime)
        for path in [*written[-1:], folder / RUNNING]:
            path.unlink()
    return folder


def _read_topaz(path: Path) -> Scored:
    """Read what ``topaz extract`` has written: a line a particle, with tabs."""
    with path.open(newline="") as file:
        rows = [(row["x_coord"], row["y_coord"], row["score"]) for row in csv.DictReader(file, delimiter="\t")]
    table: NDArray[np.float64] = np.array(rows, float).reshape(-1, 3)
    return Scored(table[:, :2], table[:, 2])
