"""Which release of this package is running."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """The installed version; "0.0.dev0" where the source is used without being installed."""
    try:
        return version("cryoemmae")
    except PackageNotFoundError:
        return "0.0.dev0"


def release() -> str:
    """Major and minor number: releases that share them give the same picks."""
    return ".".join(package_version().split(".")[:2])
