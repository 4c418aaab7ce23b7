"""Which CryoSPARC answers at an address, before anybody logs in, and whether the installed client can talk to it."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cryosparc_job.credentials import Credentials
from cryosparc_job.errors import ClientError, ServerGone

CLIENT_PACKAGE = "cryosparc-tools"
TIMEOUT_S = 15
_VERSION = re.compile(r"v?(\d+)\.(\d+)(\.\d+)?")
_API = "/api/cmd"


@dataclass(frozen=True)
class Server:
    """What answers: the major version, and the whole version (such as "4.7.1") where it says so without a login."""

    major: int
    version: str | None


def probe(credentials: Credentials) -> Server:
    """Ask an address what it is: 5.x answers with its interface's description, 4.x on the base port plus 2.

    Raises
    ------
    ServerGone
        When no CryoSPARC answers.
    """
    schema = _fetch(urllib.request.Request(f"{credentials.url}{_API}/openapi.json"))
    if isinstance(schema, dict) and "paths" in schema:
        return Server(5, _plain(schema.get("info", {}).get("version")) or _version_of_5(credentials, schema))
    body = json.dumps({"jsonrpc": "2.0", "method": "get_running_version", "params": [], "id": "1"}).encode()
    headers = {"Content-Type": "application/json", "License-ID": credentials.license_id or "", "Originator": "client"}
    core = f"http://{credentials.host}:{credentials.base_port + 2}/api"
    answer = _fetch(urllib.request.Request(core, data=body, headers=headers))
    if answer is not None:
        return Server(4, _plain(answer.get("result")) if isinstance(answer, dict) else None)
    raise ServerGone(
        f"no CryoSPARC answers at {credentials.url} (5.x), nor at port {credentials.base_port + 2} (4.x). "
        "Is it running (cryosparcm status), and can this host reach it? From another host than the master give $url "
        "with its name."
    )


def client_version() -> str:
    """Version of the installed client.

    Raises
    ------
    ClientError
        When it is not installed.
    """
    try:
        return version(CLIENT_PACKAGE)
    except PackageNotFoundError as err:
        raise ClientError(
            f"{CLIENT_PACKAGE} is not installed; install the one of your CryoSPARC's version, "
            f"for CryoSPARC 5.0: {pip_line('5.0')}"
        ) from err


def pip_line(wanted: str) -> str:
    """The command that installs the client for a CryoSPARC of this version."""
    major, minor = _VERSION.match(wanted).groups()[:2]  # type: ignore[union-attr]
    return f"pip install {CLIENT_PACKAGE}~={major}.{minor}.0"


def check_client(credentials: Credentials, server: Server, client: str) -> None:
    """Make sure that client and instance are of the same minor version.

    Raises
    ------
    ClientError
        When they are not; with the command that helps.
    """
    have = _VERSION.match(client)
    found = server.version or f"{server.major}"
    if have is None or have.group(1) != found.split(".")[0]:
        same = False
    else:
        same = server.version is None or have.groups()[:2] == _VERSION.match(server.version).groups()[:2]  # type: ignore[union-attr]
    if same:
        return
    if server.version:
        way_out = pip_line(server.version)
    else:
        way_out = f"pip install '{CLIENT_PACKAGE}>={server.major},<{server.major + 1}' (or of its exact minor version)"
    raise ClientError(
        f"CryoSPARC at {credentials.url} is version {found}, and the installed {CLIENT_PACKAGE} is {client}; "
        f"the first two numbers must be the same: {way_out}"
    )


def _version_of_5(credentials: Credentials, schema: dict[str, Any]) -> str | None:
    """Ask for the version, in case that needs no login."""
    for path, methods in schema["paths"].items():
        if methods.get("get", {}).get("summary") == "config.get_version":
            return _plain(_fetch(urllib.request.Request(f"{credentials.url}{_API}{path}")))
    return None


def _fetch(request: urllib.request.Request) -> Any:
    """The JSON that a request is answered with; {} for another answer, None for no answer."""
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return json.loads(response.read())
    except urllib.error.HTTPError:
        return {}
    except (OSError, http.client.HTTPException):
        return None
    except ValueError:
        return {}


def _plain(text: object) -> str | None:
    """A version without the letter in front; None for what is no version of CryoSPARC."""
    found = _VERSION.match(text) if isinstance(text, str) else None
    return found.group(0).removeprefix("v") if found and int(found.group(1)) >= 4 else None
