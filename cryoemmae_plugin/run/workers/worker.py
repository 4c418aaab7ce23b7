"""The worker's side: read, pick and store; the run gets only the outcome of each micrograph."""

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
from cryoemmae_plugin.run.prefetch import Loaded, load
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.run.stream import MicrographResult, pick_micrographs
from cryoemmae_plugin.run.workers.attempts import Attempts
from cryoemmae_plugin.run.workers.run_spec import PROBE_FILE, Batch, MakePicker, RunSpec
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.version import package_version

MAX_ATTEMPTS = 3
"""Processes that may die while they pick a micrograph, before it is given up."""


@lru_cache(maxsize=1)
def batch_picker_for(spec: str, make: MakePicker) -> BatchPicker:
    """Return the picker of this process; the model is loaded once."""
    version = json.loads(spec)["version"]
    if version != package_version():
        raise ClusterError(
            f"it has cryoemmae {package_version()}, the run has {version}", remedy="install the same version everywhere"
        )
    return BatchPicker(RunSpec.model_validate_json(spec), make)


class BatchPicker:
    """Picks batches of one run in this process.

    Raises
    ------
    ClusterError
        When this host does not see the files of the run.
    DeviceError, ModelError
        When device or model are not on this host.
    """

    def __init__(self, spec: RunSpec, make: MakePicker) -> None:
        _check_sight(spec)
        self._spec = spec
        self._store = ResultStore(spec.folder, spec.record, spec.base)
        self._attempts = Attempts(spec.folder)
        self._device = choose_device(spec.device)
        self._picker = make(spec)
        _limit_threads(spec.threads)

    def pick(self, batch: Batch) -> list[MicrographResult]:
        """Pick a batch; if a process died over it before, pick one by one, to find the micrograph that kills."""
        name = f"{batch.first}-{len(batch.micrographs)}"
        if len(batch.micrographs) > 1 and not self._attempts.deaths(name):
            with self._attempts.noted(name):
                return self._stream(batch.micrographs)
        return [self._pick_one(batch.first + index, m) for index, m in enumerate(batch.micrographs)]

    def _pick_one(self, index: int, micrograph: Micrograph) -> MicrographResult:
        if self._store.holds(micrograph):  # by an earlier attempt, which died later
            return MicrographResult(micrograph)
        deaths = self._attempts.deaths(str(index))
        if len(deaths) >= MAX_ATTEMPTS:
            return MicrographResult(micrograph, reason=_given_up(micrograph, deaths))
        with self._attempts.noted(str(index)):
            return self._stream([micrograph])[0]

    def _stream(self, micrographs: Sequence[Micrograph]) -> list[MicrographResult]:
        stream = pick_micrographs(
            micrographs, self._picker, self._store, jobs=self._spec.jobs, device=self._device, loader=self._load
        )
        return [replace(outcome, result=None) for outcome in stream]  # the run reads results from the store

    def _load(self, micrograph: Micrograph) -> Loaded:
        return load(replace(micrograph, path=self._spec.base / micrograph.path))


def _check_sight(spec: RunSpec) -> None:
    """Check that this host sees the same result folder and micrographs as the run."""
    probe = spec.folder / PROBE_FILE
    try:
        seen = probe.read_text(encoding="utf-8") == spec.token
    except OSError:
        seen = False
    if not seen:
        raise ClusterError(
            f"it does not see the result folder {spec.folder} as {spec.host} does",
            remedy="choose an output folder ($out) on a file system that run and workers share",
        )
    if spec.sample and not (spec.base / spec.sample).exists():
        raise ClusterError(
            f"it does not see {spec.base / spec.sample}, which {spec.host} sees",
            remedy="keep micrographs on a file system that run and workers share, under the same path",
        )


def _limit_threads(threads: int) -> None:
    """Set the number of CPU threads; 0 takes the number that Dask gave this worker."""
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
        f"{micrograph.path}: given up after {len(deaths)} attempts: each time its worker's process died (on {hosts}), "
        "most likely out of memory; give workers more memory, or pick it alone on a larger machine"
    )
