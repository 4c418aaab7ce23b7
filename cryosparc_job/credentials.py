"""Find the address of CryoSPARC and who logs in: from options, environment, a profile file, or the client's token.

Password and licence are no options, since every user of a machine can read command lines. They never appear in the
text of an object.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs
from pydantic_settings import BaseSettings, SettingsConfigDict

from cryoemmae_plugin.files import read_toml
from cryosparc_job.errors import LoginError

DEFAULT_PORT = 39000
PROFILE_VARIABLE = "CRYOEMMAE_CRYOSPARC_PROFILES"
_SECRETS = ("password", "license_id")


class _Environment(BaseSettings):
    """The variables ``CRYOSPARC_BASE_URL``, ``CRYOSPARC_EMAIL`` and so on; an empty one counts as unset."""

    model_config = SettingsConfigDict(env_prefix="CRYOSPARC_", env_ignore_empty=True)

    base_url: str = ""
    master_hostname: str = ""
    base_port: str = ""
    email: str | None = None
    password: str | None = None
    license_id: str | None = None

    def credentials(self) -> Credentials:
        """Return what is set; the address may also be given as host and port."""
        url = self.base_url
        if not url and (self.master_hostname or self.base_port):
            url = f"http://{self.master_hostname or 'localhost'}:{self.base_port or DEFAULT_PORT}"
        return Credentials(complete_url(url) if url else "", self.email, self.password, self.license_id)


@dataclass(frozen=True)
class Credentials:
    """Address and user of a CryoSPARC instance.

    Attributes
    ----------
    url : str
        Address of the interface, such as ``http://localhost:39000``.
    email, password : str or None
        The user's. Without a password, the client uses the token that ``python -m cryosparc.tools login`` stored (5.x).
    license_id : str or None
        The instance's licence, which 4.x needs.
    """

    url: str = ""
    email: str | None = None
    password: str | None = field(default=None, repr=False)
    license_id: str | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        """Host of the address."""
        return urlsplit(self.url).hostname or "localhost"

    @property
    def base_port(self) -> int:
        """Port of the address."""
        split = urlsplit(self.url)
        return split.port or (443 if split.scheme == "https" else DEFAULT_PORT)

    def hide(self, text: str) -> str:
        """Return `text` with password and licence masked."""
        for name in _SECRETS:
            secret = getattr(self, name)
            text = text.replace(secret, "***") if secret else text
        return text


def profile_path() -> Path:
    """Return the path of the file with profiles."""
    named = os.environ.get(PROFILE_VARIABLE)
    return Path(named) if named else Path(platformdirs.user_config_dir("cryoemmae")) / "cryosparc.toml"


def find_credentials(
    url: str | None = None,
    email: str | None = None,
    profile: str | None = None,
) -> Credentials:
    """Collect address and account from several sources.

    The order is: what is given here, the profile with the given name, the environment, the profile ``default``.

    Raises
    ------
    LoginError
        When there is no address, or the profile cannot be used.
    """
    sources = [Credentials(url=complete_url(url) if url else "", email=email)]
    if profile is not None:
        sources.append(_read_profile(profile_path(), profile))
    sources.append(_Environment().credentials())
    if profile is None and profile_path().is_file():
        sources.append(_read_profile(profile_path(), "default"))
    credentials = Credentials()
    for source in sources:
        missing = {f.name: getattr(source, f.name) for f in fields(Credentials) if not getattr(credentials, f.name)}
        credentials = replace(credentials, **missing)
    if not credentials.url:
        raise LoginError(
            "no address of CryoSPARC: give $url=http://HOST:39000, set CRYOSPARC_BASE_URL "
            f"(or CRYOSPARC_MASTER_HOSTNAME and CRYOSPARC_BASE_PORT), or write a profile into {profile_path()}"
        )
    return credentials


def complete_url(text: str) -> str:
    """Return an address with its scheme and without a slash at its end.

    Raises
    ------
    LoginError
        When it is not an address.
    """
    url = (text if "://" in text else f"http://{text}").rstrip("/")
    try:
        split = urlsplit(url)
        good = split.scheme in ("http", "https") and bool(split.hostname) and split.port != 0 and not split.query
    except ValueError:
        good = False
    if not good or split.username or split.password:
        raise LoginError("the address of CryoSPARC must look like http://HOST:39000 (without user and password in it)")
    return url


def _read_profile(path: Path, name: str) -> Credentials:
    """Read one table of the profile file."""
    try:
        content = read_toml(path)
    except FileNotFoundError as err:
        raise LoginError(f"{path}: no such file; write a profile [{name}] with url and email into it") from err
    except (OSError, ValueError, RecursionError) as err:
        line = getattr(err, "lineno", None)
        where = f" (line {line})" if line else ""
        raise LoginError(f"{path}: cannot be read as TOML{where}; see docs/cryosparc.md for an example") from None
    table = content.get(name)
    if table is None and name == "default":
        return Credentials()
    if not isinstance(table, dict):
        raise LoginError(f"{path}: no profile [{name}]; there are: {', '.join(content) or 'none'}")
    unknown = set(table) - {f.name for f in fields(Credentials)}
    if unknown or not all(isinstance(value, str) for value in table.values()):
        raise LoginError(f"{path}: [{name}] may have url, email, password and license_id, all in quotes")
    _check_permissions(path, table)
    try:
        values: dict[str, Any] = {**table, "url": complete_url(table["url"]) if table.get("url") else ""}
    except LoginError as err:
        raise LoginError(f"{path}: [{name}]: {err}") from err
    return Credentials(**values)


def _check_permissions(path: Path, table: Mapping[str, str]) -> None:
    """Refuse a file with secrets that other users may read."""
    if os.name == "posix" and any(table.get(name) for name in _SECRETS):
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise LoginError(
                f"{path}: other users may read it, and it holds a password or licence; run: chmod 600 {path}"
            )
