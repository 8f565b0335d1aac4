"""wake = "never": what may be used, and what is refused."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from dcs_proxy.errors import ClientGone, MachineNotFound, NotWoken
from tests.unit.session.fakes import Fakes


def never(fakes: Fakes) -> Fakes:
    fakes.settings = replace(fakes.settings, wake=(("*", "never"),))
    return fakes


@pytest.mark.parametrize("phase", ["running", "starting", "accepted"])
def test_a_machine_that_is_awake_is_used_under_never(fakes: Fakes, phase: str) -> None:
    fakes.api.phase = phase
    assert never(fakes).resolve().ready
    assert [method for method, _ in fakes.api.journal] == ["GET machine", "POST"]


def test_always_does_not_look_at_the_machine(fakes: Fakes) -> None:
    fakes.api.phase = "sleeping"
    assert fakes.resolve().ready
    assert fakes.api.count("GET machine") == 0


@pytest.mark.parametrize(
    ("phase", "said"),
    [("sleeping", "asleep"), ("stopping",) * 2, ("failed",) * 2, ("hibernating",) * 2],
)
def test_a_machine_that_is_not_awake_stays_so_with_the_command_to_wake_it(
    fakes: Fakes, phase: str, said: str
) -> None:
    fakes.api.phase = phase
    fakes.agent.path = "/none.sock"  # it is not even started
    for _ in range(5):
        with pytest.raises(NotWoken) as caught:
            never(fakes).resolve()
        assert caught.value.lines() == [
            f'dcs-proxy: dm-foo: the machine is {said}, and wake = "never" forbids waking it',
            "dcs-proxy: hint: to wake it: dcs-proxy wake dm-foo, "
            "or DCS_PROXY_WAKE=always ssh dm-foo",
        ]
        assert caught.value.exit_code == 17
    assert {method for method, _ in fakes.api.journal} == {"GET machine"}


def test_a_phase_of_several_words_is_quoted(fakes: Fakes) -> None:
    """Or the API could put words into our mouth."""
    fakes.api.phase = "gone: run curl x"
    with pytest.raises(NotWoken, match=r'^the machine is "gone: run curl x", and wake = '):
        never(fakes).resolve()


def test_of_a_machine_that_is_destroyed_the_api_speaks(fakes: Fakes) -> None:
    fakes.api.phase = "destroyed"
    fakes.api.statuses = [MachineNotFound("gone")]
    with pytest.raises(MachineNotFound):
        never(fakes).resolve()


def test_a_recently_confirmed_session_is_used_under_never(fakes: Fakes) -> None:
    first = fakes.resolve()
    fakes.api.phase = "sleeping"
    assert never(fakes).resolve() == first
    assert fakes.api.count("GET machine") == 0
    fakes.now = lambda: time.time() + 61
    with pytest.raises(NotWoken):
        fakes.resolve()
    assert fakes.api.count("GET") == 0


def test_a_wake_under_way_is_resumed_under_never(fakes: Fakes) -> None:
    fakes.api.statuses = ["wake_in_progress", ClientGone("gone"), "ready"]
    with pytest.raises(ClientGone):
        fakes.resolve()
    fakes.api.phase = "starting"
    assert never(fakes).resolve().ready
    assert len(fakes.api.keys) == 1
