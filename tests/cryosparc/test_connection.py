"""Address, account, version: found where they are, checked before anything is done, and secrets stay secret."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testserver.state import EMAIL, LICENSE, PASSWORD

from cryosparc_job import cli
from cryosparc_job.credentials import Credentials, find_credentials
from cryosparc_job.errors import ClientError, LoginError, ServerGone
from cryosparc_job.instance import connect


def write_profile(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cryosparc.toml"
    monkeypatch.setenv("CRYOEMMAE_CRYOSPARC_PROFILES", str(path))
    return path


def test_what_is_given_wins_over_environment_and_profile(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_profile(profiles, '[default]\nurl = "http://c:1"\nemail = "c@c"\npassword = "c"\nlicense_id = "l"\n')
    assert find_credentials() == Credentials("http://c:1", "c@c", "c", "l")
    monkeypatch.setenv("CRYOSPARC_BASE_URL", "http://b:2/")
    monkeypatch.setenv("CRYOSPARC_EMAIL", "b@b")
    monkeypatch.setenv("CRYOSPARC_PASSWORD", "")
    assert find_credentials("a:3") == Credentials("http://a:3", "b@b", "c", "l")
    assert find_credentials(None, "a@a") == Credentials("http://b:2", "a@a", "c", "l")
    assert find_credentials(profile="default").url == "http://c:1"


def test_host_and_port_make_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LoginError, match="give url="):
        find_credentials()
    monkeypatch.setenv("CRYOSPARC_MASTER_HOSTNAME", "master")
    monkeypatch.setenv("CRYOSPARC_BASE_PORT", "61000")
    credentials = find_credentials()
    assert (credentials.url, credentials.host, credentials.base_port) == ("http://master:61000", "master", 61000)


@pytest.mark.parametrize("url", ["http://", "ftp://a", "http://a:b", "http://user:secret@a:39000"])
def test_addresses_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(LoginError, match="must look like") as caught:
        find_credentials(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ('[lab]\nurl = "a"\npassword = "geheim"\n', 0o640, "chmod 600"),
        ('[lab]\nurl = "a"\npasswort = "geheim"\n', 0o600, "url, email, password"),
        ('[lab]\nurl = "a"\npassword = geheim\n', 0o600, "TOML"),
        ('[other]\nurl = "a"\n', 0o600, r"no profile \[lab\]"),
    ],
)
def test_profiles_that_cannot_be_used_say_why(profiles: Path, text: str, mode: int, words: str) -> None:
    write_profile(profiles, text, mode)
    with pytest.raises(LoginError, match=words) as caught:
        find_credentials(profile="lab")
    assert "geheim" not in "".join(traceback.format_exception(caught.value))


def test_secrets_are_not_in_an_accounts_text(world: Any) -> None:
    assert PASSWORD not in repr(world.credentials())
    assert LICENSE not in repr(world.credentials())
    assert PASSWORD not in repr(world.connect())


def test_a_wrong_password_is_told_without_it(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "-".join(("wr0ng", "password"))  # a traceback quotes these lines
    with pytest.raises(LoginError, match=f"login as {EMAIL}.*was refused") as caught:
        world.connect(password=wrong)
    assert wrong not in "".join(traceback.format_exception(caught.value)) + caplog.text


def test_a_stored_token_is_enough(world: Any) -> None:
    import datetime

    from cryosparc.auth import InstanceAuthSessions, get_default_auth_config_path
    from cryosparc.models.auth import Token
    from testserver.api5 import TOKEN

    with pytest.raises(LoginError, match=r"cryosparc\.tools login"):
        world.connect(password=None)
    get_default_auth_config_path.cache_clear()
    sessions = InstanceAuthSessions({})
    expires = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
    sessions.insert(world.url, EMAIL, Token(access_token=TOKEN, token_type="bearer"), expires)
    sessions.save()
    try:
        assert world.connect(password=None, email=None).cs.user.name == "ada"
    finally:
        get_default_auth_config_path.cache_clear()


def test_nobody_at_the_address_is_told(world: Any) -> None:
    world.stop()
    with pytest.raises(ServerGone, match=r"no CryoSPARC answers at http://127.0.0.1:.*cryosparcm status"):
        world.connect()


@pytest.mark.parametrize("tells", [True, False])
def test_another_minor_version_names_the_line_to_install(make_world: Callable[..., Any], tells: bool) -> None:
    world = make_world("5.1.2", tells_version=tells)
    with pytest.raises(ClientError, match=r"version 5\.1\.2.*pip install cryosparc-tools~=5\.1\.0"):
        world.connect()


def test_an_older_instance_names_the_line_to_install(make_world: Callable[..., Any]) -> None:
    world = make_world("4.7.1")
    with pytest.raises(ClientError, match=r"version 4\.7\.1.*pip install cryosparc-tools~=4\.7\.0"):
        world.connect()
    with pytest.raises(ClientError, match=r"'cryosparc-tools>=4,<5'"):
        world.connect(license_id=None)


def test_a_missing_client_names_the_line_to_install(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryosparc_job.server_info.CLIENT_PACKAGE", "no-such-package")
    with pytest.raises(ClientError, match="is not installed"):
        connect(world.credentials())


def doctor(world: Any, monkeypatch: pytest.MonkeyPatch, *options: str, **more: str) -> int:
    for name, value in world.environment(**more).items():
        if name.startswith("CRYOSPARC_"):
            monkeypatch.setenv(name, value)
    return cli.main(["doctor", *options])


def test_doctor_finds_all_well(world: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(world, monkeypatch, "--project", "P3") == 0
    said = capsys.readouterr().out
    for words in ("CryoSPARC 5.0.3 answers", "cryosparc-tools 5.0", EMAIL, "in sight", "All is well"):
        assert words in said
    assert PASSWORD not in said


def test_doctor_says_what_is_wrong(
    world: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(world, monkeypatch, "--project", "P9") == 1
    assert "project   WRONG: folder of project P9" in capsys.readouterr().out
    assert doctor(world, monkeypatch, CRYOSPARC_PASSWORD="wr0ng") == 1
    assert "login     WRONG: login as" in capsys.readouterr().out
    world.state.advertised["P3"] = Path("/nowhere/on/this/host")
    assert doctor(world, monkeypatch, "--project", "P3") == 0
    assert "out of sight" in capsys.readouterr().out
    world.state.advertised.clear()
    link = world.project / "J1" / "imported" / "mic.mrc"
    link.parent.mkdir(parents=True)
    link.symlink_to("/raw/data/mic.mrc")
    assert doctor(world, monkeypatch, "--project", "P3") == 0
    assert "points to /raw/data/mic.mrc" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pick --project P3 --workspace W1 --exposures J2.exposures", "diameter"),
        ("pick --project P3 --workspace W1 --exposures J2.exposures --diameter 0", "diameter"),
        ("pick --project P3 --workspace W1 --exposures J2.exposures --diameter 9 --password x", "password"),
        ("repick --project P3", "--all-exposures"),
        ("pickk", "pickk"),
    ],
)
def test_wrong_command_lines_say_what_is_wrong(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(line.split()) == 2
    assert words in capsys.readouterr().err
