"""Where models live: those that came with the package, and the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import platformdirs

from cryoemmae_plugin.errors import ModelError
from cryoemmae_plugin.weights.card import CARD_FILE, is_model_name


@dataclass(frozen=True)
class InstalledModel:
    """Where a model that can be loaded by name is, and whether it came with the package or is the user's own."""

    name: str
    folder: Path
    shipped: bool


def user_models_dir() -> Path:
    """Return the folder of the user's own models (XDG_DATA_HOME is honoured)."""
    return platformdirs.user_data_path("cryoemmae", appauthor=False) / "models"


def shipped_models_dir() -> Path:
    """Return the folder of the models that came with the package: inside it when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "models"
    return inside if inside.is_dir() else package.parent / "models"


def list_models() -> list[InstalledModel]:
    """Return all models that can be loaded by name, by name; a user's model hides a shipped one of the same name."""
    found: dict[str, InstalledModel] = {}
    for root, shipped in ((shipped_models_dir(), True), (user_models_dir(), False)):
        for card in sorted(root.glob(f"*/{CARD_FILE}")):
            if is_model_name(card.parent.name):
                found[card.parent.name] = InstalledModel(card.parent.name, card.parent, shipped)
    return sorted(found.values(), key=lambda model: model.name)


def find_model(name: str) -> Path:
    """Return the folder of an installed model.

    Raises
    ------
    ModelError
        There is none of that name; the message lists those that are there.
    """
    installed = {model.name: model.folder for model in list_models()}
    if name not in installed:
        known = ", ".join(installed) or "none"
        raise ModelError(
            f"no model {name!r}; installed are: {known} (in {user_models_dir()} and {shipped_models_dir()}). "
            "Give one of these names or a model folder"
        )
    return installed[name]


def folder_of(name_or_dir: str | Path) -> Path:
    """Return the folder that a name or a path stands for; an installed name wins over a folder of that name.

    Raises
    ------
    ModelError
        It is neither.
    """
    is_folder = Path(name_or_dir).is_dir()
    if isinstance(name_or_dir, Path) and is_folder:
        return name_or_dir
    try:
        return find_model(str(name_or_dir))
    except ModelError:
        if is_folder:
            return Path(name_or_dir)
        raise
