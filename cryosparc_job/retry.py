"""Calls to the client: its many exceptions become two, and a server that is away for a while is waited for."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError

from cryoemmae_plugin.errors import CryoemmaeError
from cryosparc_job.errors import CryosparcError, JobStopped, Refused, ServerGone

T = TypeVar("T")

LONGEST_PAUSE_S = 30.0
_GATEWAY_CODES = (502, 503, 504)
_NO_ANSWER_OF_4 = ("URL Error", "Timeout Error")
_REASON_CHARACTERS = 600


def translate(what: str, err: Exception) -> CryosparcError:
    """The error of this package that stands for one of the client's."""
    if is_gone(err):
        return ServerGone(f"{what}: CryoSPARC does not answer ({_first_line(err)})")
    return Refused(f"{what}: {reason(err)}", code_of(err))


def is_gone(err: BaseException | None) -> bool:
    """Whether an exception of the client means that nobody answered, as opposed to an answer that is no."""
    while err is not None:
        if isinstance(err, HTTPError):
            return err.code in _GATEWAY_CODES
        if isinstance(err, (ConnectionError, TimeoutError, URLError, http.client.HTTPException)):
            return True
        if type(err).__module__.startswith(("httpx", "httpcore")) and _has_base(err, "TransportError"):
            return True
        if type(err).__name__ == "CommandError" and any(words in str(err) for words in _NO_ANSWER_OF_4):
            return True
        if code_of(err) in _GATEWAY_CODES:
            return True
        err = err.__cause__
    return False


def code_of(err: BaseException) -> int | None:
    """The HTTP status in an exception of the client."""
    code = getattr(err, "code", None)
    return code if isinstance(code, int) else None


def reason(err: BaseException) -> str:
    """What an answer says, without the client's decoration."""
    data = getattr(err, "data", None)
    if isinstance(data, dict):
        detail = data.get("detail") or data.get("message") or data.get("error")
        if isinstance(detail, list):  # how pydantic lists what is wrong
            detail = "; ".join(_problem(item) for item in detail)
        if detail:
            return str(detail)[:_REASON_CHARACTERS]
    text = str(err).strip() or type(err).__name__
    return text[:_REASON_CHARACTERS]


def _problem(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    where = ".".join(map(str, item.get("loc", ())))
    return f"{where}: {item.get('msg', '')}".strip(": ")


def _first_line(err: BaseException) -> str:
    return (str(err).strip() or type(err).__name__).splitlines()[0][:200]


def _has_base(err: BaseException, name: str) -> bool:
    return any(base.__name__ == name for base in type(err).__mro__)


@dataclass
class Caller:
    """Makes calls, and repeats those that nobody answered.

    Attributes
    ----------
    patience_s : float
        For how long to repeat a call.
    should_stop : callable
        Asked between two attempts: a run that is to end does not wait for a server.
    tell : callable
        Takes a message when the waiting begins.
    """

    patience_s: float = 1800.0
    should_stop: Callable[[], bool] = lambda: False
    tell: Callable[[str], None] = lambda text: None
    _sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def once(self, what: str, call: Callable[[], T]) -> T:
        """Make a call, one attempt.

        Raises
        ------
        ServerGone, Refused
            `what` says what was wanted, for the message.
        """
        try:
            return call()
        except CryoemmaeError:
            raise
        except Exception as err:
            raise translate(what, err) from err

    def patiently(self, what: str, call: Callable[[], T]) -> T:
        """Make a call that may be repeated; as :meth:`once`, and JobStopped when `should_stop` says so meanwhile."""
        start, pause = time.monotonic(), 0.5
        while True:
            try:
                return self.once(what, call)
            except ServerGone as err:
                if time.monotonic() - start + pause > self.patience_s:
                    raise
                if pause == 0.5:
                    self.tell(f"{err}; trying again for {self.patience_s / 60:.0f} minutes")
            self._wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.should_stop():
                raise JobStopped("stopped while CryoSPARC did not answer")
            self._sleep(min(left, 0.5))
