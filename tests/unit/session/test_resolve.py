"""Resolving against a control plane and an agent that do as the test says."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.api.model import Connection, HostTrust, Machine, Session
from dcs_proxy.console.progress import Progress
from dcs_proxy.emulator.authority import Authorities, public_line
from dcs_proxy.errors import (
    AgentUnavailable,
    ApiUnavailable,
    ClientGone,
    DcsError,
    DeadlineExceeded,
    IdempotencyConflict,
    MachineNotFound,
    NotWoken,
    SessionFailed,
    Untrusted,
)
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.session.context import Context
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import Record
from dcs_proxy.session.resolve import resolve
from dcs_proxy.ssh import certificates as certificate
from dcs_proxy.ssh.agent import Agent
from tests.fake_agent import FakeAgent, Store, fake_agent

NAME = MachineName("dm-foo")
AUTHORITIES = Authorities()


@dataclass
class FakePlane:
    """A control plane: `statuses` are what each look at a session finds, the last for ever.

    A status that is an exception is raised, None is a session that is known no more.  `journal` is
    every call, and closing fails with `close_error`.
    """

    statuses: list[Any] = field(default_factory=lambda: ["ready"])
    has_get: bool = True
    life_s: float = 3600
    journal: list[tuple[str, str]] = field(default_factory=list)
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    clock_ahead_s: float = 0.0
    phase: str = "running"
    close_error: DcsError | None = None

    def get_machine(self, name: MachineName) -> Machine:
        self.journal.append(("LOOK", name))
        return Machine(name, self.phase)

    def create_session(self, name: MachineName, public_key: str, idempotency_key: str) -> Session:
        assert name == NAME
        self.journal.append(("POST", idempotency_key))
        known = self.keys.setdefault(idempotency_key, (f"wssh-{len(self.keys)}", public_key))
        assert known[1] == public_key, "one Idempotency-Key, two requests"
        return self.session(known[0], public_key)

    def get_session(self, name: MachineName, session_id: str) -> Session | None:
        assert name == NAME
        self.journal.append(("GET", session_id))
        if not self.has_get or self.statuses[0] is None:
            return None
        return self.session(session_id, dict(self.keys.values())[session_id])

    def close_session(
        self, name: MachineName, session_id: str, idempotency_key: str, *, once: bool = False
    ) -> None:
        assert name == NAME and idempotency_key
        self.journal.append(("DELETE once" if once else "DELETE", session_id))
        if self.close_error is not None:
            raise self.close_error

    def session(self, session_id: str, public_key: str) -> Session:
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if isinstance(status, BaseException):
            raise status
        ends_at = time.time() + self.clock_ahead_s + self.life_s
        trust = HostTrust("cert_authority", "ssh.example", public_line(AUTHORITIES.host_ca))
        user = AUTHORITIES.sign_user(
            public_key, session_id, ends_at - self.clock_ahead_s, ahead=self.clock_ahead_s
        )
        session = Session(
            session_id, NAME, status,
            datetime.fromtimestamp(time.time() + self.clock_ahead_s, timezone.utc),
            datetime.fromtimestamp(ends_at, timezone.utc), 50, "BOOM", "it\x1b broke",
            Connection("ssh.example", 22, session_id, user, trust) if status == "ready" else None,
        )  # fmt: skip
        return replace(session, **self.changes)

    def count(self, method: str) -> int:
        return sum(1 for called, _ in self.journal if called == method)


class Waking(Progress):
    """Notes what is shown, as on no terminal."""

    def __init__(self, notices: list[str]) -> None:
        super().__init__(is_quiet=False, in_place=False)
        self.notices = notices

    def notice(self, text: str) -> None:
        self.notices.append(text)


@dataclass
class Stage:
    """One machine's world, kept between tries; each try is a process of its own to `world`."""

    state: StateDirectory
    agent: FakeAgent
    store: Store
    plane: FakePlane = field(default_factory=FakePlane)
    settings: Settings = field(default_factory=Settings)
    now: Callable[[], float] = time.time
    notices: list[str] = field(default_factory=list)
    knocks: list[Any] = field(default_factory=list)

    def world(self, *, client: str = "1:1", seconds: float = 30, **changes: Any) -> Context:
        world = Context(
            settings=self.settings,
            state=self.state,
            deadline=Deadline(seconds),
            log=Log(self.state.file("log")),
            agent_path=lambda name: self.agent.path if name == NAME else "",
            account="account",
            client=client,
            open_api=lambda: self.plane,
            open_agent=lambda name: Agent(self.agent.path if name == NAME else ""),
            notice=self.notices.append,
            progress=Waking(self.notices),
            await_guest=self.knock,
            now=self.now,
        )
        return replace(world, **changes)

    def resolve(self, *, is_second: bool = False, **changes: Any) -> Record:
        world = self.world(**changes)
        return resolve(NAME, world, is_second=True) if is_second else resolve(NAME, world)

    def knock(self, name: MachineName, record: Record) -> None:
        """Note that the guest was waited for; raise what the test has put first."""
        assert name == NAME
        assert record.identity in self.store.held, "ssh could not have logged in"
        self.knocks.append(record.attempt.session_id)
        if isinstance(self.knocks[0], BaseException):
            raise self.knocks.pop(0)

    def log(self) -> str:
        return Path(self.state.file("log")).read_text()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with fake_agent() as agent:
        store = Store()
        agent.answer = store
        yield Stage(StateDirectory(str(tmp_path / "state")), agent, store)


