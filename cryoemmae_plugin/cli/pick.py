"""``cryoemmae pick``: micrographs in, picks out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cryoemmae_plugin.errors import Interrupted
from cryoemmae_plugin.settings import AS_A_RULE, AS_SUITS, ON_ANY_DEVICE, ONE_PROCESS
from cryoemmae_plugin.terminal import exits
from cryoemmae_plugin.terminal.console import Reporter
from cryoemmae_plugin.terminal.options import (
    INPUT_OUTPUT,
    Box,
    ComputeChoice,
    DeviceChoice,
    Flag,
    MicrographPaths,
    OutputChoice,
    Recursive,
    SettingsOptions,
    WorkerOptions,
)
from cryoemmae_plugin.version import package_version

if TYPE_CHECKING:
    from cryoemmae_plugin.run.request import RunRequest
    from cryoemmae_plugin.types import Micrograph


def pick(
    paths: MicrographPaths,
    /,
    *,
    settings: SettingsOptions,
    out: Annotated[Path, Parameter(group=INPUT_OUTPUT)] = Path("picks"),
    overwrite: Annotated[Flag, Parameter(group=INPUT_OUTPUT)] = False,
    recursive: Annotated[Recursive, Parameter(group=INPUT_OUTPUT)] = False,
    outputs: OutputChoice = AS_A_RULE,
    box: Annotated[Box, Parameter(group=INPUT_OUTPUT)] = False,
    device: DeviceChoice = ON_ANY_DEVICE,
    compute: ComputeChoice = AS_SUITS,
    workers: WorkerOptions = ONE_PROCESS,
) -> int:
    """Find the particles in micrographs.

    To resume, run the same command again: finished micrographs are skipped, failed ones are tried
    again.

    Exit status: 0 all done, 1 nothing done, 2 wrong usage, 3 some micrographs failed, 128 + N stopped by signal N.

    Parameters
    ----------
    out
        Folder for the results.
    overwrite
        Delete the results of earlier runs in the folder.
    """
    reporter = Reporter(dated=True)
    reporter.say(f"cryoemmae {package_version()}: looking for micrographs")  # before the imports, which take seconds
    with reporter.alive():
        from cryoemmae_plugin.run.formats import Format
        from cryoemmae_plugin.run.inputs import find_micrographs
        from cryoemmae_plugin.run.request import Outputs, RunRequest
        from cryoemmae_plugin.run.store import Existing, owner_in

        written = Outputs.of(outputs, *([Format.EMAN] if box else []))
        existing = Existing.REPLACE if overwrite else Existing.CONTINUE
        micrographs = find_micrographs(
            paths,
            pixel_size_A=settings.pixel_size_A,
            recursive=recursive,
            exclude=out,
            owner=owner_in(out, existing),
        )
        request = RunRequest(
            settings,
            out,
            existing=existing,
            device=device,
            compute=compute,
            workers=workers,
            outputs=written,
        )
        return carry_out(request, micrographs, reporter)


def carry_out(request: RunRequest, micrographs: Sequence[Micrograph], reporter: Reporter) -> int:
    """Pick micrographs, tell the terminal how it goes, and write the report; the exit status."""
    from cryoemmae_plugin.cli.observer import TerminalObserver
    from cryoemmae_plugin.report.finisher import report_finisher
    from cryoemmae_plugin.run.service import run_picking
    from cryoemmae_plugin.run.stop import Stop, stop_on_signals

    with stop_on_signals(Stop()) as stop, TerminalObserver(reporter) as observer:
        try:
            finishers = [report_finisher(observer, stop)]
            run = run_picking(request, micrographs, observer, stop=stop, finishers=finishers)
        except Interrupted:
            reason = str(stop.reason)
            reporter.warn(f"{reason[:1].upper()}{reason[1:]}. To resume, run the same command again.")
            return exits.stopped_by(stop.signal)
    return exits.status_of_run(run.counts.micrographs, run.counts.failed)
