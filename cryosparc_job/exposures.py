"""The exposures outputs of a job: micrographs with picks, and those without any or that failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cryosparc_job.errors import Refused
from cryosparc_job.job import ExternalJob
from cryosparc_job.slots import Exposure

ACCEPTED, REJECTED = "exposures_accepted", "exposures_rejected"
_TITLES = {ACCEPTED: "Exposures with picks", REJECTED: "Exposures without picks"}
_SLOT = "micrograph_blob"
"""Saved by the job itself, since an output needs a slot of its own; the other slots are passed through."""


class ExposureOutputs:
    """Two outputs that divide the exposures of a job; none where this version of CryoSPARC refuses them.

    Parameters
    ----------
    templates : dict
        Empty data set of each output, by its name.
    """

    def __init__(self, job: ExternalJob, templates: dict[str, Any]) -> None:
        self._job, self._templates = job, templates

    @classmethod
    def add(cls, job: ExternalJob, passthrough: str) -> ExposureOutputs:
        """Add the outputs to a new job; their other slots come from its input `passthrough`."""

        def make(name: str) -> Any:
            return job.add_output("exposure", name, [_SLOT], _TITLES[name], passthrough=passthrough)

        return cls._made_by(job, make)

    @classmethod
    def of(cls, job: ExternalJob) -> ExposureOutputs:
        """The outputs that an existing job has."""
        return cls._made_by(job, job.template)

    @classmethod
    def _made_by(cls, job: ExternalJob, make: Callable[[str], Any]) -> ExposureOutputs:
        try:
            return cls(job, {name: make(name) for name in _TITLES})
        except Refused as err:
            job.log(f"No outputs {ACCEPTED} and {REJECTED}: {err}", "warning")
            return cls(job, {})

    def save(self, exposures: Sequence[Exposure], dataset: Any, has_picks: Callable[[Exposure], bool]) -> None:
        """Divide the exposures; one that is refused is a warning in the log, since the particles are saved.

        Parameters
        ----------
        dataset : cryosparc.dataset.Dataset
            Their rows, and maybe more, with the slot micrograph_blob.
        has_picks : callable
            Whether an exposure has picks.
        """
        names = {exposure.uid: ACCEPTED if has_picks(exposure) else REJECTED for exposure in exposures}
        of_row = np.array([names.get(int(uid), "") for uid in dataset["uid"]])
        try:
            for name, template in self._templates.items():
                self._job.save(name, _rows(template, dataset, of_row == name))
        except Refused as err:
            self._job.log(f"Exposures are not divided into {ACCEPTED} and {REJECTED}: {err}", "warning")


def _rows(template: Any, dataset: Any, wanted: Any) -> Any:
    """The wanted rows, with the fields of the template."""
    rows = type(template).allocate(int(wanted.sum()), template.descr(exclude_uid=True))
    known = set(dataset.fields())
    for name in template.fields():
        if name in known:
            rows[name] = np.asarray(dataset[name])[wanted]
    return rows
