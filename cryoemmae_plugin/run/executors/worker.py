"""What happens inside a worker: it reads, picks and stores; the run hears only how each micrograph ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache

import torch
from threadpoolctl import threadpool_limits

from cryoemmae_plugin.device import choose_device
from cryoemmae_plugin.errors import ClusterError
from cryoemmae_plugin.run.executors.recipe import PROBE_FILE, Batch, MakePicker, Recipe
from cryoemmae_plugin.run.executors.tries import Tries
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.run.stream import Loaded, MicrographResult, load, pick_micrographs
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.version import package_version

MOST_TRIES = 3
"""A micrograph that so many processes have died over is given up."""


@lru_cache(maxsize=1)
def station_for(recipe: str, make: MakePicker) -> Station:
    """The station of this process; the model is loaded once."""
    version = json.loads(recipe)["version"]
    if version != package_version():
        raise ClusterError(
            f"it has cryoemmae {package_version()}, the run has {version}; install the same version everywhere"
        )
    return Station(Recipe.model_validate_json(recipe), make)


class Station:
    """All that one process needs to pick for one run.

    Parameters
    ----------
    recipe : Recipe
        How to pick.
    make : callable
        Makes the picker.

    Raises
    ------
    ClusterError
        When the run's files are out of sight here.
    DeviceError, ModelError
        When device or model are not there.
    """

    def __init__(self, recipe: Recipe, make: MakePicker) -> None:
        _check_sight(recipe)
        self._recipe = recipe
        self._store = ResultStore(recipe.folder, recipe.record, recipe.base)
        self._tries = Tries(recipe.folder)
        self._device = choose_device(recipe.device)
        self._picker = make(recipe)
        _limit_threads(recipe.threads)

    def pick(self, batch: Batch) -> list[MicrographResult]:
        """Pick a batch: as one stream, or, where a process has died over it, one by one, to find the culprit."""
        name = f"{batch.first}-{len(batch.micrographs)}"
        if len(batch.micrographs) > 1 and not self._tries.deaths(name):
            with self._tries.noted(name):
                return self._stream(batch.micrographs)
        return [self._pick_one(batch.first + index, m) for index, m in enumerate(batch.micrographs)]

    def _pick_one(self, index: int, micrograph: Micrograph) -> MicrographResult:
        if self._store.holds(micrograph):  # by an earlier try that died later
            return MicrographResult(micrograph)
        deaths = self._tries.deaths(str(index))
        if len(deaths) >= MOST_TRIES:
            return MicrographResult(micrograph, reason=_given_up(micrograph, deaths))
        with self._tries.noted(str(index)):
            return self._stream([micrograph])[0]

    def _stream(self, micrographs: Sequence[Micrograph]) -> list[MicrographResult]:
        stream = pick_micrographs(
            micrographs, self._picker, self._store, jobs=self._recipe.jobs, device=self._device, loader=self._load
        )
        return [replace(outcome, result=None) for outcome in stream]  # results are in the store

    def _load(self, micrograph: Micrograph) -> Loaded:
        return load(replace(micrograph, path=self._recipe.base / micrograph.path))


def _check_sight(recipe: Recipe) -> None:
    """Make sure that folders and micrographs are the same files here as in the run."""
    probe = recipe.folder / PROBE_FILE
    try:
        seen = probe.read_text(encoding="utf-8") == recipe.token
    except OSError:
        seen = False
    if not seen:
        raise ClusterError(
            f"it does not see the result folder {recipe.folder} as {recipe.host} does; "
            "choose an --out on a file system that run and workers share"
        )
    if recipe.sample and not (recipe.base / recipe.sample).exists():
        raise ClusterError(
            f"it does not see {recipe.base / recipe.sample}, which {recipe.host} sees; "
            "micrographs must lie on a file system that run and workers share, under the same path"
        )


def _limit_threads(threads: int) -> None:
    """Compute with so many CPU threads: those of Dask's worker, where the run says nothing."""
    if not threads:
        from distributed import get_worker

        threads = 1
        with suppress(ValueError):  # outside of a Dask worker
            threads = get_worker().state.nthreads
    torch.set_num_threads(threads)
    threadpool_limits(threads)
    import cv2

    cv2.setNumThreads(threads)


def _given_up(micrograph: Micrograph, deaths: Sequence[str]) -> str:
    hosts = ", ".join(sorted(set(deaths)))
    return (
        f"{micrograph.path}: given up after {len(deaths)} tries: each time its worker's process died (on {hosts}), "
        "most likely out of memory; raise --worker-memory, or pick it alone on a larger machine"
    )
