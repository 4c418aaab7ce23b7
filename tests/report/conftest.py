"""Result folders to report on: a few small micrographs with candidates that are known, and thousands of stubs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from cryoemmae_plugin.files import write_json
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import ResultStore, RunRecord
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.types import Micrograph, Picks

SHAPE = (300, 400)
DIAMETER_PX = 20
STRANGE_NAMES = ("<script>alert(1)</script>", "a'b\"c`${d}", "größe µm 粒子", "50% # & ?x=1", "plain")


def made_candidates(number: int, seed: int, shape: tuple[int, int] = SHAPE) -> Picks:
    """Candidates on a grid, so that none are close, with figures of merit from 0.02 to 1."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(np.arange(20, shape[1] - 15, 25), np.arange(20, shape[0] - 15, 25)), -1).reshape(
        -1, 2
    )
    xy = np.round(rng.permutation(places)[:number] + rng.uniform(-3, 3, (number, 2)), 3)
    score = np.sort(np.round(rng.uniform(0.02, 1, number), 6).astype(np.float32))[::-1].copy()
    return Picks(xy, score, np.ones(number, np.float32), shape)


@pytest.fixture(scope="session")
def record() -> RunRecord:
    settings = PickerSettings(diameter_A=40.0)
    return RunRecord(version="0.1", model_name="fake", model_sha256="f" * 64, settings=settings)


@pytest.fixture(scope="session")
def make_store(record: RunRecord) -> Callable[..., Path]:
    """Write micrographs and a store of their candidates; its folder."""

    def make(folder: Path, names: tuple[str, ...] = STRANGE_NAMES, candidates: int = 60) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        with ResultStore.create(folder / "picks", record) as store:
            for index, name in enumerate(names):
                path = folder / f"{name.replace('/', '_')}.mrc"
                picks = made_candidates(0 if index == len(names) - 1 else candidates + index, index)
                with mrcfile.new(path, spotted(picks, index)) as mrc:
                    mrc.voxel_size = 2.0
                store.save(Micrograph(path, None, path.stem), picks, 2.0, path.stat().st_size)
            bad = {
                "micrograph": str(folder / "<b>bad.mrc"),
                "reason": f"{folder / '<b>bad.mrc'}: 7 bytes & no more",
            }
            settings = record.settings.model_dump() | Selection.of(record.settings).settings()
            write_json(store.folder / "summary.json", {"status": "done", "settings": settings, "failed": [bad]})
        return folder / "picks"

    return make


def spotted(picks: Picks, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Noise with a dark disc at each candidate."""
    image = np.random.default_rng(seed).normal(0, 1, picks.shape)
    y, x = np.mgrid[: picks.shape[0], : picks.shape[1]]
    for cx, cy in picks.xy:
        image[np.hypot(x - cx, y - cy) < DIAMETER_PX / 2] -= 2
    return image.astype(np.float32)
