"""The service's machines and sessions over time, by a clock that the tests turn."""

from __future__ import annotations

import pytest

from dcs_proxy.emulator.ids import Ids
from dcs_proxy.emulator.machines import Conflict, Service, SshSession

WAKE_S, SESSION_S, AUTOSLEEP_S = 5.0, 3600.0, 300.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A service with one machine, dm-foo, and its clock."""

    def __init__(self, phase: str = "running", kind: str = "dm") -> None:
        self.clock = Clock()
        self.service = Service(WAKE_S, SESSION_S, AUTOSLEEP_S, ids=Ids(kind), now=self.clock)
        self.machine_id = self.service.add("dm-foo", phase).machine_id
        self._keys = iter(range(1000))

    def create(self, public_key: str = "KEY") -> SshSession:
        return self.service.create(self.machine_id, public_key, f"k{next(self._keys)}", public_key)

    def get(self, session: SshSession) -> SshSession:
        return self.service.get(self.machine_id, session.session_id)

    @property
    def phase(self) -> str:
        return self.service.machine(self.machine_id).phase


@pytest.mark.parametrize(
    ("phase", "status"),
    [
        ("running", "ready"),
        ("sleeping", "wake_in_progress"),
        ("stopping", "wake_in_progress"),
        ("accepted", "wake_in_progress"),
        ("destroying", "failed"),
        ("destroyed", "failed"),
        ("failed", "failed"),
    ],
)
def test_a_new_session_is_as_ready_as_its_machine(phase: str, status: str) -> None:
    assert World(phase).create().status == status


def test_a_wake_takes_its_time_and_no_less() -> None:
    world = World("sleeping")
    session = world.create()
    assert world.phase == "starting"
    world.clock.now += WAKE_S - 0.01
    assert world.get(session).status == "wake_in_progress"
    world.clock.now += 0.02
    assert world.get(session).status == "ready"
    assert world.phase == "running"


def test_a_second_session_does_not_delay_or_shorten_a_wake() -> None:
    world = World("sleeping")
    first = world.create()
    world.clock.now += WAKE_S - 1
    second = world.create()
    assert second.status == "wake_in_progress"
    world.clock.now += 1
    assert (world.get(first).status, world.get(second).status) == ("ready", "ready")


def test_with_uuids_ssh_is_ready_a_while_after_the_machine() -> None:
    world = World("sleeping", "uuid")
    session = world.create()
    world.clock.now += WAKE_S
    assert world.get(session).status == "ssh_in_progress"
    assert 1 <= world.service.retry_after_ms(session) <= 101
    world.clock.now += 0.2
    assert world.get(session).status == "ready"


def test_a_client_is_asked_to_wait_at_most_half_a_second() -> None:
    """retry_after_ms is in milliseconds, and short when the wake is nearly over."""
    world = World("sleeping")
    session = world.create()
    assert world.service.retry_after_ms(session) == 500
    world.clock.now += WAKE_S - 0.2
    assert 200 <= world.service.retry_after_ms(session) <= 201


def test_a_session_ends_when_its_time_is_over() -> None:
    world = World()
    session = world.create()
    world.service.connect(session, +1)
    world.clock.now += SESSION_S - 1
    assert world.get(session).status == "ready"
    world.clock.now += 1
    assert world.get(session).status == "expired"


def test_a_machine_sleeps_when_idle_and_its_sessions_close() -> None:
    world = World()
    session = world.create()
    world.clock.now += AUTOSLEEP_S - 1
    assert world.phase == "running"
    world.clock.now += 1
    assert world.phase == "sleeping"
    assert world.get(session).status == "closed"


def test_a_machine_with_a_connection_stays_awake() -> None:
    world = World()
    session = world.create()
    world.service.connect(session, +1)
    world.clock.now += 3 * AUTOSLEEP_S
    assert world.phase == "running"
    world.service.connect(session, -1)
    world.clock.now += AUTOSLEEP_S - 1
    assert world.phase == "running"
    world.clock.now += 1
    assert world.phase == "sleeping"


def test_a_session_is_found_under_its_own_machine_only() -> None:
    world = World()
    session = world.create()
    other = world.service.add("dm-bar", "running").machine_id
    with pytest.raises(KeyError):
        world.service.get(other, session.session_id)
    assert world.service.of_machine(other) == []
    with pytest.raises(KeyError):
        world.service.get("dm-nowhere", session.session_id)


def test_a_session_of_a_removed_machine_is_gone() -> None:
    world = World()
    session = world.create()
    world.service.remove("dm-foo")
    with pytest.raises(KeyError):
        world.get(session)
    assert session.status == "closed"


def test_an_idempotency_key_gives_the_same_session_or_a_conflict() -> None:
    world = World()
    first = world.service.create(world.machine_id, "KEY", "once", "digest")
    assert world.service.create(world.machine_id, "KEY", "once", "digest") is first
    with pytest.raises(Conflict) as conflict:
        world.service.create(world.machine_id, "OTHER", "once", "other digest")
    assert (conflict.value.first, conflict.value.second) == ("digest", "other digest")
    assert len(world.service.sessions) == 1


def test_a_login_needs_the_sessions_own_name_and_key() -> None:
    world = World()
    mine, other = world.create("MINE"), world.create("OTHER")
    find = world.service.for_login
    assert find(mine.username, "MINE") is mine
    assert find(mine.username, "OTHER") is None
    assert find(other.username, "MINE") is None
    assert find("", "MINE") is None


@pytest.mark.parametrize("status", ["closed", "failed", "expired", "wake_in_progress"])
def test_a_session_that_is_not_ready_lets_no_one_in(status: str) -> None:
    world = World()
    session = world.create()
    session.status = status
    if status == "wake_in_progress":
        world.service.put("dm-foo", "stopping")
        session.status = status
    assert world.service.for_login(session.username, "KEY") is None


@pytest.mark.parametrize("phase", ["sleeping", "stopping", "destroyed", "failed"])
def test_a_machine_that_stops_closes_its_sessions(phase: str) -> None:
    world = World()
    session = world.create()
    world.service.put("dm-foo", phase)
    assert world.get(session).status == "closed"


@pytest.mark.parametrize("status", ["closed", "expired", "failed"])
def test_an_ended_session_stays_as_it_ended(status: str) -> None:
    world = World()
    session = world.create()
    session.status = status
    world.service.close(session)
    world.service.fail(session, "CODE", "message")
    assert (session.status, session.error_code) == (status, "")


def test_each_change_of_phase_counts_as_one_revision() -> None:
    world = World("sleeping")
    world.create()
    world.create()
    machine = world.service.machine(world.machine_id)
    assert (machine.phase, machine.revision) == ("starting", 2)


@pytest.mark.parametrize("name", ["", "foo", "DM-foo", "dm-", "dm-a_b", "dm-a.b", "dm-foo-"])
def test_a_machine_has_a_valid_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}$"):
        World().service.add(name, "running")
