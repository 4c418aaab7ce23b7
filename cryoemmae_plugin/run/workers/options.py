"""What a user may choose about workers; command lines and job forms are derived from these fields."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from cryoemmae_plugin.errors import SettingsError
from cryoemmae_plugin.settings import Options, settings_error

SLURM = "slurm"


class ExecutorOptions(Options):
    """Where and by how many processes micrographs are picked; without influence on what is picked. Frozen."""

    executor: Literal["local", "dask"] = Field(
        default="local", description="'local' picks on this machine, 'dask' on the workers of a Dask scheduler."
    )
    scheduler: str | None = Field(
        default=None,
        pattern=r"^(slurm|(tcp|tls)://\S+|[\w.-]+:\d+)$",
        description="Address of the Dask scheduler, such as tcp://HOST:8786, or slurm. Needs executor dask.",
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Number of processes that pick side by side. "
        "[default: 1; one for each GPU of the device; all workers of the scheduler]",
    )
    worker_memory: str | None = Field(
        default=None,
        pattern=r"^\d+(\.\d+)? ?[MGT]i?B$",
        description="Memory of a worker, such as 16GB; one that takes more ends. [default: no limit; 16GB on SLURM]",
    )
    worker_wait: float = Field(
        default=60.0, gt=0, allow_inf_nan=False, description="Minutes to wait for workers when there is none."
    )
    slurm_partition: str | None = Field(default=None, pattern=r"^\S+$", description="Partition of the workers' jobs.")
    slurm_account: str | None = Field(default=None, pattern=r"^\S+$", description="Account of the workers' jobs.")
    slurm_time: str | None = Field(
        default=None, pattern=r"^[\d:-]+$", description="Time limit of each worker's job, such as 08:00:00."
    )
    slurm_options: str | None = Field(
        default=None, description="Further options of sbatch, such as 'gres=gpu:1;constraint=a100'."
    )

    @model_validator(mode="after")
    def _fit(self) -> ExecutorOptions:
        """Refuse options that contradict each other."""
        slurm = [name for name in type(self).model_fields if name.startswith("slurm_") and getattr(self, name)]
        if self.scheduler is not None and self.executor != "dask":
            raise SettingsError(setting="scheduler", value=self.scheduler, remedy="give $executor=dask too")
        if self.executor == "dask" and self.scheduler is None and self.workers is None:
            raise SettingsError(
                setting="executor",
                value="dask",
                remedy=(
                    "give the address of a $scheduler",
                    "give $scheduler=slurm and the number of $workers",
                    "give the number of $workers for processes of this machine",
                ),
            )
        if slurm and self.scheduler != SLURM:
            raise SettingsError(
                setting=slurm[0], value=getattr(self, slurm[0]), remedy="give $executor=dask and $scheduler=slurm too"
            )
        if self.scheduler == SLURM and self.workers is None:
            raise SettingsError(
                setting="scheduler", value=SLURM, remedy="give the number of jobs to start with $workers"
            )
        self.sbatch_options()
        return self

    def sbatch_options(self) -> list[str]:
        """The further options of sbatch, one by one."""
        options = []
        for word in re.split(r"[;\s]+", self.slurm_options or ""):
            if re.match(r"-[^-]|[^-\w]", word):
                raise SettingsError(
                    setting="slurm_options", value=word, remedy="write options as name=value, with ; between them"
                )
            options += [f"--{word.removeprefix('--')}"] if word else []
        return options


ONE_PROCESS = ExecutorOptions()
"""The process at hand and no other: the default."""


def make_executor_options(**values: Any) -> ExecutorOptions:
    """Build options, turning validation errors into one readable :class:`SettingsError`."""
    try:
        return ExecutorOptions(**values)
    except ValidationError as err:
        raise settings_error(err) from err
