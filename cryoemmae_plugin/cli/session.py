"""One `pick` run, from its first message to its exit status."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import torch

from cryoemmae_plugin.cli import exits
from cryoemmae_plugin.cli.console import Reporter
from cryoemmae_plugin.cli.signals import StopRequest, stop_on_signals
from cryoemmae_plugin.errors import CryoemmaeError, ImageError, Interrupted
from cryoemmae_plugin.run.outputs import Totals, write_outputs
from cryoemmae_plugin.run.overlays import overlay_is_current, write_overlay
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.run.stream import ImagePicker, Loaded, MicrographResult, load, pick_micrographs
from cryoemmae_plugin.run.summary import RunLog, Status, write_summary
from cryoemmae_plugin.types import Micrograph


class AnyEngine(Protocol):
    """What picks: :class:`Engine`, or :class:`cryoemmae_plugin.run.workers.engine.WorkerEngine`."""

    @property
    def model_name(self) -> str:
        """Name of the model."""
        ...

    @property
    def model_sha256(self) -> str:
        """Identity of the model."""
        ...

    @property
    def device(self) -> object:
        """Where it computes, as text."""
        ...

    def pick(
        self, micrographs: Sequence[Micrograph], store: ResultStore, *, jobs: int, should_stop: Callable[[], bool]
    ) -> Iterator[MicrographResult]:
        """Pick micrographs and store each; yields in the order given."""
        ...


@dataclass(frozen=True)
class Engine:
    """What picks in this process: the picker, the model that it uses, and where it computes."""

    picker: ImagePicker
    model_name: str
    model_sha256: str
    device: torch.device

    def pick(
        self,
        micrographs: Sequence[Micrograph],
        store: ResultStore,
        *,
        jobs: int = 2,
        should_stop: Callable[[], bool] = lambda: False,
        loader: Callable[[Micrograph], Loaded] = load,
    ) -> Iterator[MicrographResult]:
        """Pick micrographs and store each, as :func:`cryoemmae_plugin.run.stream.pick_micrographs` does."""
        return pick_micrographs(
            micrographs, self.picker, store, jobs=jobs, should_stop=should_stop, device=self.device, loader=loader
        )


@dataclass(frozen=True)
class RunOptions:
    """How a run goes, without influence on what is picked.

    Attributes
    ----------
    jobs : int
        Micrographs read ahead.
    boxes : bool
        Write EMAN boxes too.
    overlays : int
        Of how many micrographs to draw the picks.
    """

    jobs: int = 2
    boxes: bool = False
    overlays: int = 3


class PickRun:
    """Picks a list of micrographs into a store, and tells about it."""

    def __init__(self, store: ResultStore, engine: AnyEngine, options: RunOptions, reporter: Reporter) -> None:
        self._store, self._engine, self._options, self._reporter = store, engine, options, reporter
        self._log = RunLog(threshold=store.record.settings.pick_threshold)

    def over(self, micrographs: Sequence[Micrograph]) -> int:
        """Pick what is not done yet, write the final files, and return the exit status."""
        pending = self._store.pending(micrographs)
        counts = self._log.counts
        counts.micrographs, counts.skipped = len(micrographs), len(micrographs) - len(pending)
        self._greet()
        self._summarise("running")
        with stop_on_signals() as stop:
            try:
                self._pick(pending, {m.uid for m in micrographs[: self._options.overlays]}, stop)
            except (Interrupted, KeyboardInterrupt):
                stop.signal = stop.signal or signal.SIGINT
            except CryoemmaeError:
                with suppress(CryoemmaeError):
                    self._summarise("failed")
                raise
            self._finish(micrographs)
        return stop.exit_status if counts.remaining else self._exit_status()

    def _pick(self, pending: Sequence[Micrograph], illustrated: set[str], stop: StopRequest) -> None:
        """Pick, store and show one micrograph after the other."""
        stream = self._engine.pick(pending, self._store, jobs=self._options.jobs, should_stop=stop)
        with self._reporter.progress(len(pending), "Picking"):
            for outcome in stream:
                picks = self._log.add(outcome)
                name = outcome.micrograph.path.name
                if outcome.reason is not None:
                    self._reporter.warn(f"Failed: {outcome.reason}")
                    self._reporter.advance(f"{name}: failed")
                    continue
                if outcome.micrograph.uid in illustrated:
                    self._draw(outcome.micrograph)
                self._reporter.advance(f"{name}: {picks} picks")

    def _draw(self, micrograph: Micrograph) -> None:
        try:
            write_overlay(self._store, micrograph.uid, self._log.threshold)
        except ImageError as err:
            self._reporter.warn(f"No overlay: {err}")

    def _finish(self, micrographs: Sequence[Micrograph]) -> None:
        """Write what is made of all results, and say how it went."""
        counts, threshold = self._log.counts, self._log.threshold
        totals = write_outputs(self._store, threshold, boxes=self._options.boxes)
        for micrograph in micrographs[: self._options.overlays]:
            stored = self._store.path_of(micrograph.uid).exists()
            if stored and not overlay_is_current(self._store, micrograph.uid, threshold):
                self._draw(micrograph)
        status: Status = "interrupted" if counts.remaining else "done"
        self._summarise(status, totals)
        done = counts.micrographs - counts.remaining - counts.failed
        line = f"{done} of {counts.micrographs} micrographs are done"
        line += f", {counts.failed} failed" if counts.failed else ""
        line += f", {counts.remaining} remain: run the same command again to go on" if counts.remaining else ""
        self._reporter.say(f"{line}. {self._store.folder / 'picks.star'} holds {totals.picks} picks.")
        if self._log.profile.micrographs:
            self._reporter.say(f"{self._log.profile.line()}.")
        if counts.failed:
            self._reporter.warn("Failed; put right what is said, and the same command tries these again:")
            for failure in self._log.failures:
                self._reporter.warn(f"  {failure['reason']}")

    def _greet(self) -> None:
        counts, engine = self._log.counts, self._engine
        to_do = counts.micrographs - counts.skipped
        skipped = f"{counts.skipped} were done before and are skipped, " if counts.skipped else ""
        self._reporter.say(
            f"{counts.micrographs} micrographs: {skipped}{to_do} to pick "
            f"with {engine.model_name} on {engine.device} into {self._store.folder}"
        )

    def _exit_status(self) -> int:
        counts = self._log.counts
        if not counts.failed:
            return exits.ALL_DONE
        return exits.NOTHING_DONE if counts.failed == counts.micrographs else exits.SOME_FAILED

    def _summarise(self, status: Status, totals: Totals | None = None) -> None:
        write_summary(self._store.folder, self._store.record, self._log, totals, status, str(self._engine.device))