def test_a_ready_machine_takes_one_post_and_one_identity(stage: Stage) -> None:
    record = stage.resolve()
    assert record.ready is not None and not record.ready.bare_key
    assert stage.plane.journal == [("POST", record.attempt.idempotency_key)]
    assert stage.store.held == {record.identity: b"dm-foo via ssh.example"}
    assert record.attempt.machine == NAME
    assert (stage.notices, stage.knocks) == ([], [])


def test_each_step_is_logged_for_who_wants_to_know(stage: Stage) -> None:
    path = stage.state.file("log")
    log = Log(path, "debug")
    stage.plane.statuses = ["wake_in_progress", "ready"]
    stage.plane.clock_ahead_s = 400.0
    stage.resolve(log=log)
    stage.resolve(log=log, client="2:2")
    stage.now = lambda: time.time() + 61
    stage.resolve(log=log, client="3:3")
    listed = 'agent asked="list identities" reply=12 ms=N'
    assert events(stage, "lock", "reuse", "session", "ready", "resume", "clock", "agent") == [
        "lock machine=dm-foo held=yes ms=N",
        "session machine=dm-foo session=wssh-0 status=wake_in_progress",
        "clock machine=dm-foo ahead_s=400",
        "ready machine=dm-foo session=wssh-0 login=wssh-0 seconds=N ms=N",
        listed,
        "reuse machine=dm-foo session=wssh-0 age_s=0 usable=yes",
        "reuse machine=dm-foo session=wssh-0 age_s=61 usable=no",
        "lock machine=dm-foo held=yes ms=N",
        "reuse machine=dm-foo session=wssh-0 age_s=61 usable=no",
        listed,
        "resume machine=dm-foo session=wssh-0",
    ]
    (said,) = re.findall(r" seconds=(\d+) ms=(\d+)", Path(path).read_text())
    assert 3500 < int(said[0]) <= 3600 and int(said[1]) < 60_000


def events(stage: Stage, *names: str) -> list[str]:
    """Return the lines of these events in the log, without what differs from run to run."""
    lines = [line.split("] ", 1)[1] for line in stage.log().splitlines()]
    changing = re.compile(r"\b(ms|seconds)=-?\d+")
    return [changing.sub(r"\1=N", line) for line in lines if line.split()[0] in names]


def test_an_agent_that_shows_nothing_is_asked_to_hold_a_new_session(stage: Stage) -> None:
    stage.resolve()
    stage.store.is_locked = True
    assert stage.resolve(client="2:2").attempt.session_id == "wssh-1"


