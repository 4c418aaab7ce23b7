"""Collect what one session on a GPU machine without a network needs, into one folder.

    python benchmarks/gpu/prepare.py --data DATA [--out benchmarks/gpu/prepared] [--wheels NAME ...]

The folder (ignored by git) holds wheels that the machine lacks and the real images, at most 40 MiB of them. Simulated
micrographs are made on the machine. Then, on the GPU machine, from the project's folder:

    pip install --no-deps --target /tmp/site benchmarks/gpu/prepared/wheels/*.whl
    PYTHONPATH=/tmp/site:. python benchmarks/gpu/session.py --out RESULTS
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

MIB = 2**20
DATA_LIMIT_MIB = 40.0
LACKING = (
    "annotated-types",
    "mrcfile",
    "platformdirs",
    "pydantic",
    "pydantic-core",
    "tomli-w",
    "torch-ctf",
    "torch-grid-utils",
    "typing-inspection",
)
"""What an image for deep learning (PyTorch, OpenCV, scikit-learn, matplotlib, pytest) usually lacks."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def fetch_wheels(names: list[str], folder: Path, python: str) -> None:
    """Download wheels for the GPU machine, in the versions that are installed here."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wanted = [f"{name}=={version(name)}" for name in names]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    subprocess.run([*command, "--python-version", python, "--implementation", "cp", *platforms, *wanted], check=True)


def copy_data(source: Path, folder: Path, limit: float) -> list[Path]:
    """Copy the real images, those that are trained on first, until the limit in MiB; return the copies."""
    from training_data import training_data

    shutil.rmtree(folder, ignore_errors=True)
    data = training_data(source, folder, simulated=False)
    copied, room = [], limit * MIB
    for micrograph in [*data.micrographs, *data.kept_back]:
        size = micrograph.path.stat().st_size
        if size > room:
            print(f"left out, no room within {limit:g} MiB: {micrograph.path.parent.name}/{micrograph.path.name}")
            continue
        room -= size
        target = folder / micrograph.path.parent.name / micrograph.path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        copied.append(Path(shutil.copy(micrograph.path, target)))
    return copied


def main() -> int:
    """Fill the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real images")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "prepared")
    parser.add_argument("--wheels", nargs="*", default=list(LACKING), help="packages that the GPU machine lacks")
    parser.add_argument("--python", default="3.12", help="Python of the GPU machine")
    parser.add_argument("--limit", type=float, default=DATA_LIMIT_MIB, help="MiB of images")
    options = parser.parse_args()
    copied = copy_data(options.data, options.out / "data", options.limit)
    if options.wheels:
        fetch_wheels(options.wheels, options.out / "wheels", options.python)
    total = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file()) / MIB
    print(f"{options.out}: {len(copied)} images, {len(options.wheels)} wheels, {total:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())
