"""``cryoemmae train``: a model of one's own from unlabelled micrographs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from cryoemmae_plugin.errors import Interrupted, SettingsError
from cryoemmae_plugin.settings import Mode, PickerSettings
from cryoemmae_plugin.terminal import exits
from cryoemmae_plugin.terminal.console import Reporter, Stages
from cryoemmae_plugin.terminal.options import (
    MicrographPaths,
    OneDevice,
    OneDiameter,
    PixelSize,
    Recursive,
    given,
    option_of,
)
from cryoemmae_plugin.training.recipe import FitSettings


def train(
    paths: MicrographPaths,
    /,
    *,
    diameter: OneDiameter,
    name: str,
    out: Path | None = None,
    pixel_size: PixelSize = None,
    mode: Annotated[Mode, option_of("mode")] = "default",
    contrast: Annotated[Literal["dark", "bright"], option_of("contrast")] = "dark",
    start: Annotated[str | None, Parameter(name="--from")] = None,
    epochs: Annotated[int | None, option_of("epochs", FitSettings)] = None,
    batch: Annotated[int | None, option_of("batch", FitSettings)] = None,
    rate: Annotated[float | None, option_of("rate", FitSettings)] = None,
    seed: Annotated[int | None, option_of("seed", FitSettings)] = None,
    device: OneDevice = "auto",
    recursive: Recursive = False,
) -> int:
    """Train a model on unlabelled micrographs; five are enough.

    To resume, run the same command again. When it is done, pick with --model NAME.

    Parameters
    ----------
    name
        What to call the model.
    out
        Folder for the model. [default: NAME among the installed models]
    start
        Model to train further, by name or folder. [default: a new one]
    """
    reporter = Reporter(dated=True)
    reporter.say(f"Preparing to train {name}")  # before the imports, which take seconds
    with reporter.alive():
        from cryoemmae_plugin.device import choose_device
        from cryoemmae_plugin.run.inputs import find_micrographs
        from cryoemmae_plugin.training.prepare import TrainingMicrograph
        from cryoemmae_plugin.training.start import load_start
        from cryoemmae_plugin.training.train import train_model

        folder = _folder_for(name, out)
        PickerSettings(diameter_A=diameter, pixel_size_A=pixel_size)
        settings = FitSettings(**given(epochs=epochs, batch=batch, rate=rate, seed=seed))
        chosen = choose_device(device)
        found = find_micrographs(paths, pixel_size_A=pixel_size, recursive=recursive, exclude=out)
        micrographs = [TrainingMicrograph(m.path, diameter, m.pixel_size_A, contrast == "bright") for m in found]
        reporter.say(f"Training {name} on {len(micrographs)} micrographs, on {chosen}, into {folder}")
        begun = None if start is None else load_start(start)
        status = _watch(
            partial(train_model, micrographs, folder, name, mode=mode, settings=settings, start=begun, device=chosen),
            reporter,
        )
    if status == exits.ALL_DONE:
        reporter.say(f"Done. Pick with it: cryoemmae pick MICROGRAPHS/ --diameter {diameter:g} --model {out or name}")
    return status


def _folder_for(name: str, out: Path | None) -> Path:
    """Where a model goes; its name is checked."""
    from cryoemmae_plugin.weights import is_model_name, user_models_dir

    if not is_model_name(name):
        raise SettingsError(
            setting="name", value=name, remedy="use letters, digits, '.', '_' and '-', at most 64, no path"
        )
    return out or user_models_dir() / name


def _watch(training: Callable[..., Any], reporter: Reporter) -> int:
    """Train, tell the terminal how it goes, and stop on a signal; the exit status."""
    from cryoemmae_plugin.run.stop import Stop, stop_on_signals

    with stop_on_signals(Stop()) as stop, Stages(reporter) as stages:
        try:
            training(
                progress=lambda done, total, skill: stages.show("Training", done, total, f"skill {skill:.2f}"),
                on_stage=stages.show,
                should_stop=stop,
            )
        except Interrupted as err:
            reporter.warn(str(err))
            return exits.stopped_by(stop.signal)
    return exits.ALL_DONE
