"""What can go wrong between this package and a CryoSPARC instance."""

from __future__ import annotations

from cryoemmae_plugin.errors import CryoemmaeError, Interrupted


class CryosparcError(CryoemmaeError):
    """Base of the errors that have to do with CryoSPARC."""


class ClientError(CryosparcError):
    """cryosparc-tools is not installed, or not of the instance's version."""


class LoginError(CryosparcError):
    """Address, account or password are missing or refused."""


class Refused(CryosparcError):
    """The instance has refused a call.

    Attributes
    ----------
    code : int or None
        HTTP status of the answer, where there is one.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class ServerGone(CryosparcError, Interrupted):
    """The instance does not answer (any more); stored results stay valid, and the run can be resumed."""


class JobStopped(CryosparcError, Interrupted):
    """The job was killed, cleared or deleted in CryoSPARC, or stopped by a signal."""
