"""``cryoemmae-cryosparc``, also as ``python -m cryosparc_job``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status, see :mod:`cryoemmae_plugin.terminal.exits`."""
    from cryosparc_job.cli import main as run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
