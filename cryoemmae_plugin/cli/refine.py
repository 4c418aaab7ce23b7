"""``cryoemmae refine``: pick again, by what 2D classification has kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cryoemmae_plugin.cli.pick import carry_out
from cryoemmae_plugin.settings import AS_A_RULE, AS_SUITS, ON_ANY_DEVICE, ONE_PROCESS
from cryoemmae_plugin.terminal.console import Reporter
from cryoemmae_plugin.terminal.options import (
    INPUT_OUTPUT,
    ComputeChoice,
    DeviceChoice,
    Flag,
    OutputChoice,
    ResultFolder,
    WorkerOptions,
    given,
    option_of,
)
from cryoemmae_plugin.version import package_version


def refine(
    folder: ResultFolder,
    /,
    *,
    particles: Annotated[list[Path], Parameter(group=INPUT_OUTPUT, negative="")],
    rejected: Annotated[list[Path] | None, Parameter(group=INPUT_OUTPUT, negative="", show_default=False)] = None,
    out: Annotated[Path | None, Parameter(group=INPUT_OUTPUT, show_default=False)] = None,
    threshold: Annotated[float | None, option_of("threshold", default="as in DIR")] = None,
    overwrite: Annotated[Flag, Parameter(group=INPUT_OUTPUT)] = False,
    outputs: OutputChoice = AS_A_RULE,
    device: DeviceChoice = ON_ANY_DEVICE,
    compute: ComputeChoice = AS_SUITS,
    workers: WorkerOptions = ONE_PROCESS,
) -> int:
    """Pick the micrographs of an earlier run again, by what you kept in 2D classification.

    The particles that you kept and the picks that you dropped teach the model of this data set. The new picks go into
    a folder of their own; the old ones stay. To resume, run the same command again.

    Parameters
    ----------
    particles
        Particles of the classes that you kept: particles.star of RELION's Select job, or the .cs file of CryoSPARC's
        Select 2D (particles_selected). Extracted from the picks of this run.
    rejected
        Particles of the classes that you dropped. [default: the picks that were not kept, on micrographs with a kept
        one]
    out
        Folder for the results. [default: DIR-refined]
    overwrite
        Delete the results of earlier runs in the output folder.
    """
    reporter = Reporter(dated=True)
    reporter.say(f"cryoemmae {package_version()}: reading the picks in {folder}")  # before the imports
    with reporter.alive():
        from cryoemmae_plugin.run.reading_selection import selection_of_run
        from cryoemmae_plugin.run.request import Outputs, RunRequest
        from cryoemmae_plugin.run.store import Existing, ResultStore, micrographs_in
        from cryoemmae_plugin.run.summary import saved_selection

        store = ResultStore.open(folder)
        before = saved_selection(folder, store.record)
        selection = selection_of_run(particles, rejected, store, before)
        # new picks have groups of their own
        chosen = before.settings() | {"drop_group": None} | given(threshold=threshold)
        request = RunRequest(
            type(store.record.settings)(**store.record.settings.model_dump() | chosen),
            out or folder.with_name(f"{folder.absolute().name}-refined"),
            existing=Existing.REPLACE if overwrite else Existing.CONTINUE,
            device=device,
            compute=compute,
            workers=workers,
            selection=selection,
            outputs=Outputs.of(outputs),
        )
        return carry_out(request, micrographs_in(store), reporter)
