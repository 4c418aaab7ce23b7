"""Where exposures come from while they are followed: a job's output that grows, or exports of a Live session."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from cryoemmae_plugin.errors import InputError
from cryosparc_job.errors import Refused
from cryosparc_job.instance import Instance
from cryosparc_job.preflight import exposure_slots, prepare
from cryosparc_job.request import PickRequest

ENDED = ("completed", "failed", "killed")
"""Statuses of a job whose output grows no more."""
LOOK_EVERY_S = 5.0
"""Seconds between two looks at an export that runs."""


class JobOutput:
    """An output of a job, read again and again."""

    def __init__(self, instance: Instance, request: PickRequest) -> None:
        self._instance, self._request = instance, request

    def ended(self) -> bool:
        """Whether the job has ended."""
        return self._instance.job(self._request.project, self._request.source[0]).status in ENDED

    def count(self) -> int:
        """How many exposures can be picked now; raises InputError where there are none."""
        return len(prepare(self._instance, self._request).exposures)

    def newest(self, request: PickRequest, should_stop: Callable[[], bool]) -> PickRequest:
        """The request as it is."""
        return request


class LiveSession:
    """A Live session of CryoSPARC 5: its exposures are exported again whenever more are ready.

    Raises
    ------
    Refused
        CryoSPARC 4 has no call for this.
    """

    def __init__(self, instance: Instance, project: str, session: str) -> None:
        if instance.major < 5:
            raise Refused(
                "CryoSPARC 4 exports a Live session in its interface only; export the exposures there, and follow that "
                "job's output"
            )
        self._instance, self._project, self._session = instance, project, session
        self._exported = 0

    def ended(self) -> bool:
        """Whether the session is completed."""
        return str(self._ask(lambda api: api.sessions.find_one(self._project, self._session)).status) == "completed"

    def count(self) -> int:
        """How many exposures are through preprocessing."""
        where = {"project_uid": [self._project], "session_uid": [self._session], "stage": ["ready"]}
        return int(self._ask(lambda api: api.exposures.count(**where)))

    def newest(self, request: PickRequest, should_stop: Callable[[], bool]) -> PickRequest:
        """Export the exposures if there are more than last time.

        Raises
        ------
        InputError
            When the export fails.
        """
        ready = self.count()
        if ready <= self._exported:
            return request
        uid = str(
            self._ask(lambda api: api.sessions.create_and_enqueue_export_exposures(self._project, self._session)).uid
        )
        while (info := self._instance.job(self._project, uid)).status not in ENDED:
            if should_stop():
                return request
            time.sleep(LOOK_EVERY_S)
        if info.status != "completed":
            raise InputError(f"the export {uid} of session {self._session} {info.status}; look at it in CryoSPARC")
        output = next((name for name, one in info.outputs.items() if one.type == "exposure"), "exposures")
        exposure_slots(info, output)
        self._exported = ready
        return request.model_copy(update={"exposures": f"{uid}.{output}"})

    def _ask(self, call: Callable[[Any], Any]) -> Any:
        what = f"session {self._session} of project {self._project}"
        return self._instance.caller.patiently(what, lambda: call(self._instance.cs.api))


Source = JobOutput | LiveSession
"""Exposures that become more."""


def source_of(instance: Instance, request: PickRequest) -> Source:
    """What a request follows."""
    session = None if request.follow is None else request.follow.session
    return JobOutput(instance, request) if session is None else LiveSession(instance, request.project, session)
