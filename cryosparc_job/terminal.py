"""What the commands have in common: lines on the terminal, exit statuses."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from cryoemmae_plugin.errors import ParameterNames
from cryoemmae_plugin.terminal import exits
from cryoemmae_plugin.terminal.console import LOG_EVERY_S, Reporter
from cryoemmae_plugin.terminal.options import OPTIONS

if TYPE_CHECKING:
    from cryosparc_job.picking import JobReport

PROGRAM = "cryoemmae-cryosparc"
_BAR = re.compile(r" \[#*-*\] ")
_CALLED = {"device": "--gpu"}
_ABSENT = ("out", "overwrite", "recursive")


def _option(field: str) -> str | None:
    """The option of a settings field; None where this program has none."""
    return None if field in _ABSENT else _CALLED.get(field) or OPTIONS.spell(field)


NAMES = ParameterNames(
    spell=_option, assign=OPTIONS.assign, instead=dict.fromkeys(_ABSENT, "begin a new job with the command pick")
)
"""Settings as options of this program."""


class Teller:
    """Takes the job's lines: a log's worth of them, and each at once on a terminal."""

    def __init__(self) -> None:
        self.reporter = Reporter(dated=True)
        self._last = float("-inf")

    def __call__(self, text: str) -> None:
        """Show a line, unless it is one of many of progress."""
        if _BAR.search(text):
            if time.monotonic() - self._last < LOG_EVERY_S:
                return
            self._last = time.monotonic()
        self.reporter.say(text)


def finish(teller: Teller, report: JobReport) -> int:
    """Say how a job ended; the exit status for it."""
    name = f"{report.project} {report.job}"
    if report.status == "completed":
        teller.reporter.say(f"{name} is completed: {report.picks} particles of {report.micrographs} micrographs.")
    else:
        teller.reporter.warn(f"{name} is {report.status}: {report.reason}.")
        if report.status != "killed" or report.micrographs:
            again = f"{PROGRAM} resume --project {report.project} --job {report.job}"
            teller.reporter.warn(
                f"{report.micrographs} micrographs are done and kept in {report.folder}. To resume: {again}"
            )
    if report.failed:
        teller.reporter.warn(f"{len(report.failed)} micrographs were left out:")
        for reason in report.failed[:20]:
            teller.reporter.warn(f"  {reason}")
    if report.status != "completed":
        return exits.stopped_by(report.signal)
    return exits.SOME_FAILED if report.failed else exits.ALL_DONE
