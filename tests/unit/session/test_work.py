"""What one process does while it works on a machine."""

from __future__ import annotations

import pytest

from dcs_proxy.session.next_step import Half, Situation
from dcs_proxy.session.work import Work
from dcs_proxy.ssh.agent import Agent
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.keys import KeyPair
from dcs_proxy.ssh.user_agent import UserAgent
from tests.unit.session.fakes import NAME, Fakes


class Timed(UserAgent):
    """An agent that notes what it is asked for, and has no room."""

    def __init__(self, path: str) -> None:
        super().__init__({"SSH_AUTH_SOCK": path})
        self.asked: list[tuple[str, int, bool, float]] = []

    def add_key(
        self, key: KeyPair, *, comment: str, lifetime_s: int, may_start: bool, timeout_s: float
    ) -> Agent | None:
        self.asked.append((comment, lifetime_s, may_start, timeout_s))
        return None


@pytest.mark.parametrize(("seconds", "longest"), [(300, 20.0), (5, 5.0)])
def test_an_agent_may_take_twenty_seconds_or_what_is_left(
    fakes: Fakes, seconds: int, longest: float
) -> None:
    agents = Timed(fakes.agent.path)
    situation = Situation(
        half=Half.PREPARE, account="account", agent_place=agents.place, reuse_s=60, may_wake=True,
        started_at=0, now=0,
    )  # fmt: skip
    work = Work(NAME, fakes.context(seconds=seconds, agents=agents), situation)
    assert work.add_key(generate_key(), may_start=True) == ""
    ((comment, lifetime_s, may_start, timeout_s),) = agents.asked
    assert (comment, lifetime_s, may_start) == (NAME, 600, True)
    assert longest - 4 < timeout_s <= longest
