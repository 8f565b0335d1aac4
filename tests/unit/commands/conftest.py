"""A user whose commands run in this process, and whose account a fake API has."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy import cli
from dcs_proxy.api.client import account
from dcs_proxy.commands import login, logout, uninstall
from dcs_proxy.errors import CredentialsError
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import Attempt, ReadySession, Record
from tests.support.fake_agent import socket_directory
from tests.support.fake_api import Answer, FakeApi, fake_api

# A day after all tests.
LATER = time.time() + 86400
READY = ReadySession("ssh.example", 22, "me", "a", "", True, LATER, LATER - 90000, LATER - 86400)
# Variables that would lead a command elsewhere.
_OTHERS = (
    "DCS_PROXY_HOME", "DCS_PROXY_CONFIG", "DCS_PROXY_LOG", "DEDALUS_X_API_KEY", "DEDALUS_ORG_ID",
    "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "SSH_AUTH_SOCK",
)  # fmt: skip


@dataclass(frozen=True)
class Done:
    """What a command has done: its exit code, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str


class Commands:
    """Runs commands of a user whose home directory is `home`."""

    def __init__(self, home: Path, api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.api = api
        self._capsys = capsys

    def __call__(self, *words: str) -> Done:
        self.shown()
        code = cli.main(words)
        return replace(self.shown(), code=code)

    def shown(self) -> Done:
        """Return what has been written since a command last ended; its code is 0."""
        out, err = self._capsys.readouterr()
        return Done(0, out, err)

    def save(self, name: str, *, agent: str = "", ready: ReadySession | None = None) -> Record:
        """Write the record of a session "wssh-NAME" of this account, and return it."""
        attempt = Attempt("k", "ab" * 32, agent, LATER, self.account, f"wssh-{name}")
        record = Record(attempt, ready)
        self.state.save(MachineName(name), record)
        return record

    @property
    def state(self) -> StateDirectory:
        return StateDirectory(str(self.home / ".ssh" / "dcs-proxy"))

    @property
    def account(self) -> str:
        """The account as a session's record names it."""
        return account(Settings(base_url=self.api.url))

    def configure(self, text: str) -> None:
        """Write the config file."""
        path = self.home / ".config" / "dcs-proxy" / "config.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def has(self, *machines: str | dict[str, Any]) -> None:
        """Let the account have these machines: ids, or objects as the API sends them."""
        items = [{"machine_id": m, "phase": "running"} if isinstance(m, str) else m
                 for m in machines]  # fmt: skip
        self.api.answers = [Answer(200, {"items": items, "next_cursor": None})]


@pytest.fixture
def commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Commands]:
    """A user with an API key, and no machines yet."""
    for name in _OTHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DEDALUS_API_KEY", "dsk-key")
    with fake_api() as api, socket_directory() as home:
        (Path(home) / ".ssh").mkdir(mode=0o700)
        monkeypatch.setenv("HOME", home)
        monkeypatch.setenv("DEDALUS_BASE_URL", api.url)
        found = Commands(Path(home), api, capsys)
        found.has()
        yield found


class Keyring:
    """Stands for the system keyring; `key` is the entry of the base URL."""

    def __init__(self) -> None:
        self.key: str | None = None
        self.problem: CredentialsError | None = None
        self.calls: list[str] = []

    def _ask(self, call: str) -> None:
        self.calls.append(call)
        if self.problem is not None:
            raise self.problem

    def name(self) -> str:
        self._ask("name")
        return "Fake"

    def read(self) -> str | None:
        self._ask("read")
        return self.key

    def store(self, key: str) -> str:
        self._ask("store")
        self.key = key
        return "Fake"

    def remove(self) -> bool:
        self._ask("remove")
        existed, self.key = self.key is not None, None
        return existed


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> Keyring:
    """The system keyring of every command."""
    found = Keyring()
    for module in (login, logout, uninstall):
        monkeypatch.setattr(module, "open_keyring", lambda settings, environment: (
            found if isinstance(settings, Settings) and environment is os.environ else None
        ))  # fmt: skip
    return found
