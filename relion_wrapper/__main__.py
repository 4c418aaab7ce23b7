"""``cryoemmae-relion``: the External job itself, and the commands around it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cryoemmae_plugin.memory import use_huge_pages

COMMANDS = ("make-job", "install-scheme", "repick")

HELP = """cryoemmae-relion: particle picking as a RELION External job.

RELION runs it; on the External job's form give
  External executable:  the path of this program
  Input micrographs:    a micrographs STAR (CtfFind, MotionCorr, Select or Import)
  Param1 - label, value:  diameter, and the particle's longest extent in Angstrom
  further parameters:     {labels}

By hand, in the project folder:
  cryoemmae-relion --o External/job010/ --in_mics CtfFind/job003/micrographs_ctf.star --diameter 160

Commands:
  cryoemmae-relion make-job         write a job.star for relion_pipeliner --addJobFromStar
  cryoemmae-relion install-scheme   put a ready-made Scheme or Schedule into a project
  cryoemmae-relion repick           pick whole projects anew, in jobs of their own
Each of them takes --help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit status."""
    use_huge_pages()
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS:
        from relion_wrapper.commands import run_command

        return run_command(words)
    if words and words[0] == "--version":
        from cryoemmae_plugin.version import package_version

        sys.stdout.write(f"{package_version()}\n")
        return 0
    if not words or words[0] in ("--help", "-h"):
        from relion_wrapper.arguments import accepted_labels

        sys.stdout.write(HELP.format(labels=accepted_labels()) + "\n")
        return 0
    from relion_wrapper.lifecycle import run_job

    return run_job(words)


if __name__ == "__main__":
    sys.exit(main())
