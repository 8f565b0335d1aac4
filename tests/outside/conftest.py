"""A real ssh-agent."""

from collections.abc import Iterator

import pytest

from dcs_proxy.ssh.agent import Agent
from tests.support.openssh import openssh_agent


@pytest.fixture
def agent() -> Iterator[Agent]:
    """Our client of an ssh-agent that holds nothing."""
    with openssh_agent() as path:
        yield Agent(path)
