"""The command line: ``cryoemmae pick | rethreshold | evaluate | train | models | demo | doctor``."""

from cryoemmae_plugin.cli.app import main

__all__ = ["main"]
