"""Extract picks and classify them with RELION 3.1 (Debian package relion), as programs of their own.

Every step leaves its files in its folder and is not done again when they are whole, so that a run goes on where it was
stopped: classification from its last iteration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray
from pickers import call

from cryoemmae_plugin.star import find_table, read_star

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
BOX_DIAMETERS = 1.6
MASK_DIAMETERS = 1.15
OPTICS = """
data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
optics1 1 {pixel_size:.6g} {voltage:g} {cs:g} {amplitude:g}

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
"""


@dataclass(frozen=True)
class Optics:
    """How micrographs were taken; a defocus in Å each, or none, and then no CTF is corrected for."""

    pixel_size_A: float
    voltage_kV: float = 300.0
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.1
    defocus_A: Mapping[str, tuple[float, float, float]] | None = None


@dataclass(frozen=True)
class Classification:
    """How particles are classified.

    Attributes
    ----------
    box_px : int
        Side of the particle images, which are scaled to it.
    classes, iterations, seed, threads : int
    """

    box_px: int = 40
    classes: int = 10
    iterations: int = 12
    seed: int = 1
    threads: int = 1


@dataclass(frozen=True)
class Classes:
    """What a classification has come to.

    Attributes
    ----------
    star : Path
        RELION's table of the particles.
    averages : ndarray, shape (K, side, side)
        Particles bright.
    resolution_A : ndarray, shape (K,)
        RELION's own estimate.
    images : ndarray, shape (N, side, side)
        The particles.
    kind : ndarray, shape (N,)
        Class of each, from 0.
    psi_deg, shift_px : ndarray, shape (N,) and (N, 2)
        How each lies in its class: RELION's rlnAnglePsi, and its origin in pixels of the images.
    pixel_size_A : float
        Of all these images.
    """

    star: Path
    averages: NDArray[np.float64]
    resolution_A: NDArray[np.float64]
    images: NDArray[np.float64]
    kind: NDArray[np.intp]
    psi_deg: NDArray[np.float64]
    shift_px: NDArray[np.float64]
    pixel_size_A: float


def extract(
    picks: Mapping[Path, NDArray[np.float64]], optics: Optics, diameter_A: float, how: Classification, work: Path
) -> Path:
    """Extract picks (N, 2), by their micrograph; the STAR file of the particles, relative to `work`."""
    star = work / "particles.star"
    if star.exists():
        return Path(star.name)
    (work / "mics").mkdir(parents=True, exist_ok=True)
    (work / "coords" / "mics").mkdir(parents=True, exist_ok=True)
    for path, xy in picks.items():
        link = work / "mics" / path.name
        link.unlink(missing_ok=True)
        link.symlink_to(path.absolute())
        rows = "".join(f"{x:.2f} {y:.2f}\n" for x, y in xy)
        coordinates = f"\ndata_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n{rows}\n"
        (work / "coords" / "mics" / f"{path.stem}_picks.star").write_text(coordinates)
    (work / "micrographs.star").write_text(_micrographs_star(picks, optics))
    side = 2 * round(BOX_DIAMETERS * diameter_A / optics.pixel_size_A / 2)
    command = ["relion_preprocess", "--i", "micrographs.star", "--coord_dir", "coords/", "--coord_suffix"]
    command += ["_picks.star", "--part_dir", "Extract/", "--part_star", "unfinished.star", "--extract"]
    command += ["--extract_size", f"{side}", "--scale", f"{how.box_px}", "--norm", "--invert_contrast"]
    command += ["--bg_radius", f"{round(MASK_DIAMETERS / BOX_DIAMETERS * how.box_px / 2)}"]
    call(command, cwd=work, env=ENVIRONMENT)
    (work / "unfinished.star").replace(star)
    return Path(star.name)


def _micrographs_star(picks: Mapping[Path, NDArray[np.float64]], optics: Optics) -> str:
    head = OPTICS.format(
        pixel_size=optics.pixel_size_A,
        voltage=optics.voltage_kV,
        cs=optics.cs_mm,
        amplitude=optics.amplitude_contrast,
    )
    if optics.defocus_A is None:
        return head + "".join(f"mics/{path.name} 1\n" for path in picks) + "\n"
    head += "_rlnDefocusU #3\n_rlnDefocusV #4\n_rlnDefocusAngle #5\n"
    rows = ((path.name, *optics.defocus_A[path.stem]) for path in picks)
    return head + "".join(f"mics/{name} 1 {u:.2f} {v:.2f} {angle:.2f}\n" for name, u, v, angle in rows) + "\n"


def classify(particles: Path, optics: Optics, diameter_A: float, how: Classification, work: Path) -> Path:
    """Classify particles; the STAR file of the last iteration."""
    data = work / f"run_it{how.iterations:03d}_data.star"
    if _finished(work, how.iterations):
        return data
    before = [n for n in range(1, how.iterations) if _finished(work, n)]
    command = ["relion_refine", "--o", "./run", "--j", f"{how.threads}", "--iter", f"{how.iterations}"]
    if before:
        command += ["--continue", f"run_it{before[-1]:03d}_optimiser.star"]
    else:
        command += ["--i", str(particles), "--K", f"{how.classes}", "--random_seed", f"{how.seed}"]
        command += ["--particle_diameter", f"{MASK_DIAMETERS * diameter_A:.1f}", "--tau2_fudge", "2"]
        command += ["--psi_step", "24", "--offset_range", "3", "--offset_step", "2", "--oversampling", "1"]
        command += ["--flatten_solvent", "--zero_mask", "--norm", "--scale", "--pool", "30"]
        command += ["--dont_combine_weights_via_disc", "--pad", "1"]
        command += ["--ctf"] if optics.defocus_A is not None else []
    call(command, cwd=work, env=ENVIRONMENT)
    if not data.exists():  # a continued run puts the iteration it went on from into its names
        for path in work.glob(f"run_ct*_it{how.iterations:03d}_*"):
            path.rename(path.with_name("run_it" + path.name.partition("_it")[2]))
    return data


def _finished(work: Path, iteration: int) -> bool:
    """Whether an iteration has left all its files; the optimiser's is the last that RELION writes."""
    names = ("data.star", "model.star", "classes.mrcs", "optimiser.star")
    return all((work / f"run_it{iteration:03d}_{name}").exists() for name in names)


