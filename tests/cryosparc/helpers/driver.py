"""The command line with the stub in the place of the model, for tests that run it as a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import stub

import cryosparc_job.cli as cli
from cryoemmae_plugin.run import engine
from cryosparc_job import lifecycle, particles

if __name__ == "__main__":
    engine.build_engine = stub.StubEngines(float(os.environ.get("STUB_DELAY_S", "0")))
    lifecycle.CHECK_EVERY_S = float(os.environ.get("STUB_CHECK_S", "0.2"))
    particles.FIRST_SAVE_S = float(os.environ.get("STUB_SAVE_S", "60"))
    sys.exit(cli.main(sys.argv[1:]))