@pytest.mark.parametrize(("age", "looks"), [(0, 0), (59.999, 0), (60, 1)])
def test_a_session_is_used_unasked_for_a_minute_to_the_moment(
    stage: Stage, age: float, looks: int
) -> None:
    start = time.time()
    stage.now = lambda: start
    stage.resolve()
    stage.now = lambda: start + age
    stage.resolve(client="2:2")
    assert stage.plane.count("GET") == looks


def test_a_wake_is_polled_and_announced_once(stage: Stage) -> None:
    stage.plane.statuses = ["wake_in_progress", "ssh_in_progress", "unheard-of", "ready"]
    record = stage.resolve()
    assert record.attempt.polled
    assert (stage.plane.count("POST"), stage.plane.count("GET")) == (1, 3)
    assert stage.notices == ["dm-foo: waking up, at most 300 s"]
    assert stage.knocks == [record.attempt.session_id]


def test_a_guest_that_did_not_answer_is_asked_again_by_the_next(stage: Stage) -> None:
    stage.plane.statuses = ["wake_in_progress", "ready"]
    stage.knocks = [DeadlineExceeded("SSH_TUNNEL_NOT_READY")]
    with pytest.raises(DeadlineExceeded):
        stage.resolve()
    record = stage.resolve(client="2:2")
    assert record.ready is not None and not record.ready.bare_key
    assert (len(stage.plane.keys), len(stage.knocks)) == (1, 2)
    stage.resolve(client="3:3")
    assert len(stage.knocks) == 2


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_wrong_is_told_and_does_no_harm(stage: Stage, hours: int) -> None:
    stage.plane.clock_ahead_s = hours * 3600.0
    record = stage.resolve()
    assert record.ready is not None
    assert abs(record.ready.ends_at - time.time() - stage.plane.life_s) < 60
    how = "behind" if hours > 0 else "ahead of"
    assert stage.notices == [f"this computer's clock is 60 min {how} the API's: set it"]


@pytest.mark.parametrize(
    ("ahead_s", "told"), [(-299.0, []), (299.0, []), (300.0, ["behind"]), (-300.0, ["ahead of"])]
)
def test_a_clock_is_told_of_from_five_minutes_on(
    stage: Stage, ahead_s: float, told: list[str]
) -> None:
    stage.plane.clock_ahead_s = ahead_s
    stage.resolve()
    assert stage.notices == [f"this computer's clock is 5 min {how} the API's: set it"
                             for how in told]  # fmt: skip


@pytest.mark.parametrize("is_wanted", [True, False])
def test_a_certificate_is_bound_to_the_gateway_if_that_is_wanted(
    stage: Stage, is_wanted: bool
) -> None:
    stage.settings = replace(stage.settings, destination_constraint=is_wanted)
    stage.resolve()
    asked = any(b"restrict-destination" in request for request in stage.agent.requests)
    assert asked is is_wanted


def test_a_deployment_without_get_repeats_the_post(stage: Stage) -> None:
    stage.plane.statuses = ["wake_in_progress", "wake_in_progress", "ready"]
    stage.plane.has_get = False
    record = stage.resolve()
    posts = [key for method, key in stage.plane.journal if method == "POST"]
    assert len(posts) == 3 and set(posts) == {record.attempt.idempotency_key}
    assert stage.plane.count("GET") == 1


def test_a_session_is_reused_unasked_then_confirmed(stage: Stage) -> None:
    first = stage.resolve()
    assert stage.resolve() == first
    assert len(stage.plane.journal) == 1
    stage.now = lambda: time.time() + 61
    second = stage.resolve()
    assert second.attempt.session_id == first.attempt.session_id
    assert stage.plane.journal[1:] == [("GET", first.attempt.session_id)]
    assert stage.resolve() == second
    assert len(stage.plane.journal) == 2


def test_a_clock_set_back_makes_it_ask(stage: Stage) -> None:
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


def test_the_second_half_of_an_ssh_asks_nobody_again(stage: Stage) -> None:
    stage.settings = replace(stage.settings, reuse_seconds=0)
    first = stage.resolve()
    stage.now = lambda: time.time() + 50
    stage.plane.statuses = ["closed"]
    assert stage.resolve(is_second=True) == first
    assert len(stage.plane.journal) == 1


