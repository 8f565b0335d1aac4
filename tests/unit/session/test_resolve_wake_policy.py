"""wake = "never": what may be used, and what is refused."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from dcs_proxy.errors import ClientGone, MachineNotFound, NotWoken
from tests.unit.session.fakes import Stage


def never(stage: Stage) -> Stage:
    stage.settings = replace(stage.settings, wake=(("*", "never"),))
    return stage


@pytest.mark.parametrize("phase", ["running", "starting", "accepted"])
def test_a_machine_that_is_awake_is_used_under_never(stage: Stage, phase: str) -> None:
    stage.plane.phase = phase
    assert never(stage).resolve().ready
    assert [method for method, _ in stage.plane.journal] == ["LOOK", "POST"]


def test_always_does_not_look_at_the_machine(stage: Stage) -> None:
    stage.plane.phase = "sleeping"
    assert stage.resolve().ready
    assert stage.plane.count("LOOK") == 0


@pytest.mark.parametrize(
    ("phase", "said"),
    [("sleeping", "asleep"), ("stopping",) * 2, ("failed",) * 2, ("hibernating",) * 2],
)
def test_a_machine_that_is_not_awake_stays_so_with_the_command_to_wake_it(
    stage: Stage, phase: str, said: str
) -> None:
    stage.plane.phase = phase
    stage.agent.path = "/none.sock"  # it is not even started
    for number in range(5):
        with pytest.raises(NotWoken) as caught:
            never(stage).resolve(client=f"{number}:1")
        assert caught.value.lines() == [
            f'dcs-proxy: dm-foo: the machine is {said}, and wake = "never" forbids waking it',
            "dcs-proxy: hint: to wake it: dcs-proxy wake dm-foo, "
            "or DCS_PROXY_WAKE=always ssh dm-foo",
        ]
        assert caught.value.exit_code == 17
    assert {method for method, _ in stage.plane.journal} == {"LOOK"}


def test_of_a_machine_that_is_destroyed_the_api_speaks(stage: Stage) -> None:
    stage.plane.phase = "destroyed"
    stage.plane.statuses = [MachineNotFound("gone")]
    with pytest.raises(MachineNotFound):
        never(stage).resolve()


def test_a_recently_confirmed_session_is_used_under_never(stage: Stage) -> None:
    first = stage.resolve()
    stage.plane.phase = "sleeping"
    assert never(stage).resolve() == first
    assert stage.plane.count("LOOK") == 0
    stage.now = lambda: time.time() + 61
    with pytest.raises(NotWoken):
        stage.resolve()
    assert stage.plane.count("GET") == 0


def test_a_wake_under_way_is_resumed_under_never(stage: Stage) -> None:
    stage.plane.statuses = ["wake_in_progress", ClientGone("gone"), "ready"]
    with pytest.raises(ClientGone):
        stage.resolve()
    stage.plane.phase = "starting"
    assert never(stage).resolve(client="2:2").ready
    assert len(stage.plane.keys) == 1
