"""Run a job from its command line to its exit marker. Every end leaves a marker for RELION."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryoemmae_plugin.errors import CryoemmaeError, Interrupted, OutputError, render
from cryoemmae_plugin.log import library_log
from cryoemmae_plugin.memory import use_huge_pages
from cryoemmae_plugin.run.stop import raise_on_signals
from cryoemmae_plugin.terminal import exits
from cryoemmae_plugin.threads import wait_passively
from cryoemmae_plugin.version import package_version
from relion_wrapper.arguments import PARAMETERS, find_folder, parse_arguments
from relion_wrapper.markers import JobMarkers
from relion_wrapper.progress import say, warn


def run_job(words: Sequence[str]) -> int:
    """Run one External job; the exit status.

    RELION looks at the marker files alone, queues look at the status: a job that is done has 0, also where some
    micrographs have failed.
    """
    use_huge_pages()
    wait_passively()
    folder = find_folder(words)
    if folder is None:
        warn(
            "ERROR: --o JOBFOLDER/ is missing. RELION gives it; by hand, run this in the project folder with "
            "--o External/jobNNN/"
        )
        return exits.USAGE
    markers = JobMarkers(folder)
    with raise_on_signals():
        try:
            _begin(folder, markers)
            _pick(words, markers)
        except (Interrupted, KeyboardInterrupt) as err:
            _abort(markers, err)
            return exits.status_of(err)
        except (Exception, SystemExit) as err:
            _fail(markers, err)
            return exits.status_of(err)
        markers.end("SUCCESS")
    return exits.ALL_DONE


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
    say(f"cryoemmae {package_version()}: reading {arguments.in_mics}")
    from relion_wrapper.job import PickJob  # takes seconds to import; wrong parameters are reported before

    with library_log(lambda text: warn(f"WARNING: {text}")):
        PickJob(arguments, markers.abort_requested).run()


def _abort(markers: JobMarkers, err: BaseException) -> None:
    say("")
    say(f"Stopped ({str(err) or 'interrupted'}). Continue the job to resume it.")
    markers.end("ABORTED")


def _fail(markers: JobMarkers, err: BaseException) -> None:
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
