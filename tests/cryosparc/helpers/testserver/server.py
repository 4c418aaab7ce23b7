"""The stand-in on a socket of this machine."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import uvicorn

HOST = "127.0.0.1"


class Listener:
    """An application that answers on a port, until it is stopped; it can come back on the same one."""

    def __init__(self, app: Any, port: int) -> None:
        self._app, self.port = app, port
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        config = uvicorn.Config(
            self._app, host=HOST, port=self.port, log_level="critical", lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        until = time.monotonic() + 30
        while not self._server.started:
            assert self._thread.is_alive(), f"no server on port {self.port}"
            assert time.monotonic() < until, "the server does not start"
            time.sleep(0.01)

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(30)
            self._server = self._thread = None


def free_port(offsets: tuple[int, ...] = (0,)) -> int:
    """A port that is free, and so are those at these distances from it."""
    for _ in range(200):
        with socket.socket() as first:
            first.bind((HOST, 0))
            base = first.getsockname()[1]
        if base + max(offsets) < 65000 and all(_is_free(base + offset) for offset in offsets):
            return base
    raise RuntimeError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind((HOST, port))
        except OSError:
            return False
    return True
