"""Picks micrographs m0, m1, ... with the stand-in, and says each one that the stream yields; to be killed by a test."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from fake_engine import FakePicker

from cryoemmae_plugin.run.prefetch import Loaded
from cryoemmae_plugin.run.store import ResultStore, RunRecord
from cryoemmae_plugin.run.stream import pick_micrographs
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.types import Micrograph

RECORD = RunRecord(version="0.1", model_name="fake", model_sha256="f" * 64, settings=PickerSettings(diameter_A=20.0))


def load(micrograph: Micrograph) -> Loaded:
    """Make an image by the micrograph's name."""
    index = int(micrograph.uid[1:])
    return Loaded(np.full((40, 60), index, np.float32), 1.0, 1, 0.0)


def listed(n: int) -> list[Micrograph]:
    """Micrographs without files."""
    return [Micrograph(Path(f"m{i}.mrc"), None, f"m{i}") for i in range(n)]


class SlowDisk(ResultStore):
    """Half a result is on the disk for a while."""

    def save(self, *args, **options):  # type: ignore[no-untyped-def]
        """Take twice as long as picking."""
        (self.folder / "results").mkdir(exist_ok=True)
        (self.folder / "results" / f".{args[0].uid}.star.partial").write_text("half a")
        time.sleep(0.01)
        return super().save(*args, **options)


if __name__ == "__main__":
    store = SlowDisk.create(Path(sys.argv[1]), RECORD)
    for outcome in pick_micrographs(listed(400), FakePicker(0.005), store, loader=load):
        os.write(1, f"{outcome.micrograph.uid}\n".encode())
