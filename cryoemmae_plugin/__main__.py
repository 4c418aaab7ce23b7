"""``python -m cryoemmae_plugin`` is ``cryoemmae``."""

import sys

from cryoemmae_plugin.cli import main

if __name__ == "__main__":
    sys.exit(main())
