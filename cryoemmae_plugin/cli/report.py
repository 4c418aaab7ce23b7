"""``cryoemmae report``, ``view`` and ``apply``: look at a run, and take over what was changed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from cryoemmae_plugin.settings import REPORT_PICTURES, Count, count_of
from cryoemmae_plugin.terminal.console import Reporter
from cryoemmae_plugin.terminal.options import Flag, Formats, ResultFolder

_READING = "Reading the results in {}"


def report(folder: ResultFolder, /, *, pictures: Count = REPORT_PICTURES) -> None:
    """Write the report of an earlier run again: a page to look at picks, thresholds and micrographs.

    Open DIR/report/index.html in a browser; a copy of DIR/report works on any computer, without a network.

    Parameters
    ----------
    pictures
        Of how many micrographs to draw pictures: N evenly spread, all, or none. Pictures that are there stay.
    """
    reporter = Reporter()
    reporter.say(_READING.format(folder))  # before the imports, which take seconds
    from cryoemmae_plugin.report.writer import ReportOptions, write_report
    from cryoemmae_plugin.run.store import ResultStore
    from cryoemmae_plugin.terminal.console import Stages

    with ResultStore.open(folder) as store, Stages(reporter) as stages:
        options = ReportOptions(
            count_of(pictures), progress=lambda done, total: stages.show("Drawing pictures", done, total)
        )
        page = write_report(store, options=options)
    reporter.say(f"Wrote the report: {page}. Open it in a browser, or run: cryoemmae view {folder}")


def view(
    folder: ResultFolder, /, *, port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))] = 0
) -> None:
    """Show the report of a run in a browser on this computer, or on another one through ssh.

    It listens on 127.0.0.1 only, and answers only to the address that it prints. Nothing but the report can be
    reached through it. Pictures that are missing are drawn when they are looked at. Ctrl-C ends it.

    Parameters
    ----------
    port
        Port to listen on; 0 takes any that is free.
    """
    reporter = Reporter()
    reporter.say(_READING.format(folder))
    from cryoemmae_plugin.errors import InputError
    from cryoemmae_plugin.report.serve import serve_report

    try:
        server = serve_report(folder, port)
    except OSError as err:
        raise InputError(f"port {port} cannot be used ({err.strerror or err}); choose another --port") from err
    with server:
        number = server.server_address[1]
        reporter.say(
            f"Open {server.address}\n"
            f"From another computer, first run there: ssh -L {number}:127.0.0.1:{number} THIS_COMPUTER\n"
            "Press Ctrl-C to end."
        )
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            reporter.say("Ended.")


def apply(
    folder: ResultFolder,
    edits: Annotated[Path, Parameter(name="EDITS")],
    /,
    *,
    out: Annotated[Path | None, Parameter(show_default=False)] = None,
    formats: Formats = "relion",
    overwrite: Flag = False,
) -> None:
    """Write picks as they were edited in a report, and lists of the micrographs that were accepted and rejected.

    The folder of the run stays as it is.

    Parameters
    ----------
    edits
        File that Export edits in the report has saved.
    out
        Folder for the edited picks. [default: DIR/edited]
    overwrite
        Replace edited picks that are there.
    """
    reporter = Reporter()
    reporter.say(_READING.format(folder))
    from cryoemmae_plugin.report.edits import EDITED_FOLDER, apply_edits, read_edits, refuse_existing
    from cryoemmae_plugin.run.formats import parse_formats
    from cryoemmae_plugin.run.store import ResultStore
    from cryoemmae_plugin.run.summary import saved_selection

    wanted, changed, place = parse_formats(formats), read_edits(edits), out or folder / EDITED_FOLDER
    with reporter.alive(), ResultStore.open(folder) as store:
        if not overwrite:
            refuse_existing(place)
        applied = apply_edits(store, saved_selection(folder, store.record), changed, place, wanted)
    reporter.say(
        f"Wrote {applied.totals.picks} picks from {applied.accepted} micrographs to {place / 'picks.star'}; "
        f"{applied.rejected} micrographs are rejected"
    )
