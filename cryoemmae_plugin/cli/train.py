"""``cryoemmae train``: a model of one's own from unlabelled micrographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cryoemmae_plugin.errors import Interrupted, SettingsError
from cryoemmae_plugin.settings import Mode
from cryoemmae_plugin.terminal import exits
from cryoemmae_plugin.terminal.console import Reporter, Stages
from cryoemmae_plugin.terminal.options import Flag


def train(
    paths: Annotated[list[str], Parameter(name="PATH", negative="")],
    /,
    *,
    diameter: float,
    name: str,
    out: Path | None = None,
    pixel_size: float | None = None,
    mode: Mode = "default",
    contrast: Literal["dark", "bright"] = "dark",
    start: Annotated[str | None, Parameter(name="--from")] = None,
    epochs: int | None = None,
    batch: int | None = None,
    rate: float | None = None,
    seed: int | None = None,
    device: str = "auto",
    recursive: Flag = False,
) -> int:
    """Train a model on unlabelled micrographs; five are enough.

    To resume, run the same command again. When it is done, pick with --model NAME.

    Parameters
    ----------
    paths
        Micrographs (MRC, TIFF, PNG, JPEG), folders, globs in quotes, or a micrographs STAR.
    diameter
        Longest extent of the particle, in Å.
    name
        What to call the model.
    out
        Folder for the model. [default: NAME among the installed models]
    pixel_size
        Å per pixel of the stored micrographs; overrides the files' headers.
    mode
        The mode of pick that the model is for.
    contrast
        'dark' for particles darker than the ice, 'bright' for inverted micrographs.
    start
        Model to train further, by name or folder. [default: a new one]
    epochs
        Passes over the training tiles. [default: 20, and at least 4000 steps]
    batch
        Tiles in a step. [default: 16]
    rate
        Peak learning rate. [default: 0.001]
    seed
        Of the weights, the masks and the order of the tiles. [default: 0]
    device
        auto (a GPU where there is one), cpu, or cuda:N.
    recursive
        Search the folders inside a folder too.
    """
    reporter = Reporter(dated=True)
    reporter.say(f"Preparing to train {name}")  # before the imports, which take seconds
    from cryoemmae_plugin.device import choose_device
    from cryoemmae_plugin.run.inputs import find_micrographs
    from cryoemmae_plugin.run.stop import Stop, stop_on_signals
    from cryoemmae_plugin.training.prepare import TrainingMicrograph
    from cryoemmae_plugin.training.recipe import FitSettings
    from cryoemmae_plugin.training.start import load_start
    from cryoemmae_plugin.training.train import train_model
    from cryoemmae_plugin.weights import is_model_name, user_models_dir

    if not is_model_name(name):
        raise SettingsError(f"--name is {name!r}: use letters, digits, '.', '_' and '-', at most 64, no path")
    if diameter <= 0:
        raise SettingsError(f"--diameter is {diameter:g}: it must be greater than 0")
    given = {"epochs": epochs, "batch": batch, "rate": rate, "seed": seed}
    settings = FitSettings(**{field: value for field, value in given.items() if value is not None})
    chosen = choose_device(device)
    found = find_micrographs(paths, pixel_size_A=pixel_size, recursive=recursive, exclude=out)
    micrographs = [TrainingMicrograph(m.path, diameter, m.pixel_size_A, contrast == "bright") for m in found]
    folder = out or user_models_dir() / name
    reporter.say(f"Training {name} on {len(micrographs)} micrographs, on {chosen}, into {folder}")
    with stop_on_signals(Stop()) as stop, Stages(reporter) as stages:
        try:
            train_model(
                micrographs,
                folder,
                name,
                mode=mode,
                settings=settings,
                start=None if start is None else load_start(start),
                device=chosen,
                progress=lambda done, total, skill: stages.show("Training", done, total, f"skill {skill:.2f}"),
                on_stage=stages.show,
                should_stop=stop,
            )
        except Interrupted as err:
            reporter.warn(str(err))
            return exits.stopped_by(stop.signal)
    reporter.say(f"Done. Pick with it: cryoemmae pick MICROGRAPHS/ --diameter {diameter:g} --model {out or name}")
    return 0
