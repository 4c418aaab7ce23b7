"""What a run costs against the size of the micrographs, and against their number.

    python benchmarks/scaling.py size   --sides 1024 2048 4096 8192
    python benchmarks/scaling.py number --counts 10 100 1000 20000

`size` times both modes on noise with dark discs of one size in pixels. `number` replaces the network by a stand-in, and
the micrographs by links to one tiny file, so that what is left is what the run itself does for each: finding files,
reading, storing, looking what is done already, and writing the final files.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import mrcfile
import numpy as np
import torch
from numpy.typing import NDArray

from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.evaluation.speed import STEPS, TOTAL, Measured, Ours, measure
from cryoemmae_plugin.run.inputs import find_micrographs
from cryoemmae_plugin.run.outputs import write_outputs
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import ResultStore, RunRecord
from cryoemmae_plugin.run.stream import pick_micrographs
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.types import Micrograph, Picks
from cryoemmae_plugin.weights import load_model

DIAMETER_PX, PIXEL_A = 108, 1.77
CANDIDATES = 300
TINY_PX = 32
T = TypeVar("T")


class StandIn:
    """Finds as many candidates as a micrograph of a crowded grid has, without looking."""

    def pick(self, image: NDArray[np.float32], pixel_size_A: float, timer: StepTimer | None = None) -> Picks:
        """Return the same candidates for every image."""
        with timer.step("stand-in") if timer else nullcontext():
            rng = np.random.default_rng(0)
            score = np.sort(rng.random(CANDIDATES).astype(np.float32))[::-1].copy()
            return Picks(rng.random((CANDIDATES, 2)) * TINY_PX, score, score, (TINY_PX, TINY_PX))


def write_mrc(path: Path, image: NDArray[np.float32]) -> Path:
    with mrcfile.new(path, image) as file:
        file.voxel_size = PIXEL_A
    return path


def discs(side: int) -> NDArray[np.float32]:
    """Noise with a dark disc every two diameters."""
    y, x = np.ogrid[:side, :side]
    spacing = 2 * DIAMETER_PX
    inside = (x % spacing - DIAMETER_PX) ** 2 + (y % spacing - DIAMETER_PX) ** 2 < (DIAMETER_PX / 2) ** 2
    image = np.random.default_rng(side).standard_normal((side, side), dtype=np.float32)
    image[inside] -= 0.5
    return image


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_size(mode: str, side: int) -> dict[str, Any]:
    """Pick one micrograph in a process of its own, so that its peak of memory is its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_mrc(Path(folder) / "micrograph.mrc", discs(side))
        settings = PickerSettings(diameter_A=DIAMETER_PX * PIXEL_A, mode=mode)
        ours = Ours(load_model(settings.model_name), settings, torch.device("cpu"), Path(folder) / "results")
        (run,) = measure([ours], [Micrograph(path, None, "micrograph")])
    return {"mode": mode, "side": side, "picks": run.picks, "peak_mb": peak_mb()} | seconds(run)


def seconds(run: Measured) -> dict[str, dict[str, float]]:
    return {clock: {step: run.seconds(clock, step) for step in (*STEPS, TOTAL)} for clock in ("wall", "cpu")}


def one_number(count: int, where: str | None) -> dict[str, Any]:
    """Go through a whole run over `count` links to one file."""
    with tempfile.TemporaryDirectory(dir=where) as folder:
        home = Path(folder)
        source = write_mrc(home / "source.mrc", np.random.default_rng(0).random((TINY_PX, TINY_PX), np.float32))
        (home / "mics").mkdir()
        for at in range(count):
            (home / "mics" / f"mic_{at:06d}.mrc").hardlink_to(source)
        settings = PickerSettings(diameter_A=DIAMETER_PX * PIXEL_A)
        record = RunRecord(version="0.0", model_name="stand-in", model_sha256="0" * 64, settings=settings)
        costs: dict[str, dict[str, float]] = {}
        start_mb = peak_mb()
        found = timed(costs, "find", lambda: find_micrographs([str(home / "mics")]))
        with ResultStore.create(home / "out", record) as store:
            pending = timed(costs, "look, none done", lambda: store.pending(found))
            picked = timed(costs, "pick and store", lambda: sum(1 for _ in pick_micrographs(pending, StandIn(), store)))
            left = timed(costs, "look, all done", lambda: store.pending(found))
            totals = timed(costs, "write outputs", lambda: write_outputs(store, Selection.of(store.record.settings)))
        assert (picked, len(left), totals.picked) == (count, 0, count)
    return {"count": count, "start_mb": start_mb, "peak_mb": peak_mb(), "costs": costs}


def timed(costs: dict[str, dict[str, float]], name: str, work: Callable[[], T]) -> T:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    costs[name] = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return result


def in_own_process(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def show_size(row: dict[str, Any]) -> str:
    steps = "  ".join(f"{step} {row['wall'][step]:.2f} ({row['cpu'][step]:.2f})" for step in (*STEPS, TOTAL))
    return f"{row['mode']:<8} {row['side']:>5}²  {steps}  peak {row['peak_mb']:.0f} MB  {row['picks']} picks"


def show_number(row: dict[str, Any]) -> str:
    each = "  ".join(
        f"{name} {1e3 * cost['wall'] / row['count']:.3f} ({1e3 * cost['cpu'] / row['count']:.3f})"
        for name, cost in row["costs"].items()
    )
    return f"{row['count']:>6}: ms each: {each}  peak {row['peak_mb']:.0f} MB (before: {row['start_mb']:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("size", "number"))
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--modes", nargs="+", default=["default", "paper"])
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 100, 1000, 20000])
    parser.add_argument("--where", help="folder for the files of `number`; by default the system's temporary one")
    parser.add_argument("--out", type=Path, help="JSON of all figures")
    options = parser.parse_args()
    print("seconds: wall (processor);", os.cpu_count(), "cores,", torch.get_num_threads(), "threads")
    rows = []
    if options.what == "size":
        for side in options.sides:
            for mode in options.modes:
                rows.append(in_own_process(one_size, mode, side))
                print(show_size(rows[-1]), flush=True)
    else:
        for count in options.counts:
            rows.append(in_own_process(one_number, count, options.where))
            print(show_number(rows[-1]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
