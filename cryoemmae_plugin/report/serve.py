"""Show a report over HTTP, for ``ssh -L``: on this computer, to those who know the address, and nothing else."""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryoemmae_plugin.errors import CryoemmaeError
from cryoemmae_plugin.report.writer import REPORT_FOLDER, draw_one, key_of, write_report
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.run.summary import saved_selection

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
MIME_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".jpg": "image/jpeg",
    ".txt": "text/plain; charset=utf-8",
}
_KEY = "[0-9a-f]{12}"
SERVED = re.compile(
    rf"index\.html|assets/[A-Za-z][A-Za-z.-]*|data/(run|scores)\.js|micrographs/{_KEY}\.js"
    rf"|pictures/{_KEY}(-denoised|-small)?\.jpg|averages/\d{{1,3}}\.jpg"
)
"""Names in the report's folder that are served; no other file is reachable."""
_HOSTS = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")

DrawMissing = Callable[[str], None]
"""Draws the pictures of the micrograph with this key, if it can."""


class ReportServer(ThreadingHTTPServer):
    """Serves the report in one folder under an address with a secret in it.

    Parameters
    ----------
    port : int
        0 for any that is free.
    draw_missing : callable
        Called with the key of a micrograph whose picture is asked for and missing.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0, draw_missing: DrawMissing = lambda key: None) -> None:
        self.folder, self.draw_missing = folder.resolve(), draw_missing
        self.token = secrets.token_urlsafe(24)
        self.drawing = threading.Lock()
        super().__init__((HOST, port), _Handler)

    @property
    def address(self) -> str:
        """Where to look."""
        return f"http://{HOST}:{self.server_address[1]}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer
    server_version, sys_version = "cryoemmae", ""
    timeout = 30

    def do_GET(self) -> None:
        """Answer with a file of the report."""
        path = self._wanted()
        if path is None:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"Not found\n")
        else:
            self._answer(HTTPStatus.OK, MIME_TYPES.get(path.suffix, "application/octet-stream"), path.read_bytes())

    do_HEAD = do_GET  # noqa: N815

    def _wanted(self) -> Path | None:
        """The file that is asked for, where it may be served."""
        if not _HOSTS.fullmatch(self.headers.get("Host", "")):  # a foreign name that leads here
            return None
        token, slash, name = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not slash or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            return None
        name = name or "index.html"
        if not SERVED.fullmatch(name):
            return None
        path = self.server.folder / name
        if not path.is_file() and name.startswith("pictures/"):
            with self.server.drawing:
                if not path.is_file():
                    self.server.draw_missing(path.stem.partition("-")[0])
        return path if path.is_file() and path.resolve() == path else None  # no link leads out

    def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal is for the address."""


def serve_report(folder: Path, port: int = 0) -> ReportServer:
    """Make the server of a run's report, which is written first where it is missing.

    Raises
    ------
    StoreError
        When the folder is no result folder, or a run is working in it and there is no report yet.
    OSError
        When the port is taken.
    """
    store, report = ResultStore.open(folder), folder / REPORT_FOLDER
    if not (report / "data" / "run.js").is_file():
        with store:
            write_report(store)
    selection = saved_selection(folder, store.record)
    uids = {key_of(uid): uid for uid in store.uids()}

    def draw_missing(key: str) -> None:
        if key in uids:
            try:
                draw_one(store, selection, report, uids[key])
            except CryoemmaeError as err:
                logger.warning("No picture: %s", err)

    return ReportServer(report, port, draw_missing)
