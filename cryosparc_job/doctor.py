"""``cryoemmae-cryosparc doctor``: whether this host can pick for a CryoSPARC instance, and if not, why."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryoemmae_plugin.errors import UNSPELLED, CryoemmaeError, render
from cryosparc_job.credentials import Credentials, find_credentials, profile_path
from cryosparc_job.instance import Instance, connect
from cryosparc_job.server_info import Server, check_client, client_version, probe


@dataclass
class Examination:
    """State of the examination: each check builds on the earlier ones."""

    url: str | None
    email: str | None
    profile: str | None
    project: str | None
    credentials: Credentials = field(default_factory=Credentials)
    server: Server | None = None
    instance: Instance | None = None

    def run(self, say: Callable[[str], None]) -> bool:
        """Make the checks, the first that fails ends it; whether all is well."""
        for title, check in (
            ("address", self.check_address),
            ("client", self.check_client),
            ("login", self.check_login),
            ("project", self.check_project),
        ):
            try:
                for line in check():
                    say(f"{title:<8}  {line}")
            except CryoemmaeError as err:
                say(f"{title:<8}  WRONG: {render(err, UNSPELLED)}")
                return False
        return True

    def check_address(self) -> Iterator[str]:
        """Who answers."""
        self.credentials = find_credentials(self.url, self.email, self.profile)
        self.server = probe(self.credentials)
        version = self.server.version or f"{self.server.major} (its minor version shows after the login)"
        yield f"CryoSPARC {version} answers at {self.credentials.url}"

    def check_client(self) -> Iterator[str]:
        """Whether the installed client is of the instance's version."""
        assert self.server is not None
        client = client_version()
        check_client(self.credentials, self.server, client)
        yield f"cryosparc-tools {client} fits"

    def check_login(self) -> Iterator[str]:
        """Whether the user can log in."""
        self.instance = connect(self.credentials)
        self.instance.caller.patience_s = 0
        by = "password" if self.credentials.password else "stored token"
        yield f"{self.instance.user_name()}, by {by}; CryoSPARC {self.instance.version or '?'}"
        if not self.credentials.password:
            yield "a stored token runs out after some days: python -m cryosparc.tools login renews it"
        elif not os.environ.get("CRYOSPARC_PASSWORD"):
            yield f"from {profile_path()}"

    def check_project(self) -> Iterator[str]:
        """Whether the project can be used, and its files can be seen from here."""
        assert self.instance is not None
        if self.project is None:
            yield "not looked at; name one with $project"
            return
        folder = self.instance.project_dir(self.project)
        if not folder.is_dir():
            yield f"{self.project}: access, but its folder {folder} is out of sight from this host"
            yield "micrographs are downloaded one by one, which is slow: mount it here at the same path"
            return
        yield f"{self.project}: access, and its folder {folder} is in sight"
        writable = os.access(folder, os.W_OK)
        yield f"it is {'' if writable else 'not '}writable" + ("" if writable else ": results are kept in your home")
        yield from self._links(folder)

    def _links(self, folder: Path) -> Iterator[str]:
        """Imported micrographs are links to raw data, which must be in sight too."""
        broken = next((link for link in sorted(folder.glob("J*/imported/*"))[:2000] if not link.exists()), None)
        if broken is not None:
            yield f"imported data is out of sight: {broken} points to {broken.readlink()}; mount that here too"
