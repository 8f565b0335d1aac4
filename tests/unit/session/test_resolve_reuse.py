"""When a session is used again, confirmed or replaced."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from dcs_proxy.api.model import Connection, HostTrust
from dcs_proxy.emulator.authority import public_line
from dcs_proxy.session.next_step import Half
from tests.unit.session.fakes import AUTHORITIES, NAME, Stage


def test_a_ready_machine_takes_one_post_and_one_identity(stage: Stage) -> None:
    record = stage.resolve()
    assert record.ready is not None and not record.ready.bare_key
    assert stage.plane.journal == [("POST", record.attempt.idempotency_key)]
    assert stage.store.held == {record.identity: b"dm-foo via ssh.example"}
    assert record.attempt.machine == NAME
    assert (stage.notices, stage.knocks) == ([], [])


def test_an_agent_that_lists_nothing_gets_a_new_session(stage: Stage) -> None:
    stage.resolve()
    stage.store.is_locked = True
    assert stage.resolve(client="2:2").attempt.session_id == "wssh-1"


@pytest.mark.parametrize(("age", "looks"), [(0, 0), (59.999, 0), (60, 1)])
def test_a_session_is_used_for_exactly_a_minute_without_asking_the_api(
    stage: Stage, age: float, looks: int
) -> None:
    start = time.time()
    stage.now = lambda: start
    stage.resolve()
    stage.now = lambda: start + age
    stage.resolve(client="2:2")
    assert stage.plane.count("GET") == looks


def test_a_session_is_reused_then_confirmed(stage: Stage) -> None:
    first = stage.resolve()
    assert stage.resolve() == first
    assert len(stage.plane.journal) == 1
    stage.now = lambda: time.time() + 61
    second = stage.resolve()
    assert second.attempt.session_id == first.attempt.session_id
    assert stage.plane.journal[1:] == [("GET", first.attempt.session_id)]
    assert stage.resolve() == second
    assert len(stage.plane.journal) == 2


def test_after_the_clock_was_set_back_the_api_is_asked(stage: Stage) -> None:
    stage.resolve()
    stage.now = lambda: time.time() - 1000
    stage.resolve()
    assert stage.plane.count("GET") == 1


@pytest.mark.parametrize("status", ["closed", "expired", "failed"])
def test_a_session_that_is_over_is_replaced(stage: Stage, status: str) -> None:
    first = stage.resolve()
    stage.settings = replace(stage.settings, reuse_seconds=0)
    stage.plane.statuses = [status, "ready"]
    second = stage.resolve()
    assert second.attempt.session_id != first.attempt.session_id
    assert second.previous_username == "wssh-0"
    assert second.previous_token == first.attempt.token
    # Never taken out: another ssh may be using it this moment.
    assert first.identity in stage.store.held


def test_a_session_near_its_end_is_replaced(stage: Stage) -> None:
    stage.plane.life_s = 100
    stage.resolve()
    stage.now = lambda: time.time() + 65
    stage.resolve()
    assert stage.plane.count("POST") == 1
    stage.now = lambda: time.time() + 71
    stage.plane.life_s = 1000
    stage.resolve()
    assert stage.plane.count("POST") == 2


def test_the_second_half_of_an_ssh_does_not_ask_the_api_again(stage: Stage) -> None:
    stage.settings = replace(stage.settings, reuse_seconds=0)
    first = stage.resolve()
    stage.now = lambda: time.time() + 50
    stage.plane.statuses = ["closed"]
    assert stage.resolve(half=Half.CONNECT) == first
    assert len(stage.plane.journal) == 1


def test_the_second_half_of_an_ssh_keeps_the_session_to_its_end(stage: Stage) -> None:
    stage.settings = replace(stage.settings, reuse_seconds=3600)
    stage.plane.life_s = 100
    first = stage.resolve()
    assert first.ready is not None
    end = first.ready.ends_at
    stage.now = lambda: end - 0.5
    assert stage.resolve(half=Half.CONNECT) == first
    stage.now = lambda: end
    stage.plane.life_s = 1000
    assert stage.resolve(half=Half.CONNECT) != first


@pytest.mark.parametrize(("after_s", "posts"), [(15, 1), (25, 2)])
def test_a_short_session_is_used_for_half_of_its_life(
    stage: Stage, after_s: float, posts: int
) -> None:
    stage.plane.life_s = 40
    stage.resolve()
    stage.now = lambda: time.time() + after_s
    stage.resolve(client="2:2")
    assert stage.plane.count("POST") == posts


def test_a_session_whose_login_changed_is_replaced(stage: Stage) -> None:
    stage.resolve()
    stage.settings = replace(stage.settings, reuse_seconds=0)
    trust = HostTrust("cert_authority", "*", public_line(AUTHORITIES.host_ca))
    stage.plane.changes = {"connection": Connection("elsewhere.example", 22, "x", None, trust)}
    record = stage.resolve()
    assert stage.plane.count("POST") == 2
    assert record.ready is not None and record.ready.endpoint == "elsewhere.example"


def test_another_account_gets_its_own_session(stage: Stage) -> None:
    stage.resolve()
    stage.resolve(account="another")
    assert stage.plane.count("POST") == 2


def test_an_agent_that_lost_the_identity_makes_a_new_session(stage: Stage) -> None:
    first = stage.resolve()
    stage.store.held.clear()
    second = stage.resolve()
    assert second.identity != first.identity
    assert second.identity in stage.store.held
    # Whoever logged in with the first may be at work.
    assert stage.plane.count("DELETE once") == 0
