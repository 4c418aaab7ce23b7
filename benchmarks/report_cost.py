"""What the report of a run costs: its share of the processor time, and memory against the number.

    python benchmarks/report_cost.py time   [--count 16] [--side 2048]
    python benchmarks/report_cost.py memory [--counts 100 1000 5000]

`time` picks simulated micrographs on one thread at default settings, but without adapting, which would make the share
smaller. `memory` writes the report of stored candidates, the micrographs links to one small file, in a process each.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mrcfile
import numpy as np

DIAMETER_A, PIXEL_SIZE_A = 160.0, 1.5
CANDIDATES, SMALL_PX = 300, 256
ROLL_PX = 97
"""Micrographs are one simulated image, moved by this much from one to the next."""


def measured(command: list[str]) -> tuple[float, float]:
    """Run a command; its seconds of processor time and its peak memory in MB."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def simulate_micrographs(folder: Path, count: int, side: int) -> None:
    """Write micrographs that differ by a shift only."""
    from cryoemmae_plugin.simulate import SimulationSettings, simulate

    settings = SimulationSettings(
        shape=(side, side), pixel_size_A=PIXEL_SIZE_A, diameter_A=DIAMETER_A, n_particles=100, particle="globular"
    )
    image = simulate(settings, 1).image
    folder.mkdir()
    for number in range(count):
        with mrcfile.new(folder / f"mic_{number:03d}.mrc", np.roll(image, number * ROLL_PX, axis=(0, 1))) as file:
            file.voxel_size = PIXEL_SIZE_A


def report_share(count: int, side: int) -> None:
    """Pick micrographs without adapting, and print the report's share of the run's processor time."""
    from cryoemmae_plugin.report.finisher import report_finisher
    from cryoemmae_plugin.run.inputs import find_micrographs
    from cryoemmae_plugin.run.observer import Observer
    from cryoemmae_plugin.run.request import RunRequest
    from cryoemmae_plugin.run.service import Run, run_picking
    from cryoemmae_plugin.settings import DeviceOptions, RequestedSettings

    seconds: list[float] = []

    def finish(run: Run) -> None:
        began = time.process_time()
        report_finisher(print)(run)
        seconds.append(time.process_time() - began)

    with tempfile.TemporaryDirectory() as folder:
        micrographs = Path(folder) / "micrographs"
        simulate_micrographs(micrographs, count, side)
        settings = RequestedSettings(diameter_A=DIAMETER_A, adapt=False)
        request = RunRequest(settings, Path(folder) / "picks", device=DeviceOptions(device="cpu", threads=1))
        began = time.process_time()
        run_picking(request, find_micrographs([str(micrographs)]), Observer(), finishers=[finish])
        total = time.process_time() - began
    print(
        f"{count} micrographs of {side}²: {total:.1f} s of processor time, {seconds[0]:.2f} s of it for the report "
        f"({seconds[0] / count:.3f} s each): {seconds[0] / total:.1%}"
    )


def report_stored(count: int) -> None:
    """Write the report of `count` stored results, in this process."""
    from cryoemmae_plugin.report.writer import write_report
    from cryoemmae_plugin.run.store import ResultStore, RunRecord
    from cryoemmae_plugin.settings import PickerSettings
    from cryoemmae_plugin.types import Micrograph, Picks

    rng = np.random.default_rng(0)
    score = np.sort(rng.random(CANDIDATES).astype(np.float32))[::-1].copy()
    picks = Picks(rng.random((CANDIDATES, 2)) * SMALL_PX, score, score, (SMALL_PX, SMALL_PX))
    record = RunRecord(
        version="0", model_name="none", model_sha256="0" * 64, settings=PickerSettings(diameter_A=30, min_distance=0)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mic.mrc"
        with mrcfile.new(path, rng.normal(size=(SMALL_PX, SMALL_PX)).astype(np.float32)) as file:
            file.voxel_size = PIXEL_SIZE_A
        with ResultStore.create(Path(folder) / "picks", record) as store:
            for number in range(count):
                link = path.with_name(f"mic_{number:06d}.mrc")
                link.symlink_to(path)
                store.save(Micrograph(link, None, link.stem), picks, PIXEL_SIZE_A, path.stat().st_size)
            write_report(store)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["time", "memory", "stored"])
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 1000, 5000])
    options = parser.parse_args()
    if options.what == "time":
        report_share(options.count, options.side)
    elif options.what == "stored":
        report_stored(options.count)
    else:
        for count in options.counts:
            time_s, peak = measured([sys.executable, __file__, "stored", "--count", str(count)])
            print(f"{count:6} micrographs: {time_s:6.1f} s of processor time, {peak:4.0f} MB", flush=True)


if __name__ == "__main__":
    main()
