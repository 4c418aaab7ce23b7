"""The commands together, and how they end: exit status, and one readable message for whatever goes wrong."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App, CycloptsError, UnknownCommandError
from pydantic import ValidationError

from cryoemmae_plugin.cli import exits
from cryoemmae_plugin.cli.benchmark import benchmark
from cryoemmae_plugin.cli.console import Reporter, library_log
from cryoemmae_plugin.cli.demo import demo
from cryoemmae_plugin.cli.doctor import doctor
from cryoemmae_plugin.cli.evaluate import evaluate
from cryoemmae_plugin.cli.models import models
from cryoemmae_plugin.cli.options import OPTIONS
from cryoemmae_plugin.cli.pick import pick
from cryoemmae_plugin.cli.rethreshold import rethreshold
from cryoemmae_plugin.cli.train import train
from cryoemmae_plugin.errors import CryoemmaeError, SettingsError, render
from cryoemmae_plugin.memory import use_huge_pages
from cryoemmae_plugin.settings import settings_error

DEBUG_FLAG, DEBUG_VARIABLE = "--debug", "CRYOEMMAE_DEBUG"

HELP = """Particle picking for cryo-EM without a single label.

Begin with:  cryoemmae pick MICROGRAPHS/ --diameter 160
Try it out:  cryoemmae demo

Any command takes --debug, which shows where an error comes from.
"""


def build_app() -> App:
    """Put the commands together."""
    app = App(name="cryoemmae", help=HELP, version=lambda: version("cryoemmae"), help_format="plaintext")
    app.command(pick, sort_key=0)
    app.command(rethreshold, sort_key=1)
    app.command(evaluate, sort_key=2)
    app.command(train, sort_key=3)
    app.command(models)  # 4
    app.command(demo, sort_key=5)
    app.command(doctor, sort_key=6)
    app.command(benchmark)  # 7
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit status, see :mod:`cryoemmae_plugin.cli.exits`."""
    return run_app(build_app(), argv, "Interrupted. Run the same command again to go on.")


def run_app(app: App, argv: Sequence[str] | None, interrupted: str) -> int:
    """Run a command line with the commands of `app`: every end becomes a message and an exit status.

    Parameters
    ----------
    argv : sequence of str or None
        The words; by default those that the program was started with.
    interrupted : str
        What to say after Ctrl-C.
    """
    use_huge_pages()
    tokens = list(sys.argv[1:] if argv is None else argv)
    debug = DEBUG_FLAG in tokens or os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0")
    tokens = [token for token in tokens if token != DEBUG_FLAG]
    reporter = Reporter()
    try:
        with library_log(reporter, debug):
            command, bound, *_ = app.parse_args(tokens, exit_on_error=False, print_error=False)
            return int(command(*bound.args, **bound.kwargs) or exits.ALL_DONE)
    except CycloptsError as err:
        named = [] if isinstance(err, UnknownCommandError) else tokens[:1]
        reporter.error(f"{usage_of(err)}\nSee: {' '.join([app.name[0], *named, '--help'])}")
        return exits.USAGE
    except SettingsError as err:
        return _fail(reporter, render(err, OPTIONS), debug, exits.USAGE)
    except CryoemmaeError as err:
        return _fail(reporter, render(err, OPTIONS), debug, exits.NOTHING_DONE)
    except KeyboardInterrupt:
        reporter.warn(interrupted)
        return exits.SIGNAL_BASE + signal.SIGINT
    except Exception as err:
        hint = "" if debug else f" Run it again with {DEBUG_FLAG} and please report what it shows."
        return _fail(reporter, f"unexpected {type(err).__name__}: {err}.{hint}", debug, exits.NOTHING_DONE)


def _fail(reporter: Reporter, text: str, debug: bool, status: int) -> int:
    if debug:
        reporter.warn(traceback.format_exc())
    reporter.error(text)
    return status


def usage_of(err: CycloptsError) -> str:
    """What is wrong with a command line, in a sentence."""
    if isinstance(err.__cause__, ValidationError):
        return render(settings_error(err.__cause__), OPTIONS)
    return str(err)
