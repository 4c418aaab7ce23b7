"""What picks: the network in this process, or workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from cryoemmae_plugin.device import choose_device
from cryoemmae_plugin.run.prefetch import Loader, load
from cryoemmae_plugin.run.request import RunRequest
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.run.stream import ImagePicker, MicrographResult, pick_micrographs
from cryoemmae_plugin.run.workers.engine import WorkerEngine, build_worker_engine, needs_workers
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.weights import load_model


@dataclass(frozen=True)
class Engine:
    """The picker of this process, the model that it uses, and where it computes."""

    picker: ImagePicker
    model_name: str
    model_sha256: str
    device: torch.device

    def pick(
        self,
        micrographs: Sequence[Micrograph],
        store: ResultStore,
        *,
        jobs: int = 2,
        should_stop: Callable[[], bool] = lambda: False,
        loader: Loader = load,
    ) -> Iterator[MicrographResult]:
        """Pick micrographs and store each, as :func:`cryoemmae_plugin.run.stream.pick_micrographs` does."""
        return pick_micrographs(
            micrographs, self.picker, store, jobs=jobs, should_stop=should_stop, device=self.device, loader=loader
        )


AnyEngine = Engine | WorkerEngine
"""What picks."""

EngineFactory = Callable[[PickerSettings, RunRequest], AnyEngine]
"""Makes what picks; tests put a stand-in for the network here."""


def build_engine(settings: PickerSettings, request: RunRequest) -> AnyEngine:
    """Load the model onto the device, or plan the workers, as a run asks for it.

    What all micrographs would fail by fails here, before any is read.

    Parameters
    ----------
    settings : PickerSettings
        With the model to load; those of the request, where nothing was estimated, trained or adapted.

    Raises
    ------
    ClusterError, DeviceError, ModelError
        When Dask, a device or the model is not there.
    """
    name = request.device.device
    if needs_workers(request.workers, name):
        threads = request.worker_threads if request.worker_threads is not None else request.device.threads or 0
        engine = build_worker_engine(settings, name, threads, request.workers)
        return replace(engine, compute=request.compute)
    device = choose_device(name)
    model = load_model(settings.model_name)
    from cryoemmae_plugin.core.picker import CandidatePicker

    return Engine(CandidatePicker(model, settings, device, request.compute), model.card.name, model.sha256, device)
