"""Call the client: its exceptions become two, and calls are repeated while the server does not answer."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay, wait_exponential

from cryoemmae_plugin.errors import CryoemmaeError
from cryosparc_job.errors import CryosparcError, JobStopped, Refused, ServerGone

T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
_GATEWAY_CODES = (502, 503, 504)
_NO_ANSWER_OF_4 = ("URL Error", "Timeout Error")
_REASON_CHARACTERS = 600


def translate(what: str, err: Exception) -> CryosparcError:
    """Return this package's error for one of the client's."""
    if is_gone(err):
        return ServerGone(f"{what}: CryoSPARC does not answer ({_first_line(err)})")
    return Refused(f"{what}: {reason(err)}", code_of(err))


def is_gone(err: BaseException | None) -> bool:
    """Tell whether an exception of the client means that nobody answered; a refusal is an answer."""
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
    """Return the HTTP status in an exception of the client."""
    code = getattr(err, "code", None)
    return code if isinstance(code, int) else None


def reason(err: BaseException) -> str:
    """Return the message of an answer, without what the client adds."""
    data = getattr(err, "data", None)
    if isinstance(data, dict):
        detail = data.get("detail") or data.get("message") or data.get("error")
        if isinstance(detail, list):  # pydantic's list of problems
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
    """Makes calls, and repeats those without an answer.

    Attributes
    ----------
    patience_s : float
        How long to repeat a call.
    should_stop : callable
        Asked between two attempts, so that a run that is stopped does not wait for the server.
    tell : callable
        Receives a message when the waiting begins.
    """

    patience_s: float = 1800.0
    should_stop: Callable[[], bool] = lambda: False
    tell: Callable[[str], None] = lambda text: None

    def once(self, what: str, call: Callable[[], T]) -> T:
        """Make a call, without repeating it.

        Raises
        ------
        ServerGone, Refused
            `what` begins their message.
        """
        try:
            return call()
        except CryoemmaeError:
            raise
        except Exception as err:
            raise translate(what, err) from err

    def patiently(self, what: str, call: Callable[[], T]) -> T:
        """Make a call, and repeat it while nobody answers.

        Raises
        ------
        ServerGone, Refused
            As :meth:`once`, ServerGone after `patience_s`.
        JobStopped
            When `should_stop` returns True in between.
        """
        repeating = Retrying(
            retry=retry_if_exception_type(ServerGone),
            wait=wait_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S),
            stop=stop_before_delay(self.patience_s),
            before_sleep=self._announce,
            sleep=self._sleep_or_stop,
            reraise=True,
        )
        result: T = repeating(self.once, what, call)
        return result

    def _announce(self, state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            self.tell(f"{state.outcome.exception()}; trying again for {self.patience_s / 60:.0f} minutes")

    def _sleep_or_stop(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.should_stop():
                raise JobStopped("stopped while CryoSPARC did not answer")
            time.sleep(min(left, 0.5))
