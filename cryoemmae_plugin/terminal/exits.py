"""Exit statuses of all three programs, and the one mapping of errors to them."""

from __future__ import annotations

import signal

from cryoemmae_plugin.errors import Interrupted, SettingsError
from cryoemmae_plugin.run.stop import Stopped

ALL_DONE = 0
NOTHING_DONE = 1
USAGE = 2
SOME_FAILED = 3
SIGNAL_BASE = 128
"""A run that signal N has stopped ends with 128 + N: 130 for Ctrl-C, 143 for SIGTERM."""


def stopped_by(number: int | None) -> int:
    """Exit status of a run that was stopped: by a signal, or otherwise, which counts as SIGTERM."""
    return SIGNAL_BASE + (number or signal.SIGTERM)


def status_of(err: BaseException) -> int:
    """Exit status of a command that has ended with this error."""
    if isinstance(err, Stopped):
        return stopped_by(err.number)
    if isinstance(err, KeyboardInterrupt):
        return stopped_by(signal.SIGINT)
    if isinstance(err, Interrupted):
        return stopped_by(None)
    return USAGE if isinstance(err, SettingsError) else NOTHING_DONE


def status_of_run(micrographs: int, failed: int) -> int:
    """Exit status of a run that has come to its end."""
    if not failed:
        return ALL_DONE
    return NOTHING_DONE if failed == micrographs else SOME_FAILED
