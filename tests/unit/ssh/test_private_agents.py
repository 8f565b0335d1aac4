"""Which private agent a machine's identities go to, and where its socket is."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from dcs_proxy.errors import StateError
from dcs_proxy.names import MachineName
from dcs_proxy.ssh.private_agents import AGENTS, PrivateAgents


def test_a_machine_keeps_its_agent(tmp_path: Path) -> None:
    # Known answers: another version must find what this one has lent.
    agents = PrivateAgents(str(tmp_path))
    assert agents.path(MachineName("dm-foo")) == f"{tmp_path}/sockets/03.sock"
    assert agents.path(MachineName("dm-bar")) == f"{tmp_path}/sockets/08.sock"


def test_a_thousand_machines_are_spread_over_all_agents(tmp_path: Path) -> None:
    agents = PrivateAgents(str(tmp_path))
    counts = Counter(agents.path(MachineName(f"dm-web-{number}")) for number in range(1000))
    assert len(counts) == AGENTS
    assert max(counts.values()) <= 3 * 1000 / AGENTS


def test_sockets_in_a_deep_directory_get_short_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    deep = str(tmp_path / ("d" * 90))
    path = PrivateAgents(deep).path(MachineName("dm-foo"))
    assert len(path) < 100 and path == PrivateAgents(deep).path(MachineName("dm-foo"))
    assert os.stat(os.path.dirname(os.path.dirname(path))).st_mode & 0o777 == 0o700
    assert path != PrivateAgents(f"{deep}2").path(MachineName("dm-foo"))


def test_without_agents_there_are_no_sockets(tmp_path: Path) -> None:
    assert PrivateAgents(str(tmp_path)).paths() == []


def test_a_file_in_the_way_of_the_sockets_is_told(tmp_path: Path) -> None:
    (tmp_path / "sockets").write_text("")
    with pytest.raises(StateError, match="sockets is not a directory"):
        PrivateAgents(str(tmp_path)).paths()
