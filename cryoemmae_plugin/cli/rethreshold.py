"""``cryoemmae rethreshold``: other picks from the same candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from cryoemmae_plugin.cli.console import Reporter
from cryoemmae_plugin.cli.options import Flag


def rethreshold(
    folder: Annotated[Path, Parameter(name="DIR")],
    /,
    *,
    threshold: Annotated[float, Parameter(validator=validators.Number(gte=0, lte=1))],
    box: Flag = False,
) -> None:
    """Write the picks of an earlier run anew at another threshold. Takes seconds; the network does not run.

    Parameters
    ----------
    folder
        Folder that pick has written.
    threshold
        Figure of merit, 0 to 1, from which a candidate is a pick. Raise for purer, lower for more picks.
    box
        Write EMAN .box files as well; they are written anyway where there are some.
    """
    from cryoemmae_plugin.errors import CryoemmaeError
    from cryoemmae_plugin.run.outputs import BOX_FOLDER, write_outputs
    from cryoemmae_plugin.run.overlays import existing_overlays, write_overlay
    from cryoemmae_plugin.run.store import ResultStore
    from cryoemmae_plugin.run.summary import update_summary

    reporter = Reporter()
    with ResultStore.open(folder) as store:
        totals = write_outputs(store, threshold, boxes=box or (folder / BOX_FOLDER).is_dir())
        for uid in existing_overlays(store):
            try:
                write_overlay(store, uid, threshold)
            except CryoemmaeError as err:
                reporter.warn(f"Overlay of the old threshold left as it is: {err}")
        update_summary(folder, threshold, totals)
    micrographs = totals.picked + totals.empty
    reporter.say(
        f"{folder / 'picks.star'} holds {totals.picks} picks of {micrographs} micrographs, {totals.empty} without any."
    )
