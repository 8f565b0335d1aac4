from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.app import Options
from dcs_proxy.commands import uninstall
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.ssh.private_agents import PrivateAgents
from tests.support.fake_api import Answer, fake_api


class Agents(PrivateAgents):
    """Two agents, of which the second does not end."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def paths(self) -> list[str]:
        return ["/a/agent-1.sock", "/a/agent-2.sock"]

    def end(self, **options: Any) -> list[str]:
        self.calls.append(options)
        return ["/a/agent-2.sock"]


def test_agents_are_ended_whether_or_not_they_hold_keys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    agents = Agents()
    uninstall._end_agents(agents)
    assert agents.calls == [{"unless_used": False, "timeout_s": 30}]
    assert capsys.readouterr().out.splitlines() == [
        "dcs-proxy: 1 private agents ended",
        "dcs-proxy: left: the agents at /a/agent-2.sock, which did not end",
    ]


@pytest.mark.parametrize("agreed", [True, False])
def test_what_the_user_has_typed_in_goes_only_with_consent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agreed: bool
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(uninstall, "confirm", lambda question: False)
    directory = tmp_path / "dcs-proxy"
    directory.mkdir()
    for name in ("config.toml", "api-key"):
        (directory / name).write_text("content")
        os.link(directory / name, tmp_path / f"{name}.other")
    uninstall._remove_choices(None, agreed=agreed)
    assert directory.exists() is not agreed
    # The key must not stay anywhere (api/credentials.py); other files keep their other names.
    assert (tmp_path / "api-key.other").read_text() == ("" if agreed else "content")
    assert (tmp_path / "config.toml.other").read_text() == "content"


class Sessions:
    """Stands for the state directory: two sessions, whose records cannot be read."""

    def machines(self) -> list[MachineName]:
        return [MachineName("dm-a"), MachineName("dm-b")]

    def load(self, name: MachineName) -> None:
        return None


def test_a_key_that_the_api_refuses_is_said_once_for_all_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEDALUS_API_KEY", "dsk-old")
    monkeypatch.delenv("DEDALUS_X_API_KEY", raising=False)
    sessions: Any = Sessions()
    with fake_api() as fake:
        fake.answers = [Answer(401)]
        settings = Settings(base_url=fake.url)
        uninstall._close_sessions(sessions, Agents(), settings, Options(str(tmp_path)))
    assert len(fake.asked) == 1
    assert capsys.readouterr() == (
        "dcs-proxy: 2 sessions were not closed at the API and will expire "
        "(the API does not accept the key from DEDALUS_API_KEY: HTTP 401)\n",
        "",
    )
