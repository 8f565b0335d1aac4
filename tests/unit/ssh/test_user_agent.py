from __future__ import annotations

import os
from pathlib import Path

import pytest

from dcs_proxy.errors import AgentUnavailable
from dcs_proxy.local.log import Log
from dcs_proxy.ssh.keys import KeyPair
from dcs_proxy.ssh.user_agent import UserAgent
from tests.support.fake_agent import Store, fake_agent


def test_without_a_socket_there_is_no_agent() -> None:
    for environment in ({}, {"SSH_AUTH_SOCK": ""}):
        with pytest.raises(AgentUnavailable, match="SSH_AUTH_SOCK is not set") as caught:
            UserAgent(environment)
        assert "remove that line to use the private one" in caught.value.hint


def test_gpg_agent_is_refused_by_whatever_name_it_is_reached(tmp_path: Path) -> None:
    link = tmp_path / "agent.sock"
    link.symlink_to(tmp_path / "S.gpg-agent.ssh")
    for path in (str(link), os.readlink(link)):
        with pytest.raises(AgentUnavailable, match="gpg-agent's, which stores every key") as caught:
            UserAgent({"SSH_AUTH_SOCK": path})
        assert caught.value.hint.startswith('remove agent = "user"')


def test_keys_go_into_the_users_agent() -> None:
    with fake_agent() as fake:
        fake.answer = store = Store()
        agents = UserAgent({"SSH_AUTH_SOCK": fake.path})
        agents.check()
        key = KeyPair(bytes(32), bytes(range(32)))
        agent = agents.add_key(key, comment="dm-foo", lifetime_s=9, may_start=False, timeout_s=60)
        assert agent.path == agents.place == fake.path
        assert store.held == {key.blob: b"dm-foo"}


def test_the_users_agent_gets_the_time_that_is_left(tmp_path: Path) -> None:
    agents = UserAgent({"SSH_AUTH_SOCK": "/agent.sock"}, log := Log(str(tmp_path / "log")))
    agent = agents.ready(timeout_s=1.5)
    assert (agent.path, agent._timeout_s, agent._log) == ("/agent.sock", 1.5, log)
