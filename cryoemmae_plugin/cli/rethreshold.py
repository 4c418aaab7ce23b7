"""``cryoemmae rethreshold``: other picks from the same candidates."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cryoemmae_plugin.errors import CryoemmaeError, render
from cryoemmae_plugin.settings import OUTPUT_SETTINGS, Purity, RequestedSettings
from cryoemmae_plugin.terminal.console import Reporter
from cryoemmae_plugin.terminal.options import OPTIONS, Box, Formats, ResultFolder, given, option_of

if TYPE_CHECKING:
    from cryoemmae_plugin.run.selection import Selection
    from cryoemmae_plugin.run.store import ResultStore


AS_IT_WAS = "as it was"


def rethreshold(
    folder: ResultFolder,
    /,
    *,
    threshold: Annotated[float | None, option_of("threshold", default=AS_IT_WAS)] = None,
    purity: Annotated[Purity | None, option_of("purity")] = None,
    edge_distance: Annotated[float | None, option_of("edge_distance", default=AS_IT_WAS)] = None,
    min_distance: Annotated[float | None, option_of("min_distance", default=AS_IT_WAS)] = None,
    drop_group: Annotated[str | None, option_of("drop_group", default="as it was; none keeps all")] = None,
    formats: Annotated[Formats, Parameter(show_default=False)] = "",
    box: Box = False,
) -> None:
    """Write the picks of an earlier run again, at another threshold. Takes seconds; the network does not run.

    Give a threshold, a purity, or another distance. Files for other programs that are there are written again too.
    """
    reporter = Reporter()
    reporter.say(f"Reading the results in {folder}")  # before the imports, which take seconds
    from cryoemmae_plugin.run.formats import Format, existing_formats, parse_formats
    from cryoemmae_plugin.run.outputs import write_outputs
    from cryoemmae_plugin.run.store import ResultStore
    from cryoemmae_plugin.run.summary import saved_selection, update_summary

    keep_all = drop_group == "none"
    changes = given(
        threshold=threshold,
        purity=purity,
        edge_distance=edge_distance,
        min_distance=min_distance,
        drop_group=None if keep_all else drop_group,
    )
    asked = RequestedSettings(diameter_A="auto", **changes)
    changed = {name: getattr(asked, name) for name in OUTPUT_SETTINGS if name in asked.model_fields_set}
    changed |= {"drop_group": ""} if keep_all else {}
    wanted = parse_formats(formats) | existing_formats(folder) | ({Format.EMAN} if box else set())
    with reporter.alive(), ResultStore.open(folder) as store:
        selection = replace(saved_selection(folder, store.record), **changed)
        totals = write_outputs(store, selection, wanted)
        update_summary(folder, selection, totals)
        _show_again(store, selection, reporter)
    micrographs = totals.picked + totals.empty
    each = f" ({totals.picks / micrographs:.0f} each)" if micrographs else ""
    empty = f"; {totals.empty} micrographs have no picks" if totals.empty else ""
    reporter.say(f"Wrote {totals.picks} picks from {micrographs} micrographs{each} to {folder / 'picks.star'}{empty}")


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
            reporter.warn(f"Overlay of the old threshold left as it is: {render(err, OPTIONS)}")
    if (store.folder / REPORT_FOLDER).is_dir():
        write_report(store, selection, ReportOptions(pictures=0))
