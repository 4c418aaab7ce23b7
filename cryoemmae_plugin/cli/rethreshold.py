"""``cryoemmae rethreshold``: other picks from the same candidates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from cryoemmae_plugin.errors import CryoemmaeError, SettingsError
from cryoemmae_plugin.settings import PURITY_THRESHOLD, Purity, RequestedSettings
from cryoemmae_plugin.terminal.console import Reporter
from cryoemmae_plugin.terminal.options import Flag

if TYPE_CHECKING:
    from cryoemmae_plugin.run.selection import Selection
    from cryoemmae_plugin.run.store import ResultStore


Distance = Annotated[float | None, Parameter(show_default=False, validator=validators.Number(gte=0, lte=5))]


def rethreshold(
    folder: Annotated[Path, Parameter(name="DIR")],
    /,
    *,
    threshold: Annotated[float | None, Parameter(show_default=False, validator=validators.Number(gte=0, lte=1))] = None,
    purity: Annotated[Purity | None, Parameter(show_default=False)] = None,
    edge_distance: Distance = None,
    min_distance: Distance = None,
    drop_group: Annotated[str | None, Parameter(show_default=False)] = None,
    formats: Annotated[str, Parameter(show_default=False)] = "",
    box: Flag = False,
) -> None:
    """Write the picks of an earlier run again, at another threshold. Takes seconds; the network does not run.

    Give a threshold, a purity, or another distance.

    Parameters
    ----------
    folder
        Folder that pick has written.
    threshold
        Figure of merit, 0 to 1, from which a candidate is a pick. Raise for purer, lower for more picks.
        [default: as it was]
    purity
        In place of a threshold: high for few false picks, complete for few missed particles, balanced for as few of
        both as possible.
    edge_distance
        Leave out picks closer to the edge than this many diameters; 0 keeps all. [default: as it was]
    min_distance
        Of two picks closer than this many diameters, keep only the better one. [default: as it was]
    drop_group
        Leave out picks of these groups, such as 3 or 3,5; none keeps all. The report shows the groups.
        [default: as it was]
    formats
        Write files for other programs as well: relion, cryosparc, eman, cryolo, or several with commas between them.
        Those that are there are written again anyway.
    box
        Write EMAN .box files as well; the same as --formats eman.
    """
    reporter = Reporter()
    reporter.say(f"Reading the results in {folder}")  # before the imports, which take seconds
    from cryoemmae_plugin.run.formats import Format, existing_formats, parse_formats
    from cryoemmae_plugin.run.outputs import write_outputs
    from cryoemmae_plugin.run.store import ResultStore
    from cryoemmae_plugin.run.summary import saved_selection, update_summary

    if threshold is not None and purity is not None:
        raise SettingsError("$purity stands for a $threshold; give one of the two")
    threshold = threshold if purity is None else PURITY_THRESHOLD[purity]
    wanted = parse_formats(formats) | existing_formats(folder) | ({Format.EMAN} if box else set())
    changed: dict[str, Any] = {
        "threshold": threshold,
        "edge_distance": edge_distance,
        "min_distance": min_distance,
        "drop_group": drop_group and _groups(drop_group),
    }
    with reporter.alive(), ResultStore.open(folder) as store:
        before = saved_selection(folder, store.record)
        selection = replace(before, **{name: value for name, value in changed.items() if value is not None})
        totals = write_outputs(store, selection, wanted)
        update_summary(folder, selection, totals)
        _show_again(store, selection, reporter)
    micrographs = totals.picked + totals.empty
    each = f" ({totals.picks / micrographs:.0f} each)" if micrographs else ""
    empty = f"; {totals.empty} micrographs have no picks" if totals.empty else ""
    reporter.say(f"Wrote {totals.picks} picks from {micrographs} micrographs{each} to {folder / 'picks.star'}{empty}")


def _groups(text: str) -> str:
    """The groups to leave out; empty for none."""
    return "" if text == "none" else RequestedSettings(diameter_A="auto", drop_group=text).drop_group or ""


def _show_again(store: ResultStore, selection: Selection, reporter: Reporter) -> None:
    """Write the table, the overlays and the report again, so that they show the new picks."""
    from cryoemmae_plugin.report.writer import REPORT_FOLDER, ReportOptions, write_report
    from cryoemmae_plugin.run.overlays import existing_overlays, write_overlay
    from cryoemmae_plugin.run.summary import saved_failures
    from cryoemmae_plugin.run.summary_table import write_summary_table

    write_summary_table(store, selection, saved_failures(store.folder), {}, {})
    for uid in existing_overlays(store):
        try:
            write_overlay(store, uid, selection)
        except CryoemmaeError as err:
            reporter.warn(f"Overlay of the old threshold left as it is: {err}")
    if (store.folder / REPORT_FOLDER).is_dir():
        write_report(store, selection, ReportOptions(pictures=0))
