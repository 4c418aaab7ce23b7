"""The engine that picks on workers: the counterpart of a picker in this process."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cryoemmae_plugin.device import choose_device, split_devices
from cryoemmae_plugin.errors import SettingsError
from cryoemmae_plugin.files import atomic_write
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.run.stream import MicrographResult
from cryoemmae_plugin.run.workers import cluster
from cryoemmae_plugin.run.workers.attempts import Attempts
from cryoemmae_plugin.run.workers.dispatcher import Dispatcher
from cryoemmae_plugin.run.workers.monitor import LOCAL_PATIENCE, cluster_patience
from cryoemmae_plugin.run.workers.run_spec import PROBE_FILE, MakePicker, RunSpec, build_picker, host_name
from cryoemmae_plugin.settings import AS_SUITS, SLURM, ComputeOptions, ExecutorOptions, PickerSettings
from cryoemmae_plugin.threads import usable_cores
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.version import package_version
from cryoemmae_plugin.weights import load_model
from cryoemmae_plugin.weights.installed import folder_of, shipped_models_dir

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class WorkerEngine:
    """Picks on workers.

    Attributes
    ----------
    gpus : sequence of int or None
        GPU of each local worker, None for the CPU; empty for other workers.
    remote_device : str
        Device of each of the other workers.
    threads : int
        CPU threads of a worker; 0 leaves the choice to the worker.
    model : str
        Name or folder that workers load the model from.
    """

    options: ExecutorOptions
    gpus: Sequence[int | None]
    remote_device: str
    threads: int
    model: str
    model_name: str
    model_sha256: str
    make: MakePicker = build_picker
    compute: ComputeOptions = AS_SUITS

    @property
    def device(self) -> str:
        """The device in words."""
        if self.gpus:
            where = "the CPU" if self.gpus[0] is None else f"GPU {', '.join(map(str, dict.fromkeys(self.gpus)))}"
            return f"{len(self.gpus)} workers ({where}, {self.threads} threads each)"
        if self.options.scheduler == SLURM:
            return f"{self.options.workers} SLURM jobs"
        return f"the workers of {self.options.scheduler}"

    def pick(
        self,
        micrographs: Sequence[Micrograph],
        store: ResultStore,
        *,
        jobs: int = 2,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[MicrographResult]:
        """Pick micrographs and store each; yields in the order given.

        Raises
        ------
        Interrupted
            When `should_stop` says True.
        ClusterError
            When there are no workers, or one cannot do its part; other errors that end a run as those of
            :func:`cryoemmae_plugin.run.stream.pick_micrographs`, with the worker's host.
        """
        if not micrographs:
            return
        spec, attempts = self._run_spec(micrographs, store, jobs), Attempts(store.folder)
        probe = store.folder / PROBE_FILE
        attempts.clear()
        try:
            with atomic_write(probe) as file:
                file.write(spec.token)
            with self._client(store.folder) as client:
                patience = LOCAL_PATIENCE if self.gpus else cluster_patience(self.options.worker_wait)
                yield from Dispatcher(client, spec, store, self.make, should_stop, patience).pick(micrographs)
        finally:
            probe.unlink(missing_ok=True)
            attempts.clear()

    def _run_spec(self, micrographs: Sequence[Micrograph], store: ResultStore, jobs: int) -> RunSpec:
        device = ("cpu" if self.gpus[0] is None else "cuda:0") if self.gpus else self.remote_device
        return RunSpec(
            version=package_version(),
            host=host_name(),
            record=store.record,
            model=self.model,
            folder=store.folder.absolute(),
            base=Path.cwd(),
            sample=next((str(m.path) for m in micrographs[:100] if m.path.exists()), ""),
            token=uuid.uuid4().hex,
            device=device,
            threads=self.threads,
            jobs=jobs,
            compute=self.compute,
        )

    def _client(self, folder: Path) -> AbstractContextManager[Client]:
        if self.gpus:
            return cluster.local_workers(self.gpus, self.options.worker_memory)
        if self.options.scheduler == SLURM:
            return cluster.slurm_workers(self.options, self.threads, folder.absolute())
        return cluster.workers_of(str(self.options.scheduler))


def needs_workers(options: ExecutorOptions, device: str) -> bool:
    """Tell whether other processes than this one have to pick."""
    return options.executor == "dask" or (options.workers or 1) > 1 or len(split_devices(device)) > 1


def build_worker_engine(settings: PickerSettings, device: str, threads: int, options: ExecutorOptions) -> WorkerEngine:
    """Plan the workers and identify the model; starts nothing.

    Parameters
    ----------
    device : str
        As of :class:`cryoemmae_plugin.settings.DeviceOptions`; local workers are spread over several.
    threads : int
        CPU threads of each worker; 0 divides this machine's cores among local workers.

    Raises
    ------
    ClusterError
        When Dask is not installed.
    DeviceError, ModelError
        When a device or the model is missing.
    """
    cluster.require_dask()
    names = split_devices(device)
    gpus: list[int | None] = []
    if options.scheduler is None:
        gpus = _local_gpus(names, options.workers)
        threads = threads or max(1, usable_cores() // len(gpus))
    elif len(names) > 1:
        raise SettingsError(
            f"$device names {len(names)} devices, which only workers of this machine can use. Each worker of a "
            "scheduler takes the GPU that it sees",
            setting="device",
            value=",".join(names),
            remedy=("leave out $device", "ask SLURM for a GPU with $slurm_options=gres=gpu:1"),
        )
    folder, model = folder_of(settings.model_name), load_model(settings.model_name)
    shipped = folder.parent == shipped_models_dir()
    where = folder.name if shipped else str(folder.absolute())
    return WorkerEngine(options, gpus, names[0], threads, where, model.card.name, model.sha256)


def _local_gpus(names: Sequence[str], workers: int | None) -> list[int | None]:
    """Return the GPU of each local worker, evenly from `names`; "auto" is all GPUs, or the CPU without one."""
    if list(names) == ["auto"] and torch.cuda.device_count() > 1:
        names = split_devices("cuda")
    devices = [choose_device(name) for name in names]
    return [devices[index % len(devices)].index for index in range(workers or len(devices))]
