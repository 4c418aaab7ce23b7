"""``cryoemmae rethreshold``: other picks from the same candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from cryoemmae_plugin.terminal.console import Reporter
from cryoemmae_plugin.terminal.options import Flag


def rethreshold(
    folder: Annotated[Path, Parameter(name="DIR")],
    /,
    *,
    threshold: Annotated[float, Parameter(validator=validators.Number(gte=0, lte=1))],
    box: Flag = False,
) -> None:
    """Write the picks of an earlier run again, at another threshold. Takes seconds; the network does not run.

    Parameters
    ----------
    folder
        Folder that pick has written.
    threshold
        Figure of merit, 0 to 1, from which a candidate is a pick. Raise for purer, lower for more picks.
    box
        Write EMAN .box files as well; they are written anyway where there are some.
    """
    reporter = Reporter()
    reporter.say(f"Reading the results in {folder}")  # before the imports, which take seconds
    from cryoemmae_plugin.errors import CryoemmaeError
    from cryoemmae_plugin.run.outputs import BOX_FOLDER, write_outputs
    from cryoemmae_plugin.run.overlays import existing_overlays, write_overlay
    from cryoemmae_plugin.run.store import ResultStore
    from cryoemmae_plugin.run.summary import update_summary

    with ResultStore.open(folder) as store:
        totals = write_outputs(store, threshold, boxes=box or (folder / BOX_FOLDER).is_dir())
        for uid in existing_overlays(store):
            try:
                write_overlay(store, uid, threshold)
            except CryoemmaeError as err:
                reporter.warn(f"Overlay of the old threshold left as it is: {err}")
        update_summary(folder, threshold, totals)
    micrographs = totals.picked + totals.empty
    each = f" ({totals.picks / micrographs:.0f} each)" if micrographs else ""
    empty = f"; {totals.empty} micrographs have no picks" if totals.empty else ""
    reporter.say(f"Wrote {totals.picks} picks from {micrographs} micrographs{each} to {folder / 'picks.star'}{empty}")
