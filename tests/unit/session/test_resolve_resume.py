"""A process that dies or gives up leaves a wake that the next one resumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.api.model import Session
from dcs_proxy.errors import (
    AgentUnavailable,
    ApiUnavailable,
    ClientGone,
    DcsError,
    DeadlineExceeded,
    IdempotencyConflict,
    MachineNotFound,
    MachineUnreachable,
    SessionFailed,
)
from dcs_proxy.names import MachineName
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import Record
from dcs_proxy.ssh.agent import Agent
from dcs_proxy.ssh.keys import KeyPair
from tests.unit.session.fakes import NAME, FakeApi, Fakes, events


class Killed(BaseException):
    """Stands for the death of the process: nothing of ours handles it."""


@dataclass
class Startable:
    """Agents of which none runs until it is started."""

    fakes: Fakes
    is_installed: bool = True
    starts: bool = True
    is_running: bool = False

    @property
    def place(self) -> str:
        return self.fakes.agent.path

    def check(self) -> None:
        if not self.is_installed:
            raise AgentUnavailable("ssh-agent is not installed")

    def ready(self, *, timeout_s: float) -> Agent:
        raise NotImplementedError

    def add_key(
        self, key: KeyPair, *, comment: str, lifetime_s: int, may_start: bool, timeout_s: float
    ) -> Agent | None:
        if not self.is_running and not may_start:
            return None
        assert self.fakes.api.count("POST"), "started before the API has answered"
        if not self.starts:
            raise AgentUnavailable("it does not start")
        self.is_running = True
        agent = Agent(self.place)
        agent.add_key(key, comment=comment, lifetime_s=lifetime_s)
        return agent


DEATHS = ["POST", "GET", "add", "save", "remove"]


@pytest.mark.parametrize("where", DEATHS)
def test_a_process_that_dies_anywhere_loses_nothing(
    fakes: Fakes, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.api.statuses = ["wake_in_progress", "wake_in_progress", "ready"]
    with monkeypatch.context() as patch:
        kill_at(where, fakes, patch)
        with pytest.raises(Killed):
            fakes.resolve()
    fakes.api.statuses = [s for s in fakes.api.statuses if not isinstance(s, Killed)]
    record = fakes.resolve()
    assert len(fakes.api.keys) == 1, "a second session was asked for"
    assert record.ready is not None
    assert record.identity in fakes.store.held
    # Only the bare key was there when the first died, unless it died after the certificate.
    assert record.ready.bare_key is (where != "remove")


def kill_at(where: str, fakes: Fakes, patch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any, **__: Any) -> Any:
        raise Killed

    match where:
        case "POST":
            create = fakes.api.create_session

            def create_and_die(*args: Any) -> Session:
                create(*args)
                raise Killed

            patch.setattr(fakes.api, "create_session", create_and_die)
        case "GET":
            fakes.api.statuses.insert(1, Killed())
        case "add":
            patch.setattr(Agent, "add_certificate", killed)
        case "save":
            save = StateDirectory.save

            def save_unless_ready(state: StateDirectory, name: MachineName, record: Record) -> None:
                if record.ready is not None:
                    raise Killed
                save(state, name, record)

            patch.setattr(StateDirectory, "save", save_unless_ready)
        case "remove":
            patch.setattr(Agent, "remove", killed)


def test_a_wake_whose_key_is_lost_is_closed_and_replaced(fakes: Fakes) -> None:
    fakes.api.statuses = ["wake_in_progress", ClientGone("gone"), "ready"]
    with pytest.raises(ClientGone):
        fakes.resolve()
    fakes.store.held.clear()
    fakes.api.statuses = ["ready"]
    fakes.resolve()
    assert ("DELETE once", "wssh-0") in fakes.api.journal
    assert len(fakes.api.keys) == 2


def test_a_key_that_is_lost_while_a_resumed_wake_is_waited_for_is_noticed(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.api.statuses = ["wake_in_progress", ClientGone("gone"), "wake_in_progress", "ready"]
    with pytest.raises(ClientGone):
        fakes.resolve()
    session, lost = fakes.api.session, []

    def lose_key(session_id: str, public_key: str) -> Session:
        found = session(session_id, public_key)
        if found.is_ready and not lost:
            lost.append(fakes.store.held.clear())
        return found

    monkeypatch.setattr(fakes.api, "session", lose_key)
    record = fakes.resolve()
    assert record.identity in fakes.store.held
    assert ("DELETE once", "wssh-0") in fakes.api.journal and len(fakes.api.keys) == 2


def test_the_session_before_a_wake_that_is_replaced_is_still_known(fakes: Fakes) -> None:
    """An ssh may have read its login just before it was replaced."""
    first = fakes.resolve()
    fakes.settings = replace(fakes.settings, reuse_seconds=0)
    fakes.api.statuses = ["closed", "wake_in_progress", ClientGone("gone")]
    with pytest.raises(ClientGone):
        fakes.resolve()
    fakes.store.held.clear()
    fakes.api.statuses = ["ready"]
    third = fakes.resolve()
    assert third.logins == ["wssh-2", "wssh-0"]
    assert third.previous_token == first.attempt.token


def test_nothing_is_created_for_an_ssh_that_exits_while_a_session_is_closed(
    fakes: Fakes,
) -> None:
    fakes.api.statuses = ["wake_in_progress", ClientGone("gone"), "ready"]
    with pytest.raises(ClientGone):
        fakes.resolve()
    fakes.store.held.clear()
    fakes.api.close_error = ClientGone("gone")
    with pytest.raises(ClientGone):
        fakes.resolve()
    assert len(fakes.api.keys) == 1


def test_a_timeout_while_a_session_is_closed_does_not_say_that_it_wakes(fakes: Fakes) -> None:
    fakes.api.statuses = ["wake_in_progress", ClientGone("gone"), "ready"]
    with pytest.raises(ClientGone):
        fakes.resolve()
    fakes.store.held.clear()
    fakes.api.close_error = DeadlineExceeded("timed out after 30 s")
    with pytest.raises(DeadlineExceeded, match="timed out after 30 s"):
        fakes.resolve()


def test_without_an_agent_no_session_is_closed(fakes: Fakes) -> None:
    fakes.api.statuses = ["wake_in_progress", ClientGone("gone"), "ready"]
    with pytest.raises(ClientGone):
        fakes.resolve()
    fakes.store.held.clear()

    with pytest.raises(AgentUnavailable):
        fakes.resolve(agents=Startable(fakes, is_installed=False))
    assert fakes.api.count("DELETE once") == 0


@pytest.mark.parametrize("error", [ApiUnavailable("down"), MachineNotFound("no such machine")])
def test_no_agent_is_started_for_an_api_that_does_not_answer(fakes: Fakes, error: DcsError) -> None:
    agents = Startable(fakes)
    fakes.api.statuses = [error]
    with pytest.raises(type(error)):
        fakes.resolve(agents=agents)
    assert not agents.is_running
    fakes.api.statuses = ["ready"]
    assert fakes.resolve(agents=agents).identity in fakes.store.held
    assert agents.is_running


def test_a_session_whose_key_was_lost_before_its_id_was_known_is_closed(fakes: Fakes) -> None:
    """The process was killed between the request and the start of an agent."""
    agents = Startable(fakes)
    fakes.api.statuses = [ClientGone("killed")]
    with pytest.raises(ClientGone):
        fakes.resolve(agents=agents)
    fakes.api.statuses = ["ready", "ready"]
    record = fakes.resolve(agents=agents)
    assert record.identity in fakes.store.held
    assert [method for method, _ in fakes.api.journal] == ["POST", "POST", "DELETE once", "POST"]


def test_no_agent_is_started_for_a_session_that_has_failed(fakes: Fakes) -> None:
    agents = Startable(fakes)
    fakes.api.statuses = ["failed"]
    with pytest.raises(SessionFailed):
        fakes.resolve(agents=agents)
    assert not agents.is_running


@pytest.mark.parametrize("first", ["wake_in_progress", "ready"])
def test_an_agent_is_started_for_a_session_and_a_wake_is_resumed(fakes: Fakes, first: str) -> None:
    agents = Startable(fakes)
    fakes.api.statuses = [first, ClientGone("gone"), "ready"]
    if first == "ready":
        fakes.api.statuses.pop(1)
    else:
        with pytest.raises(ClientGone):
            fakes.resolve(agents=agents)
    assert fakes.resolve(agents=agents).identity in fakes.store.held
    assert len(fakes.api.keys) == 1


def test_a_session_whose_key_no_agent_can_hold_is_closed(fakes: Fakes) -> None:
    with pytest.raises(AgentUnavailable, match="does not start"):
        fakes.resolve(agents=Startable(fakes, starts=False))
    assert ("DELETE once", "wssh-0") in fakes.api.journal
    assert fakes.state.load(NAME) is None


def test_a_process_that_dies_before_its_agent_runs_leaves_nothing_to_resume(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = Startable(fakes)
    with monkeypatch.context() as patch:
        kill_at("POST", fakes, patch)
        with pytest.raises(Killed):
            fakes.resolve(agents=agents)
    assert fakes.resolve(agents=agents).attempt.session_id == "wssh-1"


def test_an_attempt_whose_idempotency_key_conflicts_is_replaced(fakes: Fakes) -> None:
    fakes.api.has_get = False
    fakes.api.statuses = ["wake_in_progress", ClientGone("gone")]
    with pytest.raises(ClientGone):
        fakes.resolve()
    fakes.api.statuses = [IdempotencyConflict("used"), "ready"]
    assert fakes.resolve().attempt.session_id == "wssh-1"


def test_the_key_of_an_attempt_that_conflicts_leaves_the_agent(fakes: Fakes) -> None:
    fakes.api.statuses = [IdempotencyConflict("used"), "ready"]
    record = fakes.resolve()
    assert list(fakes.store.held) == [record.identity] and len(fakes.api.keys) == 2


@pytest.mark.parametrize("error", [ClientGone("gone"), DeadlineExceeded("too late")])
def test_a_list_that_is_not_waited_for_ends_as_it_did(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, error: DcsError
) -> None:
    """The list would say whether a machine that is not found was created just now."""

    def fail() -> None:
        raise error

    monkeypatch.setattr(fakes.api, "list_machines", fail)
    fakes.api.statuses = [MachineUnreachable("not found")]
    with pytest.raises(type(error)) as caught:
        fakes.resolve()
    assert caught.value is error


def test_an_abandoned_session_that_cannot_be_closed_is_logged(fakes: Fakes) -> None:
    fakes.api.statuses = ["wake_in_progress", ClientGone("gone"), "ready"]
    with pytest.raises(ClientGone):
        fakes.resolve()
    fakes.store.held.clear()
    fakes.api.close_error = ApiUnavailable("the API is down")
    assert fakes.resolve().attempt.session_id == "wssh-1"
    assert events(fakes, "close-failed") == ['close-failed machine=dm-foo what="the API is down"']


def assert_resumed(fakes: Fakes, error: DcsError) -> None:
    """Interrupt a wake with `error`; check that the next process resumes it."""
    fakes.api.statuses = ["wake_in_progress", error, "ready"]
    with pytest.raises(type(error)):
        fakes.resolve()
    record = fakes.resolve()
    assert len(fakes.api.keys) == 1
    assert record.ready is not None and record.ready.bare_key
    assert fakes.guest_waits == [record.attempt.session_id], "the machine has woken"


@pytest.mark.parametrize("error", [ClientGone("gone"), ApiUnavailable("down")])
def test_an_interrupted_wake_is_resumed(fakes: Fakes, error: DcsError) -> None:
    assert_resumed(fakes, error)


def test_an_ssh_that_exits_is_no_failure_of_the_machine(fakes: Fakes) -> None:
    fakes.api.statuses = ["wake_in_progress", ClientGone("gone")]
    with pytest.raises(ClientGone):
        fakes.resolve()
    assert fakes.state.load_failure(NAME) is None


@pytest.mark.parametrize("field", ["expires_at", "began_at"])
def test_a_wake_is_resumed_if_the_api_gives_no_times(fakes: Fakes, field: str) -> None:
    fakes.api.changes = {field: None}
    assert_resumed(fakes, ClientGone("gone"))


@pytest.mark.parametrize("ahead_s", [3600.0, -3600.0])
def test_a_wake_is_resumed_whatever_our_clock_says(fakes: Fakes, ahead_s: float) -> None:
    fakes.api.clock_ahead_s, fakes.api.life_s = ahead_s, 100
    assert_resumed(fakes, ClientGone("gone"))


@pytest.mark.parametrize("status", ["failed", None])
def test_an_interrupted_wake_that_failed_is_replaced(
    fakes: Fakes, status: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.api.statuses = ["wake_in_progress", "wake_in_progress", ClientGone("gone"), status]
    with pytest.raises(ClientGone):
        fakes.resolve()
    fakes.api.statuses = [status, "ready"] if status else [None]
    if status is None:
        monkeypatch.setattr(fakes.api, "create_session", ready_anew(fakes.api))
    assert fakes.resolve().attempt.session_id == "wssh-1"


def ready_anew(api: FakeApi) -> Callable[..., Session]:
    create = api.create_session

    def create_ready(*args: Any) -> Session:
        api.statuses = ["ready"]
        return create(*args)

    return create_ready


@pytest.mark.parametrize("error", [IdempotencyConflict("used"), MachineUnreachable("not found")])
def test_an_attempt_that_left_no_session_has_nothing_to_close(
    fakes: Fakes, error: DcsError
) -> None:
    """The request that is sent again, to learn the session's id, is not accepted."""
    agents = Startable(fakes)
    fakes.api.statuses = [ClientGone("killed")]
    with pytest.raises(ClientGone):
        fakes.resolve(agents=agents)
    fakes.api.statuses = [error, "ready"]
    record = fakes.resolve(agents=agents)
    assert record.identity in fakes.store.held
    assert [method for method, _ in fakes.api.journal] == ["POST", "POST", "POST"]


def test_a_session_of_a_running_machine_is_in_no_doubt_for_this_ssh(fakes: Fakes) -> None:
    fakes.resolve()
    use = Path(fakes.state.use_path(NAME)).read_bytes()
    assert use.startswith(b"0000000001a"), "the API was asked for it"


def test_a_session_that_has_let_a_login_in_is_not_waited_for_again(fakes: Fakes) -> None:
    fakes.api.statuses = ["wake_in_progress", "ready"]
    fakes.resolve()
    assert len(fakes.guest_waits) == 1
    fakes.settings = replace(fakes.settings, reuse_seconds=0)
    record = fakes.resolve()
    assert record.attempt.session_id == "wssh-0" and len(fakes.guest_waits) == 1
