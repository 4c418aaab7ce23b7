"""``cryoemmae pick``: micrographs in, picks out."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cryoemmae_plugin.cli.console import Reporter, Stages
from cryoemmae_plugin.cli.options import ComputeChoice, Flag, SettingsOptions, WorkerOptions
from cryoemmae_plugin.compute import AS_SUITS, ComputeOptions
from cryoemmae_plugin.errors import Interrupted, SettingsError
from cryoemmae_plugin.run.workers.options import ONE_PROCESS
from cryoemmae_plugin.version import release

if TYPE_CHECKING:
    from cryoemmae_plugin.cli.session import AnyEngine, Engine
    from cryoemmae_plugin.run.workers.options import ExecutorOptions
    from cryoemmae_plugin.settings import PickerSettings


def pick(
    paths: Annotated[list[str], Parameter(name="PATH", negative="")],
    /,
    *,
    settings: SettingsOptions,
    out: Path = Path("picks"),
    device: str = "auto",
    jobs: int = 2,
    threads: Annotated[int, Parameter(show_default=False)] = 0,
    recursive: Flag = False,
    overwrite: Flag = False,
    box: Flag = False,
    overlays: str = "3",
    compute: ComputeChoice = AS_SUITS,
    workers: WorkerOptions = ONE_PROCESS,
) -> int:
    """Find the particles in micrographs.

    Run it again to go on where it stopped: micrographs that are done are skipped, those that failed are tried once
    more.

    Exit status: 0 all done, 1 nothing done, 2 wrong usage, 3 some micrographs failed.

    Parameters
    ----------
    paths
        Micrographs (MRC, TIFF, PNG, JPEG), folders, globs in quotes, or a micrographs STAR.
    out
        Folder for the results.
    device
        auto (a GPU where there is one), cpu, cuda:N, or cuda:N,M and cuda (all) for a worker on each of them.
    jobs
        Micrographs read ahead while one is picked; each takes the memory of its image.
    threads
        CPU threads of each worker to compute with. [default: the cores, shared among the workers]
    recursive
        Search the folders inside a folder too.
    overwrite
        Throw away what earlier runs have left in the folder.
    box
        Write EMAN .box files as well.
    overlays
        Draw the picks on the first N micrographs, or on all, or none.
    """
    from cryoemmae_plugin.cli.session import PickRun, RunOptions
    from cryoemmae_plugin.cli.signals import stop_on_signals
    from cryoemmae_plugin.device import use_threads
    from cryoemmae_plugin.run.adapting import settle_model
    from cryoemmae_plugin.run.diameter import settle_diameter
    from cryoemmae_plugin.run.inputs import find_micrographs
    from cryoemmae_plugin.run.store import ResultStore, RunRecord, alone_in, stored_source

    if jobs < 1 or threads < 0:
        raise SettingsError(f"--jobs is {jobs}, --threads is {threads}: give 1 or more")
    options = RunOptions(jobs=jobs, boxes=box, overlays=_overlay_count(overlays))
    micrographs = find_micrographs(
        paths,
        pixel_size_A=settings.pixel_size_A,
        recursive=recursive,
        exclude=out,
        owner=(lambda uid: None) if overwrite else partial(stored_source, out),
    )
    reporter = Reporter(dated=True)
    use_threads(threads)
    with alone_in(out, overwrite=overwrite) as lock:
        chosen = settle_diameter(settings, micrographs, out, anew=overwrite, tell=reporter.say)
        # what the engine lacks, shows before a minute is spent on adapting
        engine = choose_engine(chosen, device, threads, workers, compute)
        with stop_on_signals() as stop, Stages(reporter) as stages:
            try:
                adapted = settle_model(
                    chosen,
                    micrographs,
                    out,
                    anew=overwrite,
                    tell=reporter.say,
                    progress=lambda done, total: stages.show("Adapting", done, total),
                    should_stop=stop,
                )
                if stop():
                    raise Interrupted("stopped before the first micrograph; run the same command again")
            except Interrupted as err:
                reporter.warn(str(err))
                return stop.exit_status
        if adapted != chosen:
            engine = choose_engine(adapted, device, threads, workers, compute)
        record = RunRecord(
            version=release(), model_name=engine.model_name, model_sha256=engine.model_sha256, settings=chosen
        )
        with ResultStore.create(out, record, overwrite=overwrite, lock=lock) as store:
            return PickRun(store, engine, options, reporter).over(micrographs)


def choose_engine(
    settings: PickerSettings,
    device: str,
    threads: int,
    workers: ExecutorOptions,
    compute: ComputeOptions = AS_SUITS,
) -> AnyEngine:
    """What picks as these options say: in this process, or on workers."""
    from cryoemmae_plugin.run.workers.engine import build_worker_engine, needs_workers

    if needs_workers(workers, [device]):
        return replace(build_worker_engine(settings, [device], threads, workers), compute=compute)
    return build_engine(settings, device, threads, compute)


def build_engine(settings: PickerSettings, device: str, threads: int, compute: ComputeOptions = AS_SUITS) -> Engine:
    """Load the model onto the device: what all micrographs would fail by fails here, before any is read."""
    from cryoemmae_plugin.cli.session import Engine
    from cryoemmae_plugin.device import choose_device, use_threads
    from cryoemmae_plugin.weights import load_model

    use_threads(threads)
    chosen = choose_device(device)
    model = load_model(settings.model_name)
    from cryoemmae_plugin.core.picker import Picker

    return Engine(Picker(model, settings, chosen, compute), model.card.name, model.sha256, chosen)


def _overlay_count(text: str) -> int:
    """How many overlays to draw."""
    words = {"all": sys.maxsize, "none": 0}
    if text in words:
        return words[text]
    if not text.isdecimal():
        raise SettingsError(f"--overlays is {text!r}: give a number, all, or none")
    return int(text)
