"""One picking run, from the lock on its folder to its summary. Every front end calls it.

A front end reads what is asked for into a :class:`RunRequest`, calls :func:`run_picking` with an observer of its own,
and publishes the results in its own form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryoemmae_plugin.device import use_threads
from cryoemmae_plugin.errors import UNSPELLED, CryoemmaeError, ImageError, InputError, Interrupted, render
from cryoemmae_plugin.files import is_file
from cryoemmae_plugin.run import engine as engines
from cryoemmae_plugin.run.engine import AnyEngine, Engine, EngineFactory
from cryoemmae_plugin.run.formats import existing_formats
from cryoemmae_plugin.run.hooks import Hooks
from cryoemmae_plugin.run.lock import FolderLock
from cryoemmae_plugin.run.observer import Observer
from cryoemmae_plugin.run.outputs import Totals, write_outputs
from cryoemmae_plugin.run.overlays import overlay_is_current, write_overlay
from cryoemmae_plugin.run.own_model import train_own_model
from cryoemmae_plugin.run.plausibility import Plausibility
from cryoemmae_plugin.run.prefetch import Loader, load
from cryoemmae_plugin.run.preparation import Preparation, refuse_to_delete_model
from cryoemmae_plugin.run.request import RunRequest
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import Existing, ResultStore, RunRecord, alone_in
from cryoemmae_plugin.run.stream import MicrographResult
from cryoemmae_plugin.run.summary import RunCounts, RunLog, Status, settle_selection, write_summary
from cryoemmae_plugin.run.summary_table import defocus_of, write_summary_table
from cryoemmae_plugin.settings import PickerSettings
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.version import release


@dataclass
class Run:
    """A run, as its observer and its finishers see it.

    Attributes
    ----------
    settings : PickerSettings
        The settings asked for, the diameter a number.
    micrographs, pending : sequence of Micrograph
        All, and those that no earlier run has done.
    log : RunLog
        Counts, failures and times so far.
    totals : Totals or None
        What the output files hold, once they are written.
    report : Path or None
        The page of the report, once a finisher has written it.
    """

    request: RunRequest
    settings: PickerSettings
    micrographs: Sequence[Micrograph]
    pending: Sequence[Micrograph]
    engine: AnyEngine
    store: ResultStore
    selection: Selection
    log: RunLog = field(init=False)
    totals: Totals | None = None
    report: Path | None = None

    def __post_init__(self) -> None:
        counts = RunCounts(micrographs=len(self.micrographs), skipped=len(self.micrographs) - len(self.pending))
        self.log = RunLog(selection=self.selection, counts=counts)

    @property
    def counts(self) -> RunCounts:
        """How the micrographs have ended so far."""
        return self.log.counts

    @property
    def reasons(self) -> list[str]:
        """Why micrographs have failed."""
        return [failure["reason"] for failure in self.log.failures]


Finisher = Callable[[Run], None]
"""Uses the results of a complete run, for example to write files for another program."""


def run_picking(
    request: RunRequest,
    micrographs: Sequence[Micrograph],
    observer: Observer,
    *,
    loader: Loader = load,
    stop: Callable[[], bool] = lambda: False,
    engine_factory: EngineFactory | None = None,
    finishers: Iterable[Finisher] = (),
) -> Run:
    """Pick micrographs into a result folder; finished micrographs are not picked again.

    Parameters
    ----------
    request : RunRequest
        The request.
    micrographs : sequence of Micrograph
        Micrographs to pick.
    observer : Observer
        Is told of every step.
    loader : callable
        Reads a micrograph; called in threads.
    stop : callable
        Asked before each micrograph, and before each step of the preparation.
    engine_factory : callable, optional
        Makes what picks; by default :func:`cryoemmae_plugin.run.engine.build_engine`.
    finishers : iterable of callable
        Called in order once the output files of a complete run are written, while the folder is still locked.

    Returns
    -------
    Run
        The complete run. Micrographs may have failed: see its counts.

    Raises
    ------
    Interrupted
        When `stop` says True. Finished micrographs are stored; the same request resumes the run.
    CryoemmaeError
        When the run cannot continue.
    """
    hooks, make_engine = Hooks(observer, loader, stop), engine_factory or engines.build_engine
    if stop():
        raise Interrupted("stopped before the first micrograph")
    use_threads(request.device.threads or 0)
    with alone_in(request.folder, request.existing) as lock:
        settings, engine = _settle(request, micrographs, hooks, make_engine)
        with _open_store(request, settings, engine, lock) as store:
            selection, line = settle_selection(request.folder, settings)
            if line:
                observer.stage(line)
            run = Run(request, settings, micrographs, store.pending(micrographs), engine, store, selection)
            _Session(run, hooks, finishers).complete()
    return run


def _settle(
    request: RunRequest, micrographs: Sequence[Micrograph], hooks: Hooks, make_engine: EngineFactory
) -> tuple[PickerSettings, AnyEngine]:
    """The settings of the run, and what picks: with the model asked for, trained, adapted, or refined."""
    if request.existing is Existing.REPLACE:
        refuse_to_delete_model(request.folder, request.settings)
    preparation = Preparation(request.folder, request.existing, hooks)
    settings = chosen = preparation.settle_diameter(request.settings, micrographs)
    if request.own_model is not None:
        chosen = train_own_model(request.own_model, settings, request.device.device, hooks)
    engine = make_engine(chosen, request)  # a missing device shows before a minute is spent on adapting
    if request.selection is None:
        adapted = preparation.settle_model(chosen, micrographs)
    else:
        adapted = preparation.settle_refined_model(chosen, micrographs, request.selection)
    if hooks.should_stop():
        raise Interrupted("stopped before the first micrograph")
    return settings, engine if adapted == chosen else make_engine(adapted, request)


def _open_store(request: RunRequest, settings: PickerSettings, engine: AnyEngine, lock: FolderLock) -> ResultStore:
    record = RunRecord(
        version=release(), model_name=engine.model_name, model_sha256=engine.model_sha256, settings=settings
    )
    return ResultStore.create(request.folder, record, existing=request.existing, lock=lock)


class _Session:
    """The loop over the micrographs of a run, and what follows it."""

    def __init__(self, run: Run, hooks: Hooks, finishers: Iterable[Finisher]) -> None:
        self._run, self._hooks, self._observer, self._finishers = run, hooks, hooks.observer, finishers
        self._plausibility = Plausibility(
            run.settings, run.selection, len(run.pending), hooks.loader, run.counts.skipped
        )

    def complete(self) -> None:
        """Pick the pending micrographs, write the outputs, and report how the run ended, also after an error."""
        try:
            self._summarise("running")
            self._observer.ready(self._run)
            self._pick()
            self._write_outputs()
            for finish in self._finishers:
                finish(self._run)
            self._write_table()
            self._summarise("done")
            self._observer.done(self._run)
        except (Interrupted, KeyboardInterrupt):
            self._write_outputs()
            self._write_table()
            self._summarise("interrupted")
            self._observer.done(self._run)
            raise
        except BaseException:
            with suppress(CryoemmaeError):
                self._summarise("failed")
            raise

    def _pick(self) -> None:
        run = self._run
        illustrated = {micrograph.uid for micrograph in run.micrographs[: run.request.outputs.overlays]}
        for outcome in self._outcomes():
            picks = run.log.add(outcome)
            if outcome.result is not None and outcome.micrograph.uid in illustrated:
                self._draw(outcome.micrograph)
            self._observer.micrograph(run, outcome, picks)
            self._warn(self._plausibility.add(outcome))
        self._warn(self._plausibility.conclude())

    def _warn(self, texts: Iterable[str]) -> None:
        """Tell the user that results do not fit the settings, now and in the summary."""
        for text in texts:
            self._run.log.warnings.append(text)
            self._observer.warning(text)

    def _outcomes(self) -> Iterator[MicrographResult]:
        """What becomes of each micrograph: read by this process, or by workers."""
        run, jobs, hooks = self._run, self._run.request.compute.jobs, self._hooks
        if isinstance(run.engine, Engine):
            return run.engine.pick(
                run.pending, run.store, jobs=jobs, should_stop=hooks.should_stop, loader=hooks.loader
            )
        if hooks.loader is not load:
            _check_in_sight(run.pending)
        return run.engine.pick(run.pending, run.store, jobs=jobs, should_stop=hooks.should_stop)

    def _write_outputs(self) -> None:
        run, outputs = self._run, self._run.request.outputs
        if outputs.tables:
            formats = outputs.formats | existing_formats(run.store.folder)  # files of earlier runs must not grow stale
            run.totals = write_outputs(run.store, run.selection, formats)
            if gone := run.store.gone(run.micrographs):
                self._warn([_account_of_gone(gone)])
        for micrograph in run.micrographs[: outputs.overlays]:
            stored = run.store.path_of(micrograph.uid).exists()
            if stored and not overlay_is_current(run.store, micrograph.uid, run.selection):
                self._draw(micrograph)

    def _write_table(self) -> None:
        run = self._run
        failed = {failure["micrograph"]: failure["reason"] for failure in run.log.failures}
        write_summary_table(run.store, run.selection, failed, run.log.seconds, defocus_of(run.micrographs))

    def _draw(self, micrograph: Micrograph) -> None:
        try:
            write_overlay(self._run.store, micrograph.uid, self._run.selection)
        except ImageError as err:
            self._observer.warning(f"No overlay: {render(err, UNSPELLED)}")

    def _summarise(self, status: Status) -> None:
        run = self._run
        write_summary(run.store.folder, run.store.record, run.log, run.totals, status, str(run.engine.device))


def _account_of_gone(files: Sequence[Path]) -> str:
    """Say that results stay of micrographs that are not there, which may have been moved and picked again."""
    return (
        f"The files still hold the picks of {len(files)} micrographs that are no longer there, such as {files[0]}. "
        "If you moved or renamed them, start over with $overwrite=yes, so that none is there twice"
    )


def _check_in_sight(micrographs: Sequence[Micrograph]) -> None:
    """Refuse files that are not on this host: workers read files themselves, without the loader."""
    unseen = [micrograph.path for micrograph in micrographs if not is_file(micrograph.path)]
    if unseen:
        raise InputError(
            f"{unseen[0]}: not in sight here ({len(unseen)} of {len(micrographs)} micrographs), and workers read files "
            "themselves; pick where the files are mounted, or in one process"
        )
