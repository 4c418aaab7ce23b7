"""What the library logs, shown where a front end wants it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Tell = Callable[[str], None]

IMAGES = "cryoemmae_plugin.images"
MOST_ABOUT_IMAGES = 10
"""Of thousands of files that are odd in the same way, so many are named."""


class _Handler(logging.Handler):
    def __init__(self, warn: Tell, say: Tell | None, level: int) -> None:
        super().__init__(level)
        self._warn, self._say = warn, say or warn
        self._about_images: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record; what is said about a file when it is read, is shown once."""
        text = self.format(record)
        tell = self._warn if record.levelno >= logging.WARNING else self._say
        if record.name.startswith(IMAGES):
            key = str(Path(text).absolute())  # the text begins with the path, which may be relative or whole
            if key in self._about_images or len(self._about_images) > MOST_ABOUT_IMAGES:
                return
            self._about_images.add(key)
            if len(self._about_images) > MOST_ABOUT_IMAGES:
                text = "More files are odd in such ways; they are read, and no longer named here"
        tell(text)


@contextmanager
def library_log(warn: Tell, say: Tell | None = None, *, debug: bool = False) -> Iterator[None]:
    """Pass on what the library logs while a command runs.

    Parameters
    ----------
    warn : callable
        Takes warnings.
    say : callable, optional
        Takes other messages; without it they are left out.
    debug : bool
        Whether `say` takes all of them.
    """
    level = logging.WARNING if say is None else logging.DEBUG if debug else logging.INFO
    logger, handler = logging.getLogger("cryoemmae_plugin"), _Handler(warn, say, level)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(level, before or level))
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def repeat_warning(text: str) -> None:
    """Say here what another process of the run has said about its files, under the same rules."""
    logging.getLogger(IMAGES).warning("%s", text)
