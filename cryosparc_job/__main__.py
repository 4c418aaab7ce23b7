"""``python -m cryosparc_job`` is ``cryoemmae-cryosparc``."""

import sys

from cryosparc_job.cli import main

if __name__ == "__main__":
    sys.exit(main())
