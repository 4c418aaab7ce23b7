"""A model of the project's own, trained once in the job's folder and then left as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryoemmae_plugin.errors import ModelError
from cryoemmae_plugin.files import write_json
from cryoemmae_plugin.weights import CARD_FILE, read_card
from relion_wrapper.arguments import JobArguments
from relion_wrapper.engine import choose_devices
from relion_wrapper.micrographs import JobMicrograph
from relion_wrapper.progress import StageBars, say

if TYPE_CHECKING:
    from cryoemmae_plugin.training.start import Start

NAME = "project"
PLAN_FILE = "training.json"


def project_model(
    arguments: JobArguments, micrographs: Sequence[JobMicrograph], folder: Path, should_stop: Callable[[], bool]
) -> Path:
    """The model folder of a job that trains; what an earlier pass has trained is used unchanged.

    Parameters
    ----------
    folder : Path
        Where models and their plans lie in the job.
    should_stop : callable
        Asked after each training step.

    Raises
    ------
    ModelError
        When the model that is there was trained for another mode.
    Interrupted
        When `should_stop` says True; the next pass goes on from there.
    """
    home = folder / NAME
    if (home / CARD_FILE).exists():
        card = read_card(home)
        if arguments.settings.mode not in card.modes:
            raise ModelError(
                f"{home}: trained for mode {' and '.join(card.modes)}, and a job keeps its model; "
                f"for mode {arguments.settings.mode} start a new job"
            )
        say(f"Using the model that this job has trained: {home}")
        return home
    plan = _plan(arguments, micrographs, folder / PLAN_FILE)
    _train(arguments, plan, home, should_stop)
    return home


def _plan(arguments: JobArguments, micrographs: Sequence[JobMicrograph], path: Path) -> dict[str, Any]:
    """What to train on: chosen once, evenly over the micrographs there were, so that a stopped training goes on."""
    if path.exists():
        try:
            plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return plan
        except ValueError as err:
            raise ModelError(f"{path}: not a training plan ({err}); delete {path.parent} to train anew") from err
    wanted = min(arguments.train_on, len(micrographs))
    chosen = [micrographs[i * len(micrographs) // wanted] for i in range(wanted)]
    plan = {
        "mode": arguments.settings.mode,
        "start": arguments.settings.model_name,
        "epochs": arguments.train_epochs,
        "diameter_A": arguments.settings.diameter_A,
        "contrast": arguments.settings.contrast,
        "micrographs": [[m.name, m.pixel_size_A] for m in chosen],
    }
    write_json(path, plan)
    return plan


def _train(arguments: JobArguments, plan: dict[str, Any], home: Path, should_stop: Callable[[], bool]) -> None:
    from cryoemmae_plugin.training.fit import FitSettings
    from cryoemmae_plugin.training.train import TrainingMicrograph, train_model

    bright = plan["contrast"] == "bright"
    used = [TrainingMicrograph(Path(name), plan["diameter_A"], A, bright) for name, A in plan["micrographs"]]
    start = _start(plan["start"])
    how = f"further from {plan['start']}" if start else "from scratch"
    bars = StageBars()
    train_model(
        used,
        home,
        NAME,
        mode=plan["mode"],
        settings=FitSettings(epochs=plan["epochs"]) if plan["epochs"] else None,
        start=start,
        device=choose_devices(arguments.devices)[0],
        progress=lambda done, total, loss: bars.show(f"Training on {len(used)} micrographs, {how}", done, total),
        on_stage=bars.show,
        should_stop=should_stop,
    )


def _start(name: str) -> Start | None:
    """The model to train further; None, so a new one, where it is not there or has no decoder to train with."""
    from cryoemmae_plugin.training.start import load_start

    try:
        return load_start(name)
    except ModelError as err:
        say(f"{name} cannot be trained further: {err}")
        return None
