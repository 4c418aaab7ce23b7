"""Write to a stream that may be closed or full: what a command does counts more than what it says."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import IO


def write_if_possible(stream: IO[str], text: str) -> None:
    """Write at once; where that fails, this and everything that follows goes nowhere."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:  # such as a full disk
        discard(stream)


def discard(stream: IO[str]) -> None:
    """Send what is left in the stream's buffer nowhere, so that the end of Python does not fail."""
    with suppress(OSError, ValueError):
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, stream.fileno())
        os.close(sink)
