"""``cryoemmae models``: what is installed, and how to install more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from cryoemmae_plugin.errors import ModelError
from cryoemmae_plugin.terminal import exits
from cryoemmae_plugin.terminal.console import Reporter
from cryoemmae_plugin.terminal.options import Flag

models = App(name="models", help="List, show, verify and import models.", sort_key=11, help_format="plaintext")


@models.command(name="list")
def list_installed() -> None:
    """List the models that can be picked with."""
    Reporter(aside=True).say("Reading the cards of the models")  # before the imports, which take seconds
    from cryoemmae_plugin.weights import list_models, read_card, user_models_dir

    table = Table("name", "modes", "from", "trained on", box=None, pad_edge=False)
    for model in list_models():
        origin = "shipped" if model.shipped else str(model.folder)
        try:
            card = read_card(model.folder)
            table.add_row(model.name, ", ".join(card.modes), origin, card.data)
        except ModelError as err:
            table.add_row(model.name, "broken", origin, str(err))
    console = Console(highlight=False)
    console.print(table if table.row_count else "No model is installed.")
    console.print(f"Your own models are in {user_models_dir()}", soft_wrap=True)


@models.command
def show(name: Annotated[str, Parameter(name="NAME|DIR")], /) -> None:
    """Show a model's card: what it is, and where it comes from.

    Parameters
    ----------
    name
        Name of an installed model, or a model folder.
    """
    Reporter(aside=True).say(f"Reading the card of {name}")
    from cryoemmae_plugin.weights import read_card
    from cryoemmae_plugin.weights.installed import folder_of

    folder = folder_of(name)
    console = Console(highlight=False)
    console.print(f"# {folder}", markup=False, soft_wrap=True)
    console.print(read_card(folder).to_toml(), markup=False, soft_wrap=True)


@models.command
def verify(names: Annotated[list[str] | None, Parameter(name="NAME|DIR", negative="")] = None, /) -> int:
    """Compare the files of models with the hashes in their cards; all installed ones if none is named.

    Parameters
    ----------
    names
        Names of installed models, or model folders.
    """
    reporter = Reporter()
    reporter.say("Comparing models with the hashes in their cards")  # before the imports, which take seconds
    from cryoemmae_plugin.weights import list_models, load_model
    from cryoemmae_plugin.weights.installed import folder_of

    bad = 0
    for name in names or [model.name for model in list_models()]:
        try:
            model = load_model(folder_of(name))
            reporter.say(f"{name}: good (sha256 {model.sha256[:12]})")
        except ModelError as err:
            bad += 1
            reporter.warn(f"{name}: {err}")
    return exits.NOTHING_DONE if bad else exits.ALL_DONE


@models.command
def import_upstream(
    checkpoint: Annotated[Path, Parameter(name="CHECKPOINT")],
    /,
    *,
    mean: float,
    std: float,
    name: str,
    kmeans: Path | None = None,
    particle_cluster: int | None = None,
    allow_pickle: Flag = False,
) -> None:
    """Make a model of weights that were published with the paper.

    Parameters
    ----------
    checkpoint
        The published .pth.tar file. Nothing in it is run.
    mean
        Mean of the training set's pixels, scaled to 0..1.
    std
        Their standard deviation.
    name
        What to call the model.
    kmeans
        Centroids of the training set's clusters: .npz, or the published pickle.
    particle_cluster
        Number of the cluster that is particles. [default: found on simulated micrographs]
    allow_pickle
        Open a pickled --kmeans. It can run any code: only for files that you trust.
    """
    reporter = Reporter()
    reporter.say(f"Importing {checkpoint}")  # before the imports, which take seconds
    from cryoemmae_plugin.training.clusters import particle_cluster_by_simulation
    from cryoemmae_plugin.weights.upstream import import_upstream as convert

    with reporter.alive():
        folder = convert(
            checkpoint,
            kmeans,
            mean,
            std,
            particle_cluster,
            name,
            allow_pickle,
            find_cluster=particle_cluster_by_simulation,
        )
    reporter.say(f"{folder}: pick with it by --mode paper --model {name}")
