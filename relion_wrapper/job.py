"""One pass of the picking job: what is new is picked, all of it is published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from cryoemmae_plugin.cli.session import AnyEngine
from cryoemmae_plugin.device import use_threads
from cryoemmae_plugin.errors import CryoemmaeError, ImageError, Interrupted
from cryoemmae_plugin.images import read_header
from cryoemmae_plugin.run.adapting import settle_model
from cryoemmae_plugin.run.diameter import settle_diameter
from cryoemmae_plugin.run.profile import Profile
from cryoemmae_plugin.run.store import ResultStore, RunRecord, alone_in
from cryoemmae_plugin.version import release
from relion_wrapper.arguments import AUTO, JobArguments
from relion_wrapper.dialect import DEFAULT_VERSION, DIALECTS, Dialect, detect_version
from relion_wrapper.display import write_display_settings
from relion_wrapper.engine import build_engine, build_workers
from relion_wrapper.logfile import write_logfile
from relion_wrapper.micrographs import JobMicrograph, read_job_micrographs
from relion_wrapper.progress import ProgressBar, StageBars, say, say_in_ascii, warn
from relion_wrapper.publish import LOGFILE, Published, publish_coordinates, write_list, write_output_nodes
from relion_wrapper.training import project_model

WORK_FOLDER = "cryoemmae"
"""In the job's folder: all candidates of all micrographs, and the model that the job has trained."""

READ_AHEAD = 2
"""Micrographs read ahead while one is picked."""


