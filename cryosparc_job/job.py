"""An external job in CryoSPARC, for the clients 4.4 to 5.x: its status, its log, its output."""

from __future__ import annotations

import io
import logging
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cryoemmae_plugin.errors import CryoemmaeError
from cryosparc_job.errors import CryosparcError, Refused, ServerGone
from cryosparc_job.instance import Instance

logger = logging.getLogger(__name__)

ACTIVE = ("running", "waiting")
LINE_EVERY_S = {4: 60.0, 5: 5.0}
"""Seconds between two lines of progress: 5.x writes over the same line."""

_MOST_IN_URL = 1500
"""Most characters of a text in the address of a request, after encoding."""
_BACKLOG_LINES = 200
_TITLE_CHARACTERS = 120


def cut(text: str, most: int = _MOST_IN_URL) -> str:
    """Shorten a text in its middle so that it fits into an address: the end of a traceback matters most."""
    if len(quote(text)) <= most:
        return text
    mark = "\n[…]\n"
    low, high = 0, len(text)
    while low < high:  # the longest that fits
        kept = (low + high + 1) // 2
        low, high = (kept, high) if len(quote(_ends(text, kept, mark))) <= most else (low, kept - 1)
    return _ends(text, low, mark)


def _ends(text: str, kept: int, mark: str) -> str:
    head = kept // 3
    return text[:head] + mark + text[len(text) - (kept - head) :]


class ExternalJob:
    """One external job.

    Messages and pictures are optional: when they cannot be delivered, lines are kept for later, pictures are left out,
    and the run continues. Starting, saving and stopping are tried again until they succeed.

    Parameters
    ----------
    client : cryosparc.job.ExternalJob or cryosparc.controllers.job.ExternalJobController
        The client's own object for it.
    """

    def __init__(self, instance: Instance, project: str, client: Any) -> None:
        self.instance, self.project, self._client = instance, project, client
        self.uid: str = client.uid
        self._backlog: deque[tuple[str, str]] = deque(maxlen=_BACKLOG_LINES)
        self._last_line = float("-inf")

    @classmethod
    def create(cls, instance: Instance, project: str, workspace: str, title: str) -> ExternalJob:
        """Make a job in a workspace; one attempt, since a second one might make a second job."""
        title = cut(title, 400)[:_TITLE_CHARACTERS]
        client = instance.caller.once(
            f"a job in {project} {workspace} cannot be made",
            lambda: instance.cs.create_external_job(project, workspace, title=title),
        )
        return cls(instance, project, client)

    @classmethod
    def open(cls, instance: Instance, project: str, uid: str) -> ExternalJob:
        """Open an existing job.

        Raises
        ------
        Refused
            When there is no such job, or it is no external job.
        """
        return cls(
            instance,
            project,
            instance.caller.patiently(
                f"external job {uid} of project {project}", lambda: instance.cs.find_external_job(project, uid)
            ),
        )

    # Inputs and outputs

    def connect(self, name: str, source: str, output: str, slots: Sequence[str]) -> None:
        """Connect an output of another job as an input."""
        self._patiently(
            f"{source}.{output} cannot be connected",
            lambda: self._client.connect(name, source, output, slots=list(slots)),
        )

    def add_output(self, kind: str, name: str, slots: Sequence[str], title: str, passthrough: str | None = None) -> Any:
        """Add an output; an empty data set with the fields that it takes.

        Slots that are not listed come from the input `passthrough`, if one is given.
        """
        self._patiently(
            f"the output {name!r} was refused",
            lambda: self._client.add_output(kind, name=name, slots=list(slots), passthrough=passthrough, title=title),
        )
        return self.template(name)

    def template(self, name: str) -> Any:
        """An empty data set with the fields that an output takes."""
        return self._patiently(f"the fields of output {name!r}", lambda: self._client.alloc_output(name, 0))

    def folder(self) -> Path:
        """The job's folder, as the instance names it."""
        major = self.instance.major
        return Path(
            self._patiently("the job's folder", lambda: str(self._client.dir if major >= 5 else self._client.dir()))
        )

    # Status

    def status(self) -> str:
        """Its status now; one attempt."""
        return str(self.instance.caller.once(f"status of {self.uid}", lambda: self._client.refresh().status))

    def start(self) -> None:
        """Mark it as running, whatever it was before."""
        if self._patiently("status", lambda: self._client.refresh().status) in ACTIVE:
            return
        self._patiently(f"{self.uid} cannot be started", lambda: self._client.start("running"))

    def complete(self) -> None:
        """Mark it as completed."""
        self._patiently(f"{self.uid} cannot be completed", lambda: self._client.stop())
        self._flush()

    def fail(self, why: str) -> None:
        """Mark it as failed, and say why."""
        self._flush()
        if self.instance.major >= 5:
            self._patiently(f"{self.uid} cannot be failed", lambda: self._client.stop(cut(why)))
        else:
            self.log(why, "error")
            self._patiently(f"{self.uid} cannot be failed", lambda: self._client.stop(True))

    # Log

    def log(self, text: str, level: str = "text") -> None:
        """Write a line into the job's log, now or as soon as the instance answers again."""
        self._backlog.append((text, level))
        self._flush()

    def progress(self, text: str, *, now: bool = False, line: str = "progress") -> None:
        """Log the progress of a task, over the last such line if the client can do that; not at every call."""
        major = self.instance.major
        if not now and time.monotonic() - self._last_line < LINE_EVERY_S[min(major, 5)]:
            return
        self._last_line = time.monotonic()
        try:
            if major >= 5:
                self._once("progress", lambda: self._client.log(text, name=line))
            else:
                self._once("progress", lambda: self._client.log(text))
        except CryosparcError as err:
            logger.debug("not said: %s", err)

    def checkpoint(self) -> None:
        """Begin a new part of the log."""
        self._politely("checkpoint", lambda: self._client.log_checkpoint())

    def plot(self, figure: Any, text: str) -> None:
        """Show a figure of matplotlib, or the content of a PNG file, in the job's log."""
        text = cut(text, 400)[:200]
        figure = io.BytesIO(figure) if isinstance(figure, bytes) else figure
        self._politely("picture", lambda: self._client.log_plot(figure, text, formats=["png"]))

    def show(self, output: str, picture: bytes) -> None:
        """Put a PNG picture on the job's tile and its output, where the client can do that."""
        if self.instance.major < 5:
            return
        self._politely("tile", lambda: self._client.set_tile_image(io.BytesIO(picture)))
        self._politely("output image", lambda: self._client.set_output_image(output, io.BytesIO(picture)))

    # Results

    def save(self, output: str, dataset: Any) -> None:
        """Save the data of an output; the job must be running."""
        self._patiently(
            f"{len(dataset)} items of output {output!r} were refused",
            lambda: self._client.save_output(output, dataset),
        )

    def _once(self, what: str, call: Any) -> Any:
        return self.instance.caller.once(what, call)

    def _patiently(self, what: str, call: Any) -> Any:
        return self.instance.caller.patiently(what, call)

    def _politely(self, what: str, call: Any) -> None:
        try:
            self._once(what, call)
        except CryoemmaeError as err:
            logger.warning("%s left out: %s", what, err)

    def _flush(self) -> None:
        """Deliver the lines that could not be delivered so far, in order."""
        while self._backlog:
            text, level = self._backlog[0]
            try:
                self._once("log", lambda text=text, level=level: self._client.log(text, level=level))
            except ServerGone as err:
                logger.debug("kept for later: %s", err)
                return
            except Refused as err:
                logger.debug("not said: %s", err)
            self._backlog.popleft()
