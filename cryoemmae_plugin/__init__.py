"""cryoemmae: particle picking without labels.

Examples
--------
>>> from cryoemmae_plugin import pick_files
>>> found = pick_files("micrographs/*.mrc", diameter_A=120)
>>> for path, picks in found.items():
...     print(path.name, len(picks) > 0)
ribosome.mrc True
virus.mrc True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryoemmae_plugin.api import PickedFiles, Picker, pick_files, read_micrograph
    from cryoemmae_plugin.errors import CryoemmaeError
    from cryoemmae_plugin.settings import PickerSettings
    from cryoemmae_plugin.types import Micrograph, Picks
    from cryoemmae_plugin.weights import load_model

__all__ = [
    "pick_files",
    "Picker",
    "PickerSettings",
    "read_micrograph",
    "load_model",
    "Picks",
    "PickedFiles",
    "Micrograph",
    "CryoemmaeError",
]

_HOME = {
    "pick_files": "api",
    "Picker": "api",
    "PickedFiles": "api",
    "read_micrograph": "api",
    "PickerSettings": "settings",
    "CryoemmaeError": "errors",
    "Micrograph": "types",
    "Picks": "types",
    "load_model": "weights",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that importing the package stays light."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
