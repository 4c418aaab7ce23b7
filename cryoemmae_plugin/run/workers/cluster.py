"""Workers from three places: processes of this machine, SLURM jobs, or a scheduler that is there already.

Connections to workers that a run starts itself are encrypted with a key made for the run: nobody else on the machine or
the network can give them orders.
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
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cryoemmae_plugin.errors import ClusterError
from cryoemmae_plugin.run.workers.options import ExecutorOptions

if TYPE_CHECKING:
    from distributed import Client, Security

logger = logging.getLogger(__name__)

NEEDED = {"distributed": "distributed", "cryptography": "cryptography", "dask_jobqueue": "dask-jobqueue"}
CONNECT_S = 15
SLURM_MEMORY, SLURM_THREADS = "16GB", 4
_HIDDEN = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
"""No dashboard: it would show the run to everybody, and take a port that somebody else may want."""
_PRELOAD = "cryoemmae_plugin.run.workers.preload"


def require_dask() -> None:
    """Make sure that the extra `cluster` is installed.

    Raises
    ------
    ClusterError
        When it is not.
    """
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
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
    """Processes of this machine, one for each entry of `gpus`: the GPU that it sees, None for the CPU.

    A process that dies is started anew.
    """
    from distributed import Client, Nanny, Scheduler, SpecCluster

    security = _own_security()
    common = {"protocol": "tls://", "host": "127.0.0.1", "security": security}
    quiet = {"silence_logs": logging.CRITICAL, "dashboard": False, "preload": [_PRELOAD]}
    workers = {
        index: {
            "cls": Nanny,
            "options": {**common, **quiet, "nthreads": 1, "memory_limit": memory or 0, "env": _visible(gpu)},
        }
        for index, gpu in enumerate(gpus)
    }
    scheduler = {"cls": Scheduler, "options": {**common, **_HIDDEN, "port": 0}}
    with (
        _quiet(),
        SpecCluster(workers=workers, scheduler=scheduler, security=security) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def slurm_workers(options: ExecutorOptions, threads: int, folder: Path) -> Iterator[Client]:
    """SLURM jobs, each a worker; one that ends before the run is submitted anew.

    Parameters
    ----------
    threads : int
        CPUs of a job.
    folder : Path
        Result folder: logs of the jobs go to ``slurm/`` in it, and for the time of the run the key.

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
    from distributed import Client

    count = options.workers or 1
    with (
        _quiet(),
        _key_files(folder) as security,
        SLURMCluster(**_slurm_job(options, threads, folder), security=security) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        cluster.adapt(minimum=count, maximum=count)
        yield client


def _slurm_job(options: ExecutorOptions, threads: int, folder: Path) -> dict[str, Any]:
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
        "job_name": "cryoemmae",
        "python": sys.executable,
        "log_directory": str(folder / "slurm"),
        "worker_extra_args": ["--preload", _PRELOAD, "--no-dashboard"],
        "scheduler_options": _HIDDEN,
    }


@contextmanager
def workers_of(address: str) -> Iterator[Client]:
    """The workers of a scheduler that somebody else has started.

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


def _own_security() -> Security:
    from distributed import Security

    return Security.temporary()


@contextmanager
def _key_files(folder: Path) -> Iterator[Security]:
    """A key of the run's own in files that only this user can read, for workers on other hosts."""
    from distributed import Security

    made = _own_security().get_tls_config_for_role("worker")
    with TemporaryDirectory(prefix=".keys-", dir=folder) as place:
        files = {}
        for name in ("ca_file", "cert", "key"):
            path = Path(place, name)
            path.touch(mode=0o600)
            path.write_text(made[name], encoding="utf-8")
            files[name] = str(path)
        roles = {
            f"tls_{role}_{name}": files[name] for role in ("client", "scheduler", "worker") for name in ("cert", "key")
        }
        yield Security(require_encryption=True, tls_ca_file=files["ca_file"], **roles)


def _visible(gpu: int | None) -> dict[str, str]:
    """What shows a process one GPU only, counted among those that this process sees."""
    if gpu is None:
        return {}
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return {"CUDA_VISIBLE_DEVICES": seen[gpu] if gpu < len(seen) else str(gpu)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's own log to itself: what matters is said by the run."""
    from distributed.utils import silence_logging_cmgr

    with silence_logging_cmgr(logging.CRITICAL):
        yield
