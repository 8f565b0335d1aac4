"""What the checks share."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.api.credentials import Credentials
from dcs_proxy.app import Options
from dcs_proxy.doctor import context as module
from dcs_proxy.doctor.context import Context
from dcs_proxy.errors import CredentialsError
from dcs_proxy.local.http_proxy import HttpProxy
from dcs_proxy.local.programs import Output
from dcs_proxy.local.settings import Settings
from dcs_proxy.openssh.version import Client, Version


def test_every_secret_is_known_wherever_it_was_found(tmp_path: Path) -> None:
    environment = {
        "DEDALUS_API_KEY": " dsk-1\n",
        "DEDALUS_X_API_KEY": "dsk-2",
        "DEDALUS_BASE_URL": "https://me:dsk-3@api.example",
        "all_proxy": "http://me:dsk-4@proxy.example",
        "HTTPS_PROXY": "http://me:dsk-5@proxy.example",
    }
    context = Context(Options(str(tmp_path)), environment, "/c", False, None)
    assert {f"dsk-{number}" for number in range(1, 6)} <= context.secrets()
    context.credentials = Credentials("dsk-6", "dsk-7", "elsewhere")
    key_file = tmp_path / "key"
    key_file.write_text("dsk-8\n")
    proxy = HttpProxy("proxy.example", 3128, "me", "dsk-9")
    context.settings = Settings(key_file=str(key_file), proxy=proxy)
    sent = base64.b64encode(b"me:dsk-9").decode()
    assert {*(f"dsk-{number}" for number in range(1, 10)), sent} <= context.secrets()


def test_the_ssh_that_doctor_starts_has_no_key_of_its_environment(tmp_path: Path) -> None:
    environment = {"DEDALUS_API_KEY": "dsk-1", "DEDALUS_X_API_KEY": "dsk-2", "HOME": str(tmp_path)}
    key_file = tmp_path / "key"
    made = Context(Options(str(tmp_path / "state")), environment, "/c", False, None)
    made.settings = Settings(key_file=str(key_file), reuse_seconds=7)
    with pytest.raises(CredentialsError, match="there is no API key"):
        made.open_session_context_of_ssh().open_api()
    key_file.write_text("dsk-3\n")
    key_file.chmod(0o600)
    context = made.open_session_context_of_ssh()
    context.open_api()
    assert context.settings.reuse_seconds == 7


OUTPUT = b"user me\nport 22\nsendenv A\nsendenv B C\npubkeyauthentication true\nbatchmode false\n"


@pytest.mark.parametrize("is_default", [True, False])
def test_options_are_read_from_the_users_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_default: bool
) -> None:
    environment = {"HOME": str(tmp_path)}
    made = Context(Options(str(tmp_path)), environment, "/my/config", is_default, None)
    made.ssh = Client("/usr/bin/ssh", "OpenSSH_9.2p1", Version(9, 2))
    results: list[Output | Exception] = [
        Output(0, OUTPUT, b"a warning"), Output(255, OUTPUT, b"Bad option"), TimeoutError()
    ]  # fmt: skip

    def run(command: list[str], *, environment: object, limit_s: float) -> Output:
        file = [] if is_default else ["-F", "/my/config"]
        assert command == ["/usr/bin/ssh", *file, "-G", "dm-foo"]
        assert (environment, limit_s) == (made.environment, 30)
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(module, "run", run)
    options = {
        "user": ["me"], "port": ["22"], "sendenv": ["A", "B C"], "pubkeyauthentication": ["yes"],
        "batchmode": ["no"],
    }  # fmt: skip
    assert made.read_options("dm-foo") == (options, "a warning")
    assert made.read_options("dm-foo") == ({}, "Bad option")
    assert made.read_options("dm-foo") == ({}, "no answer after 30 s")


def test_only_urls_are_searched_for_passwords(tmp_path: Path) -> None:
    environment = {"OTHER": "http://me:word@x", "DEDALUS_API_KEY": ""}
    made = Context(Options(str(tmp_path)), environment, "/c", False, None)
    assert "word" not in made.secrets()
    made.settings = Settings(key_file=str(tmp_path / "none"))
    made.credentials = Credentials(None, None, "")
    assert made.secrets() == {""}


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_a_key_in_a_file_of_any_mode_and_bytes_is_masked(tmp_path: Path, mode: int) -> None:
    key_file = tmp_path / "key"
    key_file.write_bytes(b"dsk-\xff1\n")
    key_file.chmod(mode)
    made = Context(Options(str(tmp_path)), {}, "/c", False, None)
    made.settings = Settings(key_file=str(key_file))
    assert "dsk-\ufffd1" in made.secrets()


@pytest.mark.parametrize(("verbose", "option"), [(True, "-vG"), (False, "-G")])
def test_what_ssh_prints_may_be_any_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verbose: bool, option: str
) -> None:
    made = Context(Options(str(tmp_path)), {}, "/c", True, None)
    made.ssh = Client("/usr/bin/ssh", "OpenSSH_9.2p1", Version(9, 2))
    commands = []

    def run(command: list[str], **_: object) -> Output:
        commands.append(command)
        return Output(0, b"user \xff\n", b"\xfe")

    monkeypatch.setattr(module, "run", run)
    assert made.read_options("dm-foo", verbose=verbose) == ({"user": ["\ufffd"]}, "\ufffd")
    assert commands == [["/usr/bin/ssh", option, "dm-foo"]]


def test_the_log_and_the_api_are_those_of_the_settings(tmp_path: Path) -> None:
    made = Context(Options(str(tmp_path)), {"A": "b"}, "/c", False, None)
    assert made.log.path == str(tmp_path / "log")
    made.settings = Settings(org_id="org-1")
    factory = made.open_factory()
    assert (factory.settings, factory.log.path) == (made.settings, made.log.path)


def test_a_session_is_always_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(module, "open_context", lambda *a, **more: calls.append((*a, more)))
    made = Context(Options(str(tmp_path)), {"A": "b"}, "/c", False, None)
    made.settings = Settings(reuse_seconds=60, wake_seconds=7)
    made.open_session_context()
    ((options, environment, gone, more),) = calls
    assert (options, environment, gone()) == (made.options, made.environment, False)
    assert more == {"settings": Settings(reuse_seconds=0, wake_seconds=7)}


def test_a_value_that_no_check_has_found_is_a_bug_of_ours() -> None:
    assert module.required("") == ""
    with pytest.raises(ValueError, match="before one that it needs"):
        module.required(None)