def read_classes(data: Path) -> Classes:
    """Read class averages, and the particles with their places in them."""
    work, stem = data.parent, data.name.removesuffix("_data.star")
    tables = read_star(data)
    particles, optics = find_table(tables, "particles"), find_table(tables, "optics")
    classes = find_table(read_star(work / f"{stem}_model.star"), "model_classes")
    assert particles is not None
    assert optics is not None
    assert classes is not None
    pixel_size_A = optics.numbers("rlnImagePixelSize")[0]
    origin_A = np.stack([particles.numbers(f"rlnOrigin{axis}Angst") for axis in "XY"], axis=1)
    return Classes(
        data,
        mrcfile.read(work / f"{stem}_classes.mrcs").astype(float),
        np.array([float(text) for text in classes.column("rlnEstimatedResolution")]),  # inf for an empty class
        _images(work, particles.column("rlnImageName")),
        np.array(particles.numbers("rlnClassNumber")).astype(int) - 1,
        np.array(particles.numbers("rlnAnglePsi")),
        origin_A / pixel_size_A,
        pixel_size_A,
    )


def _images(work: Path, names: list[str]) -> NDArray[np.float64]:
    """Particle images, in the order of names such as ``000003@Extract/mics/a.mrcs``."""
    stacks: dict[str, NDArray[np.float64]] = {}
    images = []
    for name in names:
        number, _, path = name.partition("@")
        if path not in stacks:
            stack = mrcfile.read(work / path).astype(float)
            stacks[path] = stack[None] if stack.ndim == 2 else stack
        images.append(stacks[path][int(number) - 1])
    return np.array(images)
