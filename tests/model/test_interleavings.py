"""Single stories that the state machine has found, kept for their order of events."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dcs_proxy.session.next_step import Half
from tests.model.computer import NAME, Computer
from tests.model.process import Ask, AskAgent, Killed, Process, Sleep, Write


@pytest.fixture
def computer() -> Iterator[Computer]:
    computer = Computer()
    yield computer
    computer.close()


def start(computer: Computer, client: str) -> Process:
    process = computer.process(client, half=Half.PREPARE)
    computer.go(process, None)
    return process


def run_until(computer: Computer, process: Process, *kinds: type) -> None:
    """Let a process go on until it stops at a point of one of these kinds."""
    computer.go(process, computer.answer(process))
    while process.at is not None and not isinstance(process.at, kinds):
        computer.go(process, computer.answer(process))


def test_who_waited_for_a_session_that_is_gone_again_waits_on(computer: Computer) -> None:
    first = start(computer, "1:1")
    run_until(computer, first, Ask)
    second = start(computer, "2:1")
    assert isinstance(second.at, Sleep), "the first has the lock"
    run_until(computer, first, Write)
    run_until(computer, first, AskAgent)
    assert computer.state.load(NAME) is not None, "the first has all but ended"
    run_until(computer, second, AskAgent)
    computer.go(second, computer.answer(second))
    assert isinstance(second.at, AskAgent), "the second has seen the session and looks again"
    computer.agent.held.clear()
    run_until(computer, second, Sleep, Ask)
    assert isinstance(second.at, Sleep), "the first still has the lock"
    run_until(computer, first)
    run_until(computer, second)
    assert second.record is not None and len(computer.service.leases) == 2


def test_a_wake_that_outlasts_the_key_that_waits_for_it_begins_anew(computer: Computer) -> None:
    computer.service.is_awake = False
    first = start(computer, "1:1")
    run_until(computer, first, Sleep)
    computer.go(first, Killed())
    # The key is held for ten minutes: too short for the rest of the wake, long enough to try.
    computer.clock.elapsed += 550
    second = start(computer, "2:1")
    run_until(computer, second, Sleep)
    computer.clock.elapsed += 60
    computer.service.is_awake = True
    run_until(computer, second)
    assert second.record is not None, second.error
    assert second.record.identity in computer.agent.held
    lost, found = computer.service.leases.values()
    assert (lost.status, found.status) == ("closed", "ready")


@pytest.mark.parametrize(("left_s", "is_taken_up"), [(25, True), (20, False)])
def test_a_session_that_woke_for_somebody_else_is_left_near_its_end(
    computer: Computer, left_s: float, is_taken_up: bool
) -> None:
    computer.service.is_awake, computer.service.life_s = False, 45
    first = start(computer, "1:1")
    run_until(computer, first, Sleep)
    computer.go(first, Killed())
    (old,) = computer.service.leases.values()
    computer.clock.elapsed = old.ends_at - left_s
    computer.service.is_awake = True
    second = start(computer, "2:1")
    run_until(computer, second)
    assert second.record is not None, second.error
    assert (second.record.attempt.session_id == old.session_id) is is_taken_up
    assert old.status == ("ready" if is_taken_up else "closed")


def test_what_is_left_of_a_session_is_counted_from_when_it_began(computer: Computer) -> None:
    computer.service.is_awake, computer.service.life_s = False, 45
    first = start(computer, "1:1")
    run_until(computer, first, Sleep)
    computer.clock.elapsed += 20
    computer.service.is_awake = True
    run_until(computer, first)
    computer.clock.elapsed += 5
    second = start(computer, "2:1")
    run_until(computer, second)
    assert second.record is not None and len(computer.service.leases) == 2


def test_the_second_half_is_committed_to_a_session_that_the_first_was_given_late(
    computer: Computer,
) -> None:
    run_until(computer, start(computer, "1:1"))
    computer.clock.elapsed += 59
    first = start(computer, "2:1")
    run_until(computer, first)
    computer.clock.elapsed += 5
    second = computer.process("2:1", half=Half.CONNECT)
    computer.go(second, None)
    run_until(computer, second, Ask)
    assert second.record == first.record, "it asked once more"
