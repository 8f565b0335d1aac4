from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.commands import uninstall
from dcs_proxy.ssh.private_agents import PrivateAgents


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
