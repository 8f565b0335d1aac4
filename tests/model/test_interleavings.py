"""Single stories that the state machine has told, kept for the order of events that they need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dcs_proxy.session.next_step import Half
from tests.model.process import Ask, AskAgent, Killed, Process, Sleep, Write
from tests.model.stage import NAME, Stage


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


def start(stage: Stage, client: str) -> Process:
    process = stage.process(client, half=Half.PREPARE)
    stage.go(process, None)
    return process


def run_until(stage: Stage, process: Process, *kinds: type) -> None:
    """Let a process go on until it stops at a point of one of these kinds."""
    stage.go(process, stage.answer(process))
    while process.at is not None and not isinstance(process.at, kinds):
        stage.go(process, stage.answer(process))


def test_who_waited_for_a_session_that_is_gone_again_waits_on(stage: Stage) -> None:
    first = start(stage, "1:1")
    run_until(stage, first, Ask)
    second = start(stage, "2:1")
    assert isinstance(second.at, Sleep), "the first has the lock"
    run_until(stage, first, Write)
    run_until(stage, first, AskAgent)
    assert stage.state.load(NAME) is not None, "the first has all but ended"
    run_until(stage, second, AskAgent)
    stage.go(second, stage.answer(second))
    assert isinstance(second.at, AskAgent), "the second has seen the session and looks again"
    stage.keeper.held.clear()
    run_until(stage, second, Sleep, Ask)
    assert isinstance(second.at, Sleep), "the first still has the lock"
    run_until(stage, first)
    run_until(stage, second)
    assert second.record is not None and len(stage.service.leases) == 2


def test_a_wake_that_outlasts_the_key_that_waits_for_it_begins_anew(stage: Stage) -> None:
    stage.service.is_awake = False
    first = start(stage, "1:1")
    run_until(stage, first, Sleep)
    stage.go(first, Killed())
    # The key is held for ten minutes: too short for the rest of the wake, long enough to try.
    stage.clock.elapsed += 550
    second = start(stage, "2:1")
    run_until(stage, second, Sleep)
    stage.clock.elapsed += 60
    stage.service.is_awake = True
    run_until(stage, second)
    assert second.record is not None, second.error
    assert second.record.identity in stage.keeper.held
    lost, found = stage.service.leases.values()
    assert (lost.status, found.status) == ("closed", "ready")


@pytest.mark.parametrize(("left_s", "is_taken_up"), [(25, True), (20, False)])
def test_a_session_that_woke_for_somebody_else_is_left_near_its_end(
    stage: Stage, left_s: float, is_taken_up: bool
) -> None:
    stage.service.is_awake, stage.service.life_s = False, 45
    first = start(stage, "1:1")
    run_until(stage, first, Sleep)
    stage.go(first, Killed())
    (old,) = stage.service.leases.values()
    stage.clock.elapsed = old.ends_at - left_s
    stage.service.is_awake = True
    second = start(stage, "2:1")
    run_until(stage, second)
    assert second.record is not None, second.error
    assert (second.record.attempt.session_id == old.session_id) is is_taken_up
    assert old.status == ("ready" if is_taken_up else "closed")


def test_what_is_left_of_a_session_is_counted_from_when_it_began(stage: Stage) -> None:
    stage.service.is_awake, stage.service.life_s = False, 45
    first = start(stage, "1:1")
    run_until(stage, first, Sleep)
    stage.clock.elapsed += 20
    stage.service.is_awake = True
    run_until(stage, first)
    stage.clock.elapsed += 5
    second = start(stage, "2:1")
    run_until(stage, second)
    assert second.record is not None and len(stage.service.leases) == 2


def test_the_second_half_is_committed_to_a_session_that_the_first_was_given_late(
    stage: Stage,
) -> None:
    run_until(stage, start(stage, "1:1"))
    stage.clock.elapsed += 59
    first = start(stage, "2:1")
    run_until(stage, first)
    stage.clock.elapsed += 5
    second = stage.process("2:1", half=Half.CONNECT)
    stage.go(second, None)
    run_until(stage, second, Ask)
    assert second.record == first.record, "it asked once more"
