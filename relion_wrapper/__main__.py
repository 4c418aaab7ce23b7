"""``cryoemmae-relion``: the External job itself, and the commands around it."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit status, see :mod:`cryoemmae_plugin.terminal.exits`.

    RELION starts the job with options only; a word in their place is a command.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0].startswith("--") and words[0] not in ("--help", "--version", "--debug"):
        from relion_wrapper.lifecycle import run_job

        return run_job(words)
    from cryoemmae_plugin.terminal.app import run_app
    from relion_wrapper.commands import build_app

    return run_app(build_app(), words)


if __name__ == "__main__":
    sys.exit(main())
