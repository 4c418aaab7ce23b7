"""Which release of this package is running."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

PACKAGE = "cryoemmae"
"""Name of the installed package."""

NOT_INSTALLED = "0.0.dev0"
"""Version of a source folder that is used without being installed."""


def package_version() -> str:
    """Return the installed version, or :data:`NOT_INSTALLED`."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return NOT_INSTALLED


def release() -> str:
    """Return major and minor number; releases that share them give the same picks."""
    return ".".join(package_version().split(".")[:2])
