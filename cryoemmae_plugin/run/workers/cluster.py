"""Connect to workers: processes of this machine, SLURM jobs, or the workers of an existing Dask scheduler.

Dask starts the workers and restarts those that die. Connections to workers that a run starts itself are encrypted with
a key made for the run, so that nobody else on the machine or the network can give them orders.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt

from cryoemmae_plugin.errors import ClusterError
from cryoemmae_plugin.settings import ExecutorOptions

if TYPE_CHECKING:
    from distributed import Client, SpecCluster


REQUIRED = {"distributed": "distributed", "cryptography": "cryptography", "dask_jobqueue": "dask-jobqueue"}
CONNECT_S = 15
START_ATTEMPTS = 5
"""How often to start the workers of this machine when one of them dies while it starts."""
SLURM_MEMORY, SLURM_THREADS = "16GB", 4
_HIDDEN = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
"""No dashboard: it would show the run to everybody, and take a port that another program may need."""
_NO_PROFILE = {"distributed.worker.profile.enabled": False}
"""Dask's profiler looks at all threads every 10 ms. Before Python 3.11.9 that can lock a worker for good (CPython issue
106883), and nobody looks at what it finds."""
_NO_PROFILE_LINE = "export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False"
_PRELOAD = "cryoemmae_plugin.run.workers.preload"


def require_dask() -> None:
    """Check that the extra `cluster` is installed.

    Raises
    ------
    ClusterError
        When it is not.
    """
    missing = [package for module, package in REQUIRED.items() if find_spec(module) is None]
    if missing:
        raise ClusterError(
            f"several workers need {', '.join(missing)}, which is not installed",
            remedy=(
                "pip install 'cryoemmae[cluster]'",
                "pick in one process, without $executor and $workers, on one device",
            ),
        )


@contextmanager
def local_workers(gpus: Sequence[int | None], memory: str | None) -> Iterator[Client]:
    """Start a process of this machine for each entry of `gpus`: the GPU that it sees, None for the CPU.

    Dask's nannies restart a process that dies.

    Raises
    ------
    ClusterError
        When the processes die again and again while they start.
    """
    from distributed import Client

    with _quiet():
        starting = Retrying(retry=retry_if_exception_type(RuntimeError), stop=stop_after_attempt(START_ATTEMPTS))
        try:
            cluster = starting(_start_local, gpus, memory)
        except RetryError as err:
            raise ClusterError(
                f"worker processes die while they start ({START_ATTEMPTS} attempts): {err.last_attempt.exception()}",
                remedy=(
                    "see whether this machine has enough free memory, and start fewer $workers",
                    "pick in one process, without $workers",
                ),
            ) from err
        with cluster, Client(cluster, set_as_default=False) as client:
            yield client


def _start_local(gpus: Sequence[int | None], memory: str | None) -> SpecCluster:
    """Start a scheduler and workers; RuntimeError if a worker dies before it is connected."""
    from distributed import Nanny, Scheduler, Security, SpecCluster

    security = Security.temporary()
    common = {"protocol": "tls://", "host": "127.0.0.1", "security": security}
    quiet = {"silence_logs": logging.CRITICAL, "dashboard": False, "preload": [_PRELOAD], "config": _NO_PROFILE}
    workers = {
        index: {
            "cls": Nanny,
            "options": {**common, **quiet, "nthreads": 1, "memory_limit": memory or 0, "env": _visible(gpu)},
        }
        for index, gpu in enumerate(gpus)
    }
    scheduler = {"cls": Scheduler, "options": {**common, **_HIDDEN, "port": 0}}
    return SpecCluster(workers=workers, scheduler=scheduler, security=security)


@contextmanager
def slurm_workers(options: ExecutorOptions, threads: int, folder: Path) -> Iterator[Client]:
    """Submit SLURM jobs, each of them a worker.

    Parameters
    ----------
    folder : Path
        Result folder. Its folder ``slurm/`` holds the logs of the jobs and, during the run, the key.

    Raises
    ------
    ClusterError
        When jobs cannot be submitted here.
    """
    if shutil.which("sbatch") is None:
        raise ClusterError(
            "there is no sbatch here",
            setting="scheduler",
            value="slurm",
            remedy="start the run on a host that may submit jobs",
        )
    from dask_jobqueue import SLURMCluster
    from distributed import Client, Security

    logs = folder / "slurm"
    logs.mkdir(exist_ok=True)
    keys = {"security": Security.temporary(), "shared_temp_directory": str(logs)}
    with (
        _quiet(),
        SLURMCluster(**_slurm_job(options, threads, logs), **keys) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        cluster.scale(options.workers or 1)
        try:
            yield client
        finally:
            _delete_keys(cluster)


def _delete_keys(cluster: SpecCluster) -> None:
    """Delete the files with the key now: dask-jobqueue keeps them until the cluster object is collected."""
    for name in ("ca_file", "cert", "key"):
        file = getattr(cluster, f"_job_{name}", None)
        if file is not None:
            file.close()


def _slurm_job(options: ExecutorOptions, threads: int, logs: Path) -> dict[str, Any]:
    return {
        "cores": 1,
        "processes": 1,
        "job_cpu": threads or SLURM_THREADS,
        "memory": options.worker_memory or SLURM_MEMORY,
        "queue": options.slurm_partition,
        "account": options.slurm_account,
        "walltime": options.slurm_time,
        "job_directives_skip": [] if options.slurm_time else ["-t "],
        "job_extra_directives": options.sbatch_options(),
        "job_script_prologue": [*_site_prologue(), _NO_PROFILE_LINE],
        "job_name": "cryoemmae",
        "python": sys.executable,
        "log_directory": str(logs),
        "worker_extra_args": ["--preload", _PRELOAD, "--no-dashboard"],
        "scheduler_options": _HIDDEN,
    }


def _site_prologue() -> list[str]:
    """Lines that the site's own configuration of dask-jobqueue puts before each worker."""
    import dask

    return list(dask.config.get("jobqueue.slurm.job-script-prologue", None) or [])


@contextmanager
def workers_of(address: str) -> Iterator[Client]:
    """Connect to the workers of an existing scheduler.

    Raises
    ------
    ClusterError
        When it does not answer.
    """
    from distributed import Client

    with _quiet():
        try:
            client = Client(address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError, TypeError, RuntimeError) as err:
            raise ClusterError(
                f"no Dask scheduler answers there within {CONNECT_S} s ({err})",
                setting="scheduler",
                value=address,
                remedy="start one with `dask scheduler`, and check address, port and firewall",
            ) from err
        with client:
            yield client


def _visible(gpu: int | None) -> dict[str, str]:
    """Environment that shows a process one GPU only, numbered as this process sees them."""
    if gpu is None:
        return {}
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return {"CUDA_VISIBLE_DEVICES": seen[gpu] if gpu < len(seen) else str(gpu)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Dask's own log: the run says what matters."""
    from distributed.utils import silence_logging_cmgr

    with silence_logging_cmgr(logging.CRITICAL):
        yield
