"""How a command of any of the three programs runs and ends: one message and one exit status for whatever goes wrong."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError, UnknownCommandError
from pydantic import ValidationError

from cryoemmae_plugin.errors import CryoemmaeError, ParameterNames, render
from cryoemmae_plugin.log import library_log
from cryoemmae_plugin.memory import use_huge_pages
from cryoemmae_plugin.run.stop import raise_on_signals
from cryoemmae_plugin.settings import settings_error
from cryoemmae_plugin.terminal import exits
from cryoemmae_plugin.terminal.console import Reporter
from cryoemmae_plugin.terminal.options import OPTIONS
from cryoemmae_plugin.threads import wait_passively

DEBUG_FLAG, DEBUG_VARIABLE = "--debug", "CRYOEMMAE_DEBUG"


def run_app(app: App, argv: Sequence[str] | None = None, names: ParameterNames = OPTIONS) -> int:
    """Run a command line with the commands of `app`: every end becomes a message and an exit status.

    Parameters
    ----------
    argv : sequence of str or None
        The words; by default those that the program was started with.
    names : ParameterNames
        How the program names the settings.

    Returns
    -------
    int
        See :mod:`cryoemmae_plugin.terminal.exits`.
    """
    use_huge_pages()
    wait_passively()
    tokens = list(sys.argv[1:] if argv is None else argv)
    debug = DEBUG_FLAG in tokens or os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0")
    tokens = [token for token in tokens if token != DEBUG_FLAG]
    reporter = Reporter()
    try:
        with raise_on_signals(), library_log(reporter.warn, reporter.say, debug=debug):
            command, bound, *_ = app.parse_args(tokens, exit_on_error=False, print_error=False)
            return int(command(*bound.args, **bound.kwargs) or exits.ALL_DONE)
    except CycloptsError as err:
        named = [] if isinstance(err, UnknownCommandError) else tokens[:1]
        reporter.error(f"{usage_of(err, names)}\nSee: {' '.join([app.name[0], *named, '--help'])}")
        return exits.USAGE
    except (Exception, KeyboardInterrupt) as err:
        if debug:
            reporter.warn(traceback.format_exc())
        if isinstance(err, KeyboardInterrupt):
            reporter.warn("Interrupted.")
        else:
            reporter.error(message_of(err, names, hint="" if debug else f" Run it again with {DEBUG_FLAG}."))
        return exits.status_of(err)


def message_of(err: Exception, names: ParameterNames, hint: str = "") -> str:
    """What to say about an error: its own message where it was foreseen."""
    if isinstance(err, CryoemmaeError):
        return render(err, names)
    # No space for standard output: errors of files are foreseen and name them.
    if isinstance(err, OSError) and err.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space left for what this command says; free space, or send its output elsewhere"
    if isinstance(err, OSError) and err.filename is not None:
        return f"{os.fsdecode(err.filename)}: {err.strerror}; check the path and its permissions"
    return f"unexpected {type(err).__name__}: {err}.{hint} Please report what it shows."


def usage_of(err: CycloptsError, names: ParameterNames) -> str:
    """What is wrong with a command line, in a sentence."""
    if isinstance(err.__cause__, ValidationError):
        return render(settings_error(err.__cause__), names)
    return str(err)
