"""``cryoemmae-cryosparc``, also as ``python -m cryosparc_job``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status, see :mod:`cryoemmae_plugin.cli.exits`."""
    from cryoemmae_plugin.memory import use_huge_pages
    from cryosparc_job.cli import main as run

    use_huge_pages()
    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
