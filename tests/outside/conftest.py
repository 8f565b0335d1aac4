"""Fixtures: those of the integration tests, and a real ssh-agent."""

from collections.abc import Iterator

import pytest

from dcs_proxy.ssh.agent import Agent
from tests.integration.conftest import ids, make_user, start_emulator, user
from tests.outside.openssh import openssh_agent

__all__ = ["agent", "ids", "make_user", "start_emulator", "user"]


@pytest.fixture
def agent() -> Iterator[Agent]:
    """Our client of an ssh-agent that holds nothing."""
    with openssh_agent() as path:
        yield Agent(path)
