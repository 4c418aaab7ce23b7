"""``cryoemmae benchmark``: what picking costs on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter, validators
from rich.console import Console
from rich.table import Table

from cryoemmae_plugin.settings import Mode, PickerSettings
from cryoemmae_plugin.terminal.console import Reporter
from cryoemmae_plugin.terminal.options import OneDevice, OneDiameter, PixelSize

if TYPE_CHECKING:
    import torch

    from cryoemmae_plugin.evaluation.speed import Contender, Measured, Ratio
    from cryoemmae_plugin.types import Micrograph

benchmark = App(
    name="benchmark", help="Measure what picking costs on this machine.", sort_key=14, help_format="plaintext"
)

SIMULATED_PIXEL_A = 1.5
SIMULATED_COVERAGE = 0.15
CLOCKS = ("wall", "cpu")


@benchmark.command
def speed(
    paths: Annotated[list[str] | None, Parameter(name="PATH", negative="")] = None,
    /,
    *,
    diameter: OneDiameter,
    pixel_size: PixelSize = None,
    mode: Literal["both", "default", "paper"] = "both",
    size: int = 4096,
    repeats: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 1,
    upstream: Path | None = None,
    device: OneDevice = "auto",
    threads: Annotated[int, Parameter(show_default=False, validator=validators.Number(gte=0))] = 0,
    out: Path | None = None,
) -> None:
    """Time the steps of picking, from the file to the stored result, in both modes.

    With --upstream the research code published with the method is timed beside paper mode, on the same micrographs and
    with the same weights, one right after the other. It is loaded from the folder that you give, and run: give one
    that you trust. It needs timm and joblib beside this package.

    Parameters
    ----------
    paths
        Micrographs, folders, globs in quotes, or a micrographs STAR. [default: a simulated micrograph]
    mode
        Time one mode only.
    size
        Side of the simulated micrograph, in pixels of 1.5 Å.
    repeats
        Turns of every micrograph.
    upstream
        Folder of a checkout of the published Cryo-EMMAE code.
    threads
        CPU threads to compute with; all, if not given.
    out
        Write all that was measured to this JSON file.
    """
    reporter = Reporter(aside=True)
    reporter.say("Preparing to measure")  # before the imports, which take seconds
    from cryoemmae_plugin.device import choose_device
    from cryoemmae_plugin.evaluation.speed import measure

    PickerSettings(diameter_A=diameter, pixel_size_A=pixel_size)
    if threads:
        _use_threads(threads)
    chosen = choose_device(device)
    with tempfile.TemporaryDirectory(prefix="cryoemmae-speed-") as folder, reporter.alive():
        scratch = Path(folder)
        micrographs = _micrographs(paths, diameter, pixel_size, size, scratch)
        contenders = _contenders(mode, diameter, pixel_size, upstream, chosen, scratch)
        if upstream is not None:
            from cryoemmae_plugin.evaluation.upstream import as_float_mrc

            micrographs = [as_float_mrc(micrograph, scratch) for micrograph in micrographs]
        if chosen.type == "cuda":  # kernels are chosen, memory is claimed
            measure(contenders, micrographs[:1], 1, chosen)
        runs = measure(contenders, micrographs, repeats, chosen, lambda run: reporter.say(_line(run)))
    names = [contender.name for contender in contenders]
    _show(runs, names, chosen)
    if out is not None:
        _write(out, runs, names, chosen)


def _use_threads(threads: int) -> None:
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def _micrographs(
    paths: Sequence[str] | None, diameter: float, pixel_size: float | None, size: int, scratch: Path
) -> list[Micrograph]:
    from cryoemmae_plugin.run.inputs import find_micrographs

    if paths:
        return find_micrographs(list(paths), pixel_size_A=pixel_size)
    from cryoemmae_plugin.simulate import Scene, SimulationSettings, write_micrographs
    from cryoemmae_plugin.simulate.scenes import particles_for

    pixel_size_A = pixel_size or SIMULATED_PIXEL_A
    settings = SimulationSettings(
        shape=(size, size),
        diameter_A=diameter,
        pixel_size_A=pixel_size_A,
        n_particles=particles_for(SIMULATED_COVERAGE, (size, size), diameter / pixel_size_A),
    )
    write_micrographs(scratch, [Scene(f"simulated_{size}", settings)], [1])
    return find_micrographs([str(scratch / f"simulated_{size}.mrc")], pixel_size_A=pixel_size)


def _contenders(
    mode: Mode | Literal["both"],
    diameter: float,
    pixel_size: float | None,
    upstream: Path | None,
    device: torch.device,
    scratch: Path,
) -> list[Contender]:
    from cryoemmae_plugin.evaluation.speed import Ours
    from cryoemmae_plugin.weights import load_model

    modes: tuple[Mode, ...] = ("default", "paper") if mode == "both" else (mode,)
    contenders: list[Contender] = []
    if upstream is not None:
        from cryoemmae_plugin.evaluation.upstream import UpstreamCode

        paper = PickerSettings(diameter_A=diameter, mode="paper")
        folder = scratch / "upstream"
        contenders.append(UpstreamCode(upstream, load_model(paper.model_name), diameter, device, folder))
    for each in modes:
        settings = PickerSettings(diameter_A=diameter, pixel_size_A=pixel_size, mode=each)
        contenders.append(Ours(load_model(settings.model_name), settings, device, scratch / each))
    return contenders


def _show(runs: Sequence[Measured], names: Sequence[str], device: torch.device) -> None:
    """Print what was measured, and on what."""
    console = Console(highlight=False)
    console.print(_table(runs, names), soft_wrap=True)
    for what, value in _environment(device).items():
        console.print(f"{what}: {value}", soft_wrap=True)


def _line(run: Measured) -> str:
    wall, cpu = (run.seconds(clock, "total") for clock in CLOCKS)
    return f"{run.contender:<8}  {run.micrograph}: {wall:.2f} s, {cpu:.2f} s of processor time, {run.picks} picks"


def _table(runs: Sequence[Measured], names: Sequence[str]) -> Table:
    """Median seconds by step, wall and processor; ratios of processor time where the upstream code was run."""
    from cryoemmae_plugin.evaluation.speed import STEPS, TOTAL, median_seconds, paired_ratios

    table = Table("step", box=None, pad_edge=False, caption="median seconds: wall (processor)", caption_justify="left")
    medians = {(name, clock): median_seconds(runs, name, clock) for name in names for clock in CLOCKS}
    ours = [name for name in names if name != "upstream"] if "upstream" in names else []
    ratios = {name: paired_ratios(runs, "upstream", name, "cpu") for name in ours}
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for name in ours:
        table.add_column(f"upstream / {name}", justify="right", no_wrap=True)
    for step in (*STEPS, TOTAL):
        cells = [f"{medians[name, 'wall'][step]:.2f} ({medians[name, 'cpu'][step]:.2f})" for name in names]
        for name in ours:
            ratio = ratios[name].get(step)
            cells.append("" if ratio is None else _brief(ratio))
        table.add_row(step, *cells, style="bold" if step == TOTAL else None)
    return table


def _brief(ratio: Ratio) -> str:
    return f"{ratio.median:.1f}" + (f" ({ratio.low:.1f}–{ratio.high:.1f})" if ratio.pairs > 1 else "")


def _environment(device: torch.device) -> dict[str, str]:
    import torch

    from cryoemmae_plugin.run.summary import hardware_name, versions

    packages = ", ".join(f"{name} {number}" for name, number in versions().items())
    threads = str(torch.get_num_threads())
    return {"hardware": hardware_name(str(device)), "threads": threads, "versions": packages}


def _write(out: Path, runs: Sequence[Measured], names: Sequence[str], device: torch.device) -> None:
    from cryoemmae_plugin.evaluation.speed import median_seconds, paired_ratios
    from cryoemmae_plugin.files import write_json

    plain: dict[str, Any] = _environment(device) | {"runs": [asdict(run) for run in runs]}
    plain["median_seconds"] = {name: {clock: median_seconds(runs, name, clock) for clock in CLOCKS} for name in names}
    plain["upstream_over"] = {
        name: {
            clock: {step: asdict(ratio) for step, ratio in paired_ratios(runs, "upstream", name, clock).items()}
            for clock in CLOCKS
        }
        for name in names
        if "upstream" in names and name != "upstream"
    }
    write_json(out, plain)
