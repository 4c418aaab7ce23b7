"""What a run reports to its front end: the only way back from the service."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryoemmae_plugin.run.service import Run
    from cryoemmae_plugin.run.stream import MicrographResult


class Observer:
    """Is told of every step of a run. This one does nothing: front ends override the methods that they need.

    Methods are called in the thread of the run, while it holds the folder's lock. An error that one raises ends the
    run.
    """

    def stage(self, text: str) -> None:
        """A line about what begins or what was settled before picking.

        It names settings as ``$field``, see :class:`cryoemmae_plugin.errors.ParameterNames`.
        """

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` steps of a long task before picking are done."""

    def ready(self, run: Run) -> None:
        """Settings, engine and store are settled; the first micrograph comes next."""

    def micrograph(self, run: Run, outcome: MicrographResult, picks: int) -> None:
        """One more micrograph has `picks` picks, or has failed with a reason, which names settings as ``$field``."""

    def warning(self, text: str) -> None:
        """Something is wrong that does not end the run. The text names settings as ``$field``."""

    def done(self, run: Run) -> None:
        """The run is complete, or was interrupted; its files are written."""