def test_the_second_half_of_an_ssh_keeps_the_session_to_its_end(stage: Stage) -> None:
    stage.settings = replace(stage.settings, reuse_seconds=3600)
    stage.plane.life_s = 100
    first = stage.resolve()
    assert first.ready is not None
    end = first.ready.ends_at
    stage.now = lambda: end - 0.5
    assert stage.resolve(is_second=True) == first
    stage.now = lambda: end
    stage.plane.life_s = 1000
    assert stage.resolve(is_second=True) != first


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


class Killed(BaseException):
    """Stands for the death of the process: nothing of ours handles it."""


DEATHS = ["POST", "GET", "add", "save", "remove"]


@pytest.mark.parametrize("where", DEATHS)
def test_a_process_that_dies_anywhere_loses_nothing(
    stage: Stage, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.plane.statuses = ["wake_in_progress", "wake_in_progress", "ready"]
    with monkeypatch.context() as patch:
        kill_at(where, stage, patch)
        with pytest.raises(Killed):
            stage.resolve()
    stage.plane.statuses = [s for s in stage.plane.statuses if not isinstance(s, Killed)]
    record = stage.resolve()
    assert len(stage.plane.keys) == 1, "a second session was asked for"
    assert record.ready is not None
    assert record.identity in stage.store.held
    # Only the bare key was there when the first died, unless it died after the certificate.
    assert record.ready.bare_key is (where != "remove")


def kill_at(where: str, stage: Stage, patch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any, **__: Any) -> Any:
        raise Killed

    match where:
        case "POST":
            create = stage.plane.create_session

            def create_and_die(*args: Any) -> Session:
                create(*args)
                raise Killed

            patch.setattr(stage.plane, "create_session", create_and_die)
        case "GET":
            stage.plane.statuses.insert(1, Killed())
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


def test_a_bare_key_that_is_gone_closes_the_session_and_starts_again(stage: Stage) -> None:
    stage.plane.statuses = ["wake_in_progress", ClientGone("gone"), "ready"]
    with pytest.raises(ClientGone):
        stage.resolve()
    stage.store.held.clear()
    stage.plane.statuses = ["ready"]
    stage.resolve()
    assert ("DELETE once", "wssh-0") in stage.plane.journal
    assert len(stage.plane.keys) == 2


def test_an_ssh_that_goes_while_an_abandoned_session_is_closed_is_no_reason_to_go_on(
    stage: Stage,
) -> None:
    stage.plane.statuses = ["wake_in_progress", ClientGone("gone"), "ready"]
    with pytest.raises(ClientGone):
        stage.resolve()
    stage.store.held.clear()
    stage.plane.close_error = ClientGone("gone")
    with pytest.raises(ClientGone):
        stage.resolve(client="2:2")
    assert len(stage.plane.keys) == 1


def test_an_attempt_whose_key_is_somebody_elses_by_now_begins_anew(stage: Stage) -> None:
    stage.plane.has_get = False
    stage.plane.statuses = ["wake_in_progress", ClientGone("gone")]
    with pytest.raises(ClientGone):
        stage.resolve()
    stage.plane.statuses = [IdempotencyConflict("used"), "ready"]
    assert stage.resolve(client="2:2").attempt.session_id == "wssh-1"


def test_an_abandoned_session_that_cannot_be_closed_is_logged(stage: Stage) -> None:
    stage.plane.statuses = ["wake_in_progress", ClientGone("gone"), "ready"]
    with pytest.raises(ClientGone):
        stage.resolve()
    stage.store.held.clear()
    stage.plane.close_error = ApiUnavailable("the API is down")
    assert stage.resolve(client="2:2").attempt.session_id == "wssh-1"
    assert events(stage, "close-failed") == ['close-failed machine=dm-foo what="the API is down"']


@pytest.mark.parametrize("error", [ClientGone("gone"), ApiUnavailable("down")])
def test_a_wake_broken_off_is_taken_up(stage: Stage, error: DcsError) -> None:
    stage.plane.statuses = ["wake_in_progress", error, "ready"]
    with pytest.raises(type(error)):
        stage.resolve()
    record = stage.resolve(client="2:2")
    assert len(stage.plane.keys) == 1
    assert record.ready is not None and record.ready.bare_key


@pytest.mark.parametrize("field", ["expires_at", "began_at"])
def test_a_wake_is_taken_up_if_nothing_says_how_long_the_session_lives(
    stage: Stage, field: str
) -> None:
    stage.plane.changes = {field: None}
    test_a_wake_broken_off_is_taken_up(stage, ClientGone("gone"))


@pytest.mark.parametrize("ahead_s", [3600.0, -3600.0])
def test_a_wake_is_taken_up_whatever_our_clock_says(stage: Stage, ahead_s: float) -> None:
    stage.plane.clock_ahead_s, stage.plane.life_s = ahead_s, 100
    test_a_wake_broken_off_is_taken_up(stage, ClientGone("gone"))


def test_whoever_waits_for_another_process_says_that_the_machine_wakes(stage: Stage) -> None:
    stage.plane.statuses = ["wake_in_progress", ClientGone("gone")]
    with pytest.raises(ClientGone):
        stage.resolve()
    stage.notices.clear()
    with stage.state.lock(NAME, Deadline(30)) as is_held, pytest.raises(DeadlineExceeded):
        assert is_held
        stage.resolve(client="2:2", seconds=0.3, log=Log(stage.state.file("log"), "debug"))
    assert stage.notices == ["dm-foo: waking up, at most 300 s"]
    assert events(stage, "lock") == [], "it looks again and again at a lock that it does not get"


def test_the_deadline_ends_the_wait_and_keeps_the_attempt(stage: Stage) -> None:
    stage.plane.statuses = ["wake_in_progress"]
    with pytest.raises(DeadlineExceeded, match="not ready after") as caught:
        stage.resolve(seconds=0.3)
    assert caught.value.machine == NAME
    stage.plane.statuses = ["ready"]
    stage.resolve(client="2:2")
    assert len(stage.plane.keys) == 1


@pytest.mark.parametrize("status", ["closed", "expired", "failed"])
def test_a_session_that_ends_while_waiting_is_a_clear_failure(stage: Stage, status: str) -> None:
    stage.plane.statuses = ["wake_in_progress", status]
    with pytest.raises(SessionFailed) as caught:
        stage.resolve()
    assert caught.value.one_line() == (
        f'dm-foo: the session is {status}: "it broke" (BOOM); '
        "hint: try again; if it fails again, look at the machine in the console"
    )
    assert stage.store.held == {}
    assert stage.state.load(NAME) is None


def test_a_session_that_failed_without_a_word_is_shown_without_one(stage: Stage) -> None:
    stage.plane.changes = {"error_code": "", "error_message": ""}
    stage.plane.statuses = ["failed"]
    with pytest.raises(SessionFailed) as caught:
        stage.resolve()
    assert caught.value.message == "the session is failed"
    stage.plane.changes = {"error_code": "B" * 100, "error_message": ""}
    with pytest.raises(SessionFailed) as caught:
        stage.resolve(client="2:2")
    assert caught.value.message == f"the session is failed ({'B' * 59}…)"


def test_a_session_that_is_forgotten_while_it_wakes_is_a_clear_failure(stage: Stage) -> None:
    stage.plane.statuses = ["wake_in_progress", "wake_in_progress", None]
    with pytest.raises(SessionFailed) as caught:
        stage.resolve()
    assert caught.value.one_line() == "dm-foo: the API no longer knows the session; hint: try again"


@pytest.mark.parametrize("status", ["failed", None])
def test_a_wake_broken_off_that_came_to_nothing_begins_anew(
    stage: Stage, status: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.plane.statuses = ["wake_in_progress", "wake_in_progress", ClientGone("gone"), status]
    with pytest.raises(ClientGone):
        stage.resolve()
    stage.plane.statuses = [status, "ready"] if status else [None]
    if status is None:
        monkeypatch.setattr(stage.plane, "create_session", ready_anew(stage.plane))
    assert stage.resolve(client="2:2").attempt.session_id == "wssh-1"


def ready_anew(plane: FakePlane) -> Callable[..., Session]:
    create = plane.create_session

    def create_ready(*args: Any) -> Session:
        plane.statuses = ["ready"]
        return create(*args)

    return create_ready


class Naps(Deadline):
    """A deadline that passes no time in sleep, and notes how much it was asked for."""

    def __init__(self) -> None:
        super().__init__(30)
        self.asked: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)


def test_a_wake_is_looked_at_as_often_as_the_api_asks(stage: Stage) -> None:
    stage.plane.statuses = ["wake_in_progress", "ready"]
    stage.plane.changes = {"retry_after_ms": 3000}
    naps, start = Naps(), time.time()
    stage.now = lambda: start + sum(naps.asked)
    stage.resolve(deadline=naps)
    (nap,) = naps.asked
    assert 3 <= nap < 4
    assert stage.log().rstrip().endswith(f" ms={int((start + nap - start) * 1000)}")


def test_the_wait_for_another_process_has_a_deadline(stage: Stage) -> None:
    with stage.state.lock(NAME, Deadline(30)) as is_held:
        assert is_held
        with pytest.raises(DeadlineExceeded):
            stage.resolve(seconds=0.2)


def test_an_unknown_machine_leaves_nothing_behind(stage: Stage) -> None:
    stage.plane.statuses = [MachineNotFound("no such")]
    with pytest.raises(MachineNotFound):
        stage.resolve()
    assert stage.store.held == {}
    assert stage.state.load(NAME) is None


def test_one_idempotency_conflict_is_an_accident_and_two_are_not(stage: Stage) -> None:
    first = stage.resolve()
    stage.settings = replace(stage.settings, reuse_seconds=0)
    stage.plane.statuses = ["closed", IdempotencyConflict("used"), "ready"]
    record = stage.resolve()
    assert len(stage.plane.keys) == 3
    assert record.previous_username == first.attempt.session_id
    assert events(stage, "idempotency-conflict") == ["idempotency-conflict machine=dm-foo"]
    stage.plane.statuses = [IdempotencyConflict("used")]
    stage.store.held.clear()
    with pytest.raises(IdempotencyConflict):
        stage.resolve()


@pytest.mark.parametrize("part", ["host_trust", "other_principal"])
def test_what_cannot_be_trusted_is_never_lent(stage: Stage, part: str) -> None:
    trust = HostTrust("cert_authority", "ssh.example", public_line(AUTHORITIES.host_ca))
    key = public_line(AUTHORITIES.user_ca)
    certificate_text = AUTHORITIES.sign_user(key, "wssh-0", time.time() + 100)
    connection = Connection("ssh.example", 22, "wssh-0", certificate_text, trust)
    if part == "host_trust":
        connection = replace(connection, host_trust=None)
    stage.plane.changes = {"connection": connection}
    with pytest.raises(Untrusted):
        stage.resolve()
    assert stage.store.held == {}
    assert stage.state.load(NAME) is None


def test_an_agent_without_certificates_gets_the_bare_key(stage: Stage) -> None:
    stage.store.refuses_certificates = True
    record = stage.resolve()
    assert record.ready is not None and record.ready.bare_key
    assert list(stage.store.held) == [record.identity]
    assert "agent-refused-certificate" in stage.log()
    assert stage.resolve() == record


def test_the_same_ssh_is_told_its_failure_at_once_and_others_are_not(stage: Stage) -> None:
    stage.plane.statuses = [MachineNotFound("no such", hint="look")]
    with pytest.raises(MachineNotFound) as caught:
        stage.resolve()
    assert not caught.value.was_shown
    with pytest.raises(MachineNotFound, match="no such") as again:
        stage.resolve(is_second=True)
    assert again.value.was_shown and again.value.hint == "look"
    assert stage.plane.count("POST") == 1
    stage.plane.statuses = ["ready"]
    assert stage.resolve(is_second=True, client="2:2").ready


def never(stage: Stage) -> Stage:
    stage.settings = replace(stage.settings, wake=(("*", "never"),))
    return stage


@pytest.mark.parametrize("phase", ["running", "starting", "accepted"])
def test_a_machine_that_is_awake_is_used_under_never(stage: Stage, phase: str) -> None:
    stage.plane.phase = phase
    assert never(stage).resolve().ready
    assert [method for method, _ in stage.plane.journal] == ["LOOK", "POST"]


def test_always_does_not_even_look(stage: Stage) -> None:
    stage.plane.phase = "sleeping"
    assert stage.resolve().ready
    assert stage.plane.count("LOOK") == 0


@pytest.mark.parametrize(
    ("phase", "said"),
    [("sleeping", "asleep"), ("stopping",) * 2, ("failed",) * 2, ("hibernating",) * 2],
)
def test_never_leaves_a_machine_asleep_and_says_how_to_wake_it(
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


def test_a_machine_that_is_going_is_left_to_the_apis_words(stage: Stage) -> None:
    stage.plane.phase = "destroyed"
    stage.plane.statuses = [MachineNotFound("gone")]
    with pytest.raises(MachineNotFound):
        never(stage).resolve()


def test_a_session_that_was_just_proved_is_used_under_never_without_a_look(stage: Stage) -> None:
    first = stage.resolve()
    stage.plane.phase = "sleeping"
    assert never(stage).resolve() == first
    assert stage.plane.count("LOOK") == 0
    stage.now = lambda: time.time() + 61
    with pytest.raises(NotWoken):
        stage.resolve()
    assert stage.plane.count("GET") == 0


def test_a_wake_under_way_is_taken_up_under_never(stage: Stage) -> None:
    stage.plane.statuses = ["wake_in_progress", ClientGone("gone"), "ready"]
    with pytest.raises(ClientGone):
        stage.resolve()
    stage.plane.phase = "starting"
    assert never(stage).resolve(client="2:2").ready
    assert len(stage.plane.keys) == 1


def test_twenty_at_once_make_one_post(stage: Stage) -> None:
    stage.plane.statuses = ["wake_in_progress"] * 3 + ["ready"]
    results = at_once(20, lambda number: stage.resolve(client=f"{number}:1"))
    assert len({str(result) for result in results}) == 1
    assert stage.plane.count("POST") == 1


def test_who_waits_for_a_machine_that_runs_is_not_told_that_it_wakes(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Agent.add_certificate

    def add_slowly(*args: Any, **kwargs: Any) -> bool:
        time.sleep(0.3)  # long enough for the others to look at what is written down
        return add(*args, **kwargs)

    monkeypatch.setattr(Agent, "add_certificate", add_slowly)
    at_once(5, lambda number: stage.resolve(client=f"{number}:1"))
    assert stage.notices == []


def test_twenty_at_once_share_one_failure(stage: Stage) -> None:
    stage.plane.statuses = ["wake_in_progress"] * 3 + ["failed"]
    results = at_once(20, lambda number: stage.resolve(client=f"{number}:1"))
    assert all(isinstance(result, SessionFailed) for result in results)
    assert stage.plane.count("POST") == 1


def at_once(count: int, work: Callable[[int], Record]) -> list[Record | DcsError]:
    results: list[Record | DcsError] = []
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        try:
            results.append(work(number))
        except DcsError as error:
            results.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_an_agent_that_cannot_be_reached_is_named(stage: Stage) -> None:
    with pytest.raises(AgentUnavailable):
        stage.resolve(open_agent=lambda name: Agent("/none.sock"))
    assert stage.plane.journal == [], "no session is asked for that nobody could use"


def test_the_private_key_is_nowhere_in_the_state_directory(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    generate = certificate.generate_key

    def remember() -> Any:
        made.append(generate())
        return made[-1]

    monkeypatch.setattr("dcs_proxy.session.resolve.generate_key", remember)
    stage.resolve()
    (key,) = made
    for path in Path(stage.state.path).rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert key.seed not in data and key.seed.hex().encode() not in data
