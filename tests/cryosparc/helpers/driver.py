"""The command line with the stub in the place of the model, for tests that run it as a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import stub

import cryosparc_job.cli as cli
from cryosparc_job import lifecycle, picking

if __name__ == "__main__":
    cli.build_engine = stub.StubEngines(float(os.environ.get("STUB_DELAY_S", "0")))  # type: ignore[assignment]
    lifecycle.CHECK_EVERY_S = float(os.environ.get("STUB_CHECK_S", "0.2"))
    picking.FIRST_SAVE_S = float(os.environ.get("STUB_SAVE_S", "60"))
    sys.exit(cli.main(sys.argv[1:]))
