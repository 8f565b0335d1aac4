from __future__ import annotations

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