class PickJob:
    """What happens between the first line of run.out and the exit marker; the project is the present folder.

    Parameters
    ----------
    arguments : JobArguments
        What is asked for.
    should_stop : callable
        Whether somebody wants the job aborted; asked before each micrograph and after each training step.
    """

    def __init__(self, arguments: JobArguments, should_stop: Callable[[], bool]) -> None:
        self._arguments, self._should_stop = arguments, should_stop
        self._folder = arguments.folder
        self._work = arguments.folder / WORK_FOLDER

    def run(self) -> None:
        """Pick what is not done yet, and publish everything.

        Raises
        ------
        CryoemmaeError
            When the job has failed; :class:`Interrupted` when it is aborted.
        """
        micrographs = read_job_micrographs(self._arguments.in_mics, self._arguments.settings.pixel_size_A)
        if self._should_stop():
            raise Interrupted("aborted before the first micrograph")
        use_threads(self._arguments.threads)
        with alone_in(self._work) as lock:
            self._settings = settle_diameter(
                self._arguments.settings, [m.micrograph for m in micrographs], self._work, renew=True, tell=say_in_ascii
            )
            say(f"Picking particles of {self._settings.diameter_A:g} Angstrom in {self._arguments.in_mics}")
            engine = self._build_engine(micrographs)
            record = RunRecord(
                version=release(),
                model_name=engine.model_name,
                model_sha256=engine.model_sha256,
                settings=self._settings,
            )
            with ResultStore.create(self._work, record, renew=True, lock=lock) as store:
                reasons = self._pick(micrographs, engine, store)
                self._publish(micrographs, store, reasons)

    def _build_engine(self, micrographs: Sequence[JobMicrograph]) -> AnyEngine:
        """The model asked for, or the one that this job trains, adapted to the micrographs, on its devices."""
        model_name = self._settings.model_name
        if self._arguments.train_on:
            arguments = replace(self._arguments, settings=self._settings)
            model_name = str(project_model(arguments, micrographs, self._work, self._should_stop))
        engine = self._engine_of(model_name)  # what it lacks, shows before a minute is spent
        adapted = self._adapted(model_name, micrographs)
        if adapted != model_name:
            engine = self._engine_of(adapted)
        say(f"Model {engine.model_name} on {engine.device}")
        return engine

    def _engine_of(self, model_name: str) -> AnyEngine:
        asked = self._arguments
        engine = build_workers(self._settings, model_name, asked.devices, asked.threads, asked.workers)
        return engine or build_engine(self._settings, model_name, asked.devices[0], asked.threads)

    def _adapted(self, model_name: str, micrographs: Sequence[JobMicrograph]) -> str:
        """The model that knows these micrographs, where it can be had."""
        bars = StageBars()
        chosen = settle_model(
            self._settings.model_copy(update={"model": model_name}),
            [m.micrograph for m in micrographs],
            self._work,
            renew=True,
            tell=say_in_ascii,
            progress=lambda done, total: bars.show("Adapting to the micrographs", done, total),
            should_stop=self._should_stop,
        )
        return chosen.model_name

    def _pick(self, micrographs: Sequence[JobMicrograph], engine: AnyEngine, store: ResultStore) -> list[str]:
        """Pick what the store does not hold; the reasons of those that failed."""
        pending = store.pending(m.micrograph for m in micrographs)
        if len(pending) < len(micrographs):
            say(f"{len(micrographs) - len(pending)} of {len(micrographs)} micrographs are done already")
        if not pending:
            say("No new micrographs to do")
            return []
        bar = ProgressBar(f"Autopicking {len(pending)} micrographs", len(pending))
        reasons, profile = [], Profile()
        outcomes = engine.pick(pending, store, jobs=READ_AHEAD, should_stop=self._should_stop)
        for done, outcome in enumerate(outcomes, 1):
            if outcome.reason is not None:
                reasons.append(outcome.reason)
                warn(f"WARNING: skipped {outcome.reason}")
            else:
                profile.add(outcome.seconds)
            bar.show(done)
        if profile.micrographs:
            say(profile.line())
        return reasons

    def _publish(self, micrographs: Sequence[JobMicrograph], store: ResultStore, reasons: Sequence[str]) -> None:
        """Write what RELION reads, in its order: coordinates, log, list, nodes."""
        dialect, threshold = self._dialect(), self._settings.pick_threshold
        published = publish_coordinates(self._folder, micrographs, store, threshold)
        if not published.micrographs:
            raise ImageError(f"all {len(micrographs)} micrographs failed; first {''.join(reasons[:1])}")
        with_logfile = self._write_logfile(published, store)
        self._set_display(published)
        write_list(self._folder, dialect, self._arguments.in_mics, published.micrographs)
        write_output_nodes(self._folder, dialect, logfile=with_logfile)
        total, done = sum(published.picks), len(published.micrographs)
        say(f"Total number of particles from {done} micrographs is {total}")
        say(f"i.e. on average there were {round(total / done)} particles per micrograph")
        if reasons:
            warn(f"WARNING: {len(reasons)} of {len(micrographs)} micrographs were skipped; Continue tries them again")
        say(f"Done! Written: {self._folder / dialect.list_name}")

    def _write_logfile(self, published: Published, store: ResultStore) -> bool:
        """Draw the log; a picture that cannot be drawn is not worth a job."""
        try:
            write_logfile(self._folder / LOGFILE, published, store, self._settings.pick_threshold)
        except Exception as err:
            warn(f"WARNING: no {LOGFILE} ({type(err).__name__}: {err})")
            return False
        return True

    def _set_display(self, published: Published) -> None:
        sizes = [micrograph.pixel_size_A for micrograph in published.micrographs]
        try:
            width_px = read_header(Path(published.micrographs[0].name)).shape[1]
            write_display_settings(Path(), self._settings.diameter_A, sizes, width_px)
        except CryoemmaeError as err:
            warn(f"WARNING: RELION's display keeps its own circle size ({err})")

    def _dialect(self) -> Dialect:
        """How the RELION at hand wants its output."""
        wanted = self._arguments.relion_version
        if wanted != AUTO:
            return DIALECTS[wanted]
        found = detect_version(self._folder / "job_pipeline.star") or detect_version(Path("default_pipeline.star"))
        if found is None:
            say(f"No RELION pipeline here that tells its version: writing for RELION {DEFAULT_VERSION}")
        return DIALECTS[found or DEFAULT_VERSION]
