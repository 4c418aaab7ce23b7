"""Which release of this package is running."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

NOT_INSTALLED = "0.0.dev0"
"""The version where the source is used without being installed."""


def package_version() -> str:
    """The installed version, or :data:`NOT_INSTALLED`."""
    try:
        return version("cryoemmae")
    except PackageNotFoundError:
        return NOT_INSTALLED


def release() -> str:
    """Major and minor number: releases that share them give the same picks."""
    return ".".join(package_version().split(".")[:2])
