"""What a run calls of its front end while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cryoemmae_plugin.run.observer import Observer
from cryoemmae_plugin.run.prefetch import Loader, load


@dataclass(frozen=True)
class Hooks:
    """What a run calls of its front end.

    Attributes
    ----------
    observer : Observer
        Is told of every step.
    loader : callable
        Reads a micrograph; called in threads.
    should_stop : callable
        Asked before each micrograph, and before each step of the preparation.
    """

    observer: Observer = field(default_factory=Observer)
    loader: Loader = load
    should_stop: Callable[[], bool] = lambda: False
