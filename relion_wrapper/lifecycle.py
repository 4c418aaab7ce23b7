"""From a job's command line to its exit marker: RELION hears of every end, whatever happens on the way."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryoemmae_plugin.errors import CryoemmaeError, Interrupted, OutputError, render
from relion_wrapper.arguments import PARAMETERS, find_folder, parse_arguments
from relion_wrapper.markers import JobMarkers, Stopped, stopped_by_signals
from relion_wrapper.progress import say, warn

DONE, FAILED, ABORTED, SIGNALLED = 0, 1, 2, 128
"""Exit statuses; RELION looks at the marker files alone, queues look at these. Stopped by signal N: 128 + N."""


def run_job(words: Sequence[str]) -> int:
    """Run one External job; the exit status."""
    folder = find_folder(words)
    if folder is None:
        warn(
            "ERROR: --o JOBFOLDER/ is missing. RELION gives it; by hand, run this in the project folder with "
            "--o External/jobNNN/"
        )
        return FAILED
    markers = JobMarkers(folder)
    with stopped_by_signals():
        try:
            _begin(folder, markers)
            _pick(words, markers)
        except (Interrupted, Stopped, KeyboardInterrupt) as err:
            return _abort(markers, err)
        except (Exception, SystemExit) as err:
            return _fail(markers, err)
        markers.end("SUCCESS")
    return DONE


def _begin(folder: Path, markers: JobMarkers) -> None:
    """Make sure that the job's folder can be written before anything else is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        markers.begin()
        probe = folder / ".cryoemmae.writable"
        probe.touch()
        probe.unlink()
    except OSError as err:
        raise OutputError(
            f"{folder}: the job's folder cannot be written ({err.strerror or err}); check owner, permissions and "
            "free space (df, quota)"
        ) from err


def _pick(words: Sequence[str], markers: JobMarkers) -> None:
    arguments = parse_arguments(words)
    from relion_wrapper.job import PickJob  # seconds to import: by now a signal or a wrong parameter has been answered

    logger, handler = logging.getLogger("cryoemmae_plugin"), _ToRunErr(logging.WARNING)
    logger.addHandler(handler)
    try:
        PickJob(arguments, markers.abort_requested).run()
    finally:
        logger.removeHandler(handler)


def _abort(markers: JobMarkers, err: BaseException) -> int:
    say("")
    say(f"Stopped ({str(err) or 'interrupted'}). Continue the job to go on where it stopped.")
    markers.end("ABORTED")
    return SIGNALLED + err.number if isinstance(err, Stopped) else ABORTED


def _fail(markers: JobMarkers, err: BaseException) -> int:
    """Say what went wrong: in one line where it was foreseen, else in full."""
    say("")
    if isinstance(err, CryoemmaeError):
        warn(f"ERROR: {render(err, PARAMETERS)}")
    else:
        warn(f"ERROR: unexpected {type(err).__name__}: {err}; please report what follows")
        warn("".join(traceback.format_exception(type(err), err, err.__traceback__)))
    say("Failed: see run.err, or above")
    with suppress(OSError):  # a folder that cannot be written has been named above
        markers.end("FAILURE")
    return FAILED


class _ToRunErr(logging.Handler):
    """Passes the library's warnings on to run.err."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        warn(f"WARNING: {self.format(record)}")
