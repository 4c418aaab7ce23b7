"""The report as the last step of a run, for every front end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.errors import UNSPELLED, CryoemmaeError, render
from cryoemmae_plugin.report.writer import ReportOptions, read_source, write_report
from cryoemmae_plugin.run.observer import Observer
from cryoemmae_plugin.run.prefetch import load
from cryoemmae_plugin.run.record import Result
from cryoemmae_plugin.run.service import Finisher, Run

TASK = "Drawing the report"
"""Name of the task for observers."""


def report_finisher(observer: Observer, stop: Callable[[], bool] = lambda: False) -> Finisher:
    """Make what writes the report of a run; one that cannot be written is not worth a run.

    Pictures are drawn of files that are on this host; others are not fetched again for it.

    Parameters
    ----------
    observer : Observer
        Hears how far it is, and what went wrong.
    stop : callable
        Asked before each picture; those that are left are not drawn then.
    """

    def finish(run: Run) -> None:
        if run.request.outputs.report is None:
            return
        by_uid = {micrograph.uid: micrograph for micrograph in run.micrographs}

        def read(result: Result) -> NDArray[np.float32]:
            return load(by_uid[result.uid]).image if result.uid in by_uid else read_source(result)

        failed = {failure["micrograph"]: failure["reason"] for failure in run.log.failures}
        progress = partial(observer.progress, TASK)
        options = ReportOptions(run.request.outputs.report, read, stop, progress)
        try:
            run.report = write_report(run.store, run.selection, options, failed=failed)
        except (CryoemmaeError, OSError) as err:
            observer.warning(f"No report: {render(err, UNSPELLED)}")

    return finish
