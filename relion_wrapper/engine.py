"""What picks in a job: this process, or workers, by the words of RELION's form."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cryoemmae_plugin.cli.pick import build_engine as build_in_process
from cryoemmae_plugin.cli.session import AnyEngine, Engine
from cryoemmae_plugin.device import choose_device
from cryoemmae_plugin.run.workers.engine import build_worker_engine, needs_workers
from cryoemmae_plugin.run.workers.options import ExecutorOptions
from cryoemmae_plugin.settings import PickerSettings


def build_engine(settings: PickerSettings, model_name: str, device_name: str, threads: int) -> Engine:
    """Load a model onto a device of this process.

    Parameters
    ----------
    model_name : str
        Name or folder; stands in for that of the settings.
    device_name : str
        "auto", "cpu", "cuda:N".
    threads : int
        CPU threads; 0 leaves them as they are.

    Raises
    ------
    DeviceError, ModelError
        When one of them is not there.
    """
    choose_devices([device_name])
    return build_in_process(settings.model_copy(update={"model": model_name}), device_name, threads)


def build_workers(
    settings: PickerSettings, model_name: str, names: Sequence[str], threads: int, options: ExecutorOptions
) -> AnyEngine | None:
    """What picks on workers; None where this process alone is to pick.

    Parameters
    ----------
    model_name : str
        Name or folder; stands in for that of the settings.
    names : sequence of str
        Devices.
    threads : int
        CPU threads: of the whole job on this machine, of each worker elsewhere; 0 leaves them as they are.

    Raises
    ------
    ClusterError, DeviceError, ModelError
        When Dask, a device or the model is not there.
    """
    if not needs_workers(options, names):
        return None
    if options.scheduler is None:
        choose_devices(names)
        threads = max(1, threads // (options.workers or len(names))) if threads else 0
    return build_worker_engine(settings.model_copy(update={"model": model_name}), names, threads, options)


def choose_devices(names: Sequence[str]) -> list[torch.device]:
    """The devices of these names.

    Raises
    ------
    DeviceError
        One is not there.
    """
    return [choose_device(name) for name in names]
