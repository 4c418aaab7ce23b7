"""cryoemmae: particle picking without labels."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryoemmae_plugin.weights import load_model

__all__ = ["load_model"]

_HOME = {"load_model": "cryoemmae_plugin.weights"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that importing the package stays light."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
