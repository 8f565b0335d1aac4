"""When a session is used again, confirmed or replaced."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dcs_proxy.api.host_trust import HostTrust
from dcs_proxy.api.model import Connection
from dcs_proxy.emulator.authority import public_line
from dcs_proxy.errors import (
    AgentUnavailable,
    ApiProtocolError,
    ApiUnavailable,
    CredentialsError,
    DcsError,
    Forbidden,
    MachineNotFound,
)
from dcs_proxy.fastpath.helper import note_use
from dcs_proxy.local.log import Log
from dcs_proxy.session import questions, steps
from dcs_proxy.session.next_step import Half
from dcs_proxy.ssh.agent import LIST_S, Agent
from dcs_proxy.ssh.user_agent import UserAgent
from tests.unit.session.fakes import AUTHORITIES, NAME, Fakes


def test_a_ready_machine_takes_one_post_and_one_identity(fakes: Fakes) -> None:
    record = fakes.resolve()
    assert record.ready is not None and not record.ready.bare_key
    assert fakes.api.journal == [("POST", record.attempt.idempotency_key)]
    assert fakes.store.held == {record.identity: b"dm-foo via ssh.example"}
    assert record.attempt.machine == NAME
    assert (fakes.notices, fakes.guest_waits) == ([], [])


def test_a_new_session_removes_the_files_of_ended_ones(fakes: Fakes) -> None:
    ended = [Path(fakes.state.file("sessions", f"dm-old.{end}")) for end in ("lock", "ab.pub")]
    for path in ended:
        path.touch()
        os.utime(path, (0, 0))
    fakes.resolve()
    assert not any(path.exists() for path in ended)


def test_an_agent_that_lists_nothing_gets_a_new_session(fakes: Fakes) -> None:
    fakes.resolve()
    fakes.store.is_locked = True
    assert fakes.resolve().attempt.session_id == "wssh-1"


def test_an_agent_that_does_not_answer_gets_a_new_session(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Agent, blob: bytes) -> bool:
        raise AgentUnavailable("did not answer within 2 s")

    fakes.resolve()
    monkeypatch.setattr(Agent, "holds", fail)
    assert fakes.resolve().attempt.session_id == "wssh-1"


def test_an_agent_that_is_stopped_is_not_waited_for_as_long_as_one_that_asks_its_user(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.resolve()
    limits = []

    class Noting(Agent):
        def __init__(self, path: str, *, timeout_s: float = 10.0, log: Log | None = None) -> None:
            limits.append(timeout_s)
            super().__init__(path, timeout_s=timeout_s, log=log)

    monkeypatch.setattr(steps, "Agent", Noting)
    fakes.resolve()
    assert limits == [LIST_S]


@pytest.mark.parametrize(("age", "looks"), [(0, 0), (59.999, 0), (60, 1)])
def test_a_session_is_used_for_exactly_a_minute_without_asking_the_api(
    fakes: Fakes, age: float, looks: int
) -> None:
    start = time.time()
    fakes.now = lambda: start
    fakes.resolve()
    fakes.now = lambda: start + age
    fakes.resolve()
    assert fakes.api.count("GET") == looks


def test_a_session_is_reused_then_confirmed(fakes: Fakes) -> None:
    first = fakes.resolve()
    assert fakes.resolve() == first
    assert len(fakes.api.journal) == 1
    fakes.now = lambda: time.time() + 61
    second = fakes.resolve()
    assert second.attempt.session_id == first.attempt.session_id
    assert fakes.api.journal[1:] == [("GET", first.attempt.session_id)]
    assert fakes.resolve() == second
    assert len(fakes.api.journal) == 2


def use(fakes: Fakes) -> None:
    """Let an ssh use the session without asking the API, and end."""
    with subprocess.Popen(["true"]) as process:
        pass
    note_use(fakes.state.use_path(NAME), process.pid)


def test_once_an_ssh_has_ended_the_next_asks_the_api(fakes: Fakes) -> None:
    first = fakes.resolve()
    use(fakes)
    assert fakes.resolve(half=Half.CONNECT) == first, "it is committed to this session"
    assert fakes.api.count("GET") == 0
    assert fakes.resolve().attempt.session_id == first.attempt.session_id
    assert fakes.api.count("GET") == 1


def test_a_doubt_that_was_needless_is_not_repeated_at_once(fakes: Fakes) -> None:
    start = time.time()
    fakes.now = lambda: start
    fakes.resolve()
    for age, looks in [(0.0, 1), (1.0, 1), (1.9, 1), (2.0, 2)]:
        # mypy takes the default value for an argument of the clock.
        fakes.now = lambda age=age: start + age  # type: ignore[misc]
        use(fakes)
        fakes.resolve()
        assert fakes.api.count("GET") == looks


def test_a_doubt_that_was_right_brings_a_new_session(fakes: Fakes) -> None:
    first = fakes.resolve()
    use(fakes)
    fakes.api.statuses = ["closed", "ready"]
    second = fakes.resolve()
    assert second.attempt.session_id != first.attempt.session_id
    # The new session is doubted by itself: no trust is left from the old one.
    use(fakes)
    fakes.resolve()
    assert fakes.api.journal[-1] == ("GET", second.attempt.session_id)


@pytest.mark.parametrize(
    "error",
    [ApiUnavailable("down"), CredentialsError("locked"), Forbidden("no"), ApiProtocolError("?")],
)
def test_without_an_answer_the_session_is_used_as_before(fakes: Fakes, error: DcsError) -> None:
    first = fakes.resolve()
    use(fakes)
    fakes.api.statuses = [error]
    assert fakes.resolve() == first
    use(fakes)
    assert fakes.resolve() == first
    assert fakes.api.count("GET") == 1


def test_an_api_that_is_silent_is_not_waited_for(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fakes.resolve()
    use(fakes)
    monkeypatch.setattr(questions, "_DOUBT_S", 0.0)
    silence = threading.Event()
    get_session = fakes.api.get_session
    monkeypatch.setattr(
        fakes.api, "get_session", lambda *a, **o: (silence.wait(30), get_session(*a, **o))[1]
    )
    assert fakes.resolve() == first
    silence.set()


def test_a_machine_that_is_gone_is_said_to_be(fakes: Fakes) -> None:
    fakes.resolve()
    use(fakes)
    fakes.api.statuses = [MachineNotFound("gone")]
    with pytest.raises(MachineNotFound):
        fakes.resolve()


def test_after_the_clock_was_set_back_the_api_is_asked(fakes: Fakes) -> None:
    fakes.resolve()
    fakes.now = lambda: time.time() - 1000
    fakes.resolve()
    assert fakes.api.count("GET") == 1


@pytest.mark.parametrize("status", ["closed", "expired", "failed"])
def test_a_session_that_is_over_is_replaced(fakes: Fakes, status: str) -> None:
    first = fakes.resolve()
    fakes.settings = replace(fakes.settings, reuse_seconds=0)
    fakes.api.statuses = [status, "ready"]
    second = fakes.resolve()
    assert second.attempt.session_id != first.attempt.session_id
    assert second.previous_username == "wssh-0"
    assert second.previous_token == first.attempt.token
    # Never taken out: another ssh may be using it this moment.
    assert first.identity in fakes.store.held


def test_one_that_is_over_is_forgotten_before_anything_else_can_fail(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: UserAgent) -> None:
        raise AgentUnavailable("not installed")

    fakes.resolve()
    snippet = Path(fakes.state.snippet_path(NAME))
    snippet.touch()
    fakes.settings = replace(fakes.settings, reuse_seconds=0)
    fakes.api.statuses = ["closed"]
    monkeypatch.setattr(UserAgent, "check", fail)
    with pytest.raises(AgentUnavailable):
        fakes.resolve()
    assert fakes.state.load(NAME) is None
    assert not snippet.exists()


def test_a_session_near_its_end_is_replaced(fakes: Fakes) -> None:
    fakes.api.life_s = 100
    fakes.resolve()
    fakes.now = lambda: time.time() + 65
    fakes.resolve()
    assert fakes.api.count("POST") == 1
    fakes.now = lambda: time.time() + 71
    fakes.api.life_s = 1000
    fakes.resolve()
    assert fakes.api.count("POST") == 2


def test_the_second_half_of_an_ssh_does_not_ask_the_api_again(fakes: Fakes) -> None:
    fakes.settings = replace(fakes.settings, reuse_seconds=0)
    first = fakes.resolve()
    fakes.now = lambda: time.time() + 50
    fakes.api.statuses = ["closed"]
    assert fakes.resolve(half=Half.CONNECT) == first
    assert len(fakes.api.journal) == 1


def test_the_second_half_of_an_ssh_keeps_the_session_to_its_end(fakes: Fakes) -> None:
    fakes.settings = replace(fakes.settings, reuse_seconds=3600)
    fakes.api.life_s = 100
    first = fakes.resolve()
    assert first.ready is not None
    end = first.ready.ends_at
    fakes.now = lambda: end - 0.5
    assert fakes.resolve(half=Half.CONNECT) == first
    fakes.now = lambda: end
    fakes.api.life_s = 1000
    assert fakes.resolve(half=Half.CONNECT) != first


@pytest.mark.parametrize(("after_s", "posts"), [(15, 1), (25, 2)])
def test_a_short_session_is_used_for_half_of_its_life(
    fakes: Fakes, after_s: float, posts: int
) -> None:
    fakes.api.life_s = 40
    fakes.resolve()
    fakes.now = lambda: time.time() + after_s
    fakes.resolve()
    assert fakes.api.count("POST") == posts


@pytest.mark.parametrize(("life_s", "notices"), [(4, 1), (60, 0)])
def test_a_session_that_may_end_during_the_login_is_announced(
    fakes: Fakes, life_s: float, notices: int
) -> None:
    fakes.api.life_s = life_s
    fakes.resolve()
    assert len(fakes.notices) == notices
    if notices:
        assert re.fullmatch(
            r"dm-foo: this session lasts only [34]\.\d s, perhaps too short to log in; "
            "report it to the service's support",
            fakes.notices[0],
        )


def test_a_session_whose_login_changed_is_replaced(fakes: Fakes) -> None:
    fakes.resolve()
    fakes.settings = replace(fakes.settings, reuse_seconds=0)
    trust = HostTrust("cert_authority", "*", public_line(AUTHORITIES.host_ca))
    fakes.api.changes = {"connection": Connection("elsewhere.example", 22, "x", None, trust)}
    record = fakes.resolve()
    assert fakes.api.count("POST") == 2
    assert record.ready is not None and record.ready.endpoint == "elsewhere.example"


def test_another_account_gets_its_own_session(fakes: Fakes) -> None:
    fakes.resolve()
    fakes.resolve(account="another")
    assert fakes.api.count("POST") == 2


def test_an_agent_that_lost_the_identity_makes_a_new_session(fakes: Fakes) -> None:
    first = fakes.resolve()
    fakes.store.held.clear()
    second = fakes.resolve()
    assert second.identity != first.identity
    assert second.identity in fakes.store.held
    # A login with the first may still be open.
    assert fakes.api.count("DELETE once") == 0
