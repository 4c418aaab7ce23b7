"""The commands of ``cryoemmae`` together."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App

from cryoemmae_plugin.cli.benchmark import benchmark
from cryoemmae_plugin.cli.demo import demo
from cryoemmae_plugin.cli.doctor import doctor
from cryoemmae_plugin.cli.evaluate import evaluate
from cryoemmae_plugin.cli.models import models
from cryoemmae_plugin.cli.pick import pick
from cryoemmae_plugin.cli.picks import convert, dedup, merge
from cryoemmae_plugin.cli.refine import refine
from cryoemmae_plugin.cli.report import apply, report, view
from cryoemmae_plugin.cli.rethreshold import rethreshold
from cryoemmae_plugin.cli.train import train
from cryoemmae_plugin.terminal.app import run_app

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
    app.command(refine, sort_key=2)
    app.command(view, sort_key=3)
    app.command(report, sort_key=4)
    app.command(apply, sort_key=5)
    app.command(evaluate, sort_key=6)
    app.command(convert, sort_key=7)
    app.command(merge, sort_key=8)
    app.command(dedup, sort_key=9)
    app.command(train, sort_key=10)
    app.command(models)  # 11
    app.command(demo, sort_key=12)
    app.command(doctor, sort_key=13)
    app.command(benchmark)  # 14
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit status, see :mod:`cryoemmae_plugin.terminal.exits`."""
    return run_app(build_app(), argv)
