"""Where the private agents' sockets are."""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path

import pytest

from dcs_proxy.errors import AgentRefused, AgentUnavailable, DcsError, StateError
from dcs_proxy.local.lock import LockHeld, try_lock
from dcs_proxy.local.log import Log
from dcs_proxy.local.trusted_file import Distrust
from dcs_proxy.ssh import private_agents
from dcs_proxy.ssh.agent import Agent, Identity
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.keys import CERTIFICATE_TYPE, KEY_TYPE, public_blob
from dcs_proxy.ssh.private_agents import PrivateAgents, end_idle_agents
from dcs_proxy.ssh.wire import Reader, pack_string
from tests.support.fake_agent import FakeAgent, Store, socket_directory


def test_the_sockets_are_in_the_order_in_which_they_are_used(tmp_path: Path) -> None:
    agents = PrivateAgents(str(tmp_path))
    for name in ("agent-10.sock", "agent-2.sock", "03.sock", "x.sock", "agent-2.pid", "lock"):
        (tmp_path / "sockets" / name).touch()
    found = [os.path.basename(path) for path in agents.paths()]
    assert found == ["agent-2.sock", "03.sock", "agent-10.sock", "x.sock"]


def test_sockets_in_a_deep_directory_get_short_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    deep = str(tmp_path / ("d" * 90))
    path = PrivateAgents(deep).path(999)
    assert len(path) < 100 and path == PrivateAgents(deep).path(999)
    for directory in (os.path.dirname(path), os.path.dirname(os.path.dirname(path))):
        assert os.stat(directory).st_mode & 0o777 == 0o700
    assert path != PrivateAgents(f"{deep}2").path(999)


def test_without_agents_there_are_no_sockets(tmp_path: Path) -> None:
    agents = PrivateAgents(str(tmp_path))
    assert (agents.paths(), agents.holders(), agents.end()) == ([], {}, [])


def test_a_file_in_the_way_of_the_sockets_is_told(tmp_path: Path) -> None:
    (tmp_path / "sockets").write_text("")
    with pytest.raises(StateError, match="sockets is not a directory"):
        PrivateAgents(str(tmp_path)).paths()


def test_the_remedy_for_a_state_directory_of_anyones_is_not_a_shorter_path(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(StateError, match="is writable by other users") as caught:
        PrivateAgents(str(tmp_path))
    assert caught.value.hint == f"chmod go-w {tmp_path}"


def test_only_the_agents_that_hold_no_keys_are_idle(tmp_path: Path) -> None:
    with socket_directory() as state:
        agents = PrivateAgents(state)
        used = agents.ready(timeout_s=30)
        try:
            used.add_key(generate_key(), comment="dm-foo", lifetime_s=60)
            end_idle_agents(state, Log(str(tmp_path / "log")))
            assert len(used.identities()) == 1
            used.remove(used.identities()[0].blob)
            end_idle_agents(state, Log(str(tmp_path / "log")))
            assert agents.paths() == []
        finally:
            agents.end(unless_used=False, timeout_s=30)


def test_looking_for_idle_agents_makes_no_directory_and_never_fails(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"))
    end_idle_agents(str(tmp_path / "none"), log)
    assert not (tmp_path / "none").exists()
    (tmp_path / "sockets").mkdir(mode=0o777)
    (tmp_path / "sockets").chmod(0o777)
    end_idle_agents(str(tmp_path), log)


@pytest.mark.parametrize(
    ("number", "is_outside"),
    [
        (errno.EPERM, True),  # sshfs, CIFS, exFAT
        (errno.EOPNOTSUPP, True),
        (errno.ENOSYS, True),
        (errno.EINVAL, True),
        (errno.EROFS, False),
        (errno.ENOSPC, False),
    ],
)
def test_where_no_socket_can_be_made_they_are_elsewhere(
    monkeypatch: pytest.MonkeyPatch, number: int, is_outside: bool
) -> None:
    tried = []

    class Refusing(socket.socket):
        def bind(self, path: object) -> None:
            tried.append(os.path.split(str(path)))
            raise OSError(number, os.strerror(number))

    with socket_directory() as short:
        state = f"{short}/state"
        os.mkdir(state, 0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
        monkeypatch.setattr(socket, "socket", Refusing)
        assert PrivateAgents(state).is_outside(state) is is_outside
    ((directory, name),) = tried
    assert directory == state and name.endswith(".tmp")


def test_looking_at_the_file_system_leaves_nothing_behind(tmp_path: Path) -> None:
    PrivateAgents(str(tmp_path))
    assert os.listdir(tmp_path) == ["sockets"]


def test_agents_can_be_looked_at_without_making_a_directory(tmp_path: Path) -> None:
    agents = PrivateAgents(str(tmp_path / "none"), create=False)
    assert (agents.paths(), agents.holders(), agents.end()) == ([], {}, [])
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's directory")
def test_a_directory_that_another_user_has_made_first_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket_directory() as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        base = Path(runtime) / "dcs-proxy"
        base.mkdir(mode=0o700)
        os.chown(base, 65534, 65534)
        with pytest.raises(StateError, match="belongs to another user") as caught:
            PrivateAgents(str(tmp_path / ("x" * 100)))
    assert f"sudo rm -r {base}" in caught.value.hint
    assert "DCS_PROXY_HOME to a shorter path" in caught.value.hint


def test_a_file_in_the_way_of_the_directory_is_to_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket_directory() as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        base = Path(runtime) / "dcs-proxy"
        base.touch()
        with pytest.raises(StateError, match="is not a directory") as caught:
            PrivateAgents(str(tmp_path / ("x" * 100)))
    assert caught.value.hint.startswith(f"have it removed (sudo rm -r {base}), or set")


def test_a_problem_of_tmp_is_none_of_the_runtime_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise StateError("no", hint="")

    distrust = Distrust("/tmp", "is writable by other users", "")
    monkeypatch.setattr(private_agents, "find_distrust", lambda path: distrust)
    with pytest.raises(StateError) as caught:
        private_agents._check_outside("/tmp/dcs-proxy-7", refuse)
    assert "XDG_RUNTIME_DIR" not in caught.value.hint


def test_a_runtime_directory_that_others_can_change_is_to_be_unset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket_directory() as runtime:
        os.chmod(runtime, 0o777)
        monkeypatch.setenv("XDG_RUNTIME_DIR", f"{runtime}/")
        with pytest.raises(StateError) as caught:
            PrivateAgents(str(tmp_path / ("x" * 100)))
    assert f"{runtime} is writable by other users" in caught.value.message
    assert caught.value.hint.startswith("unset XDG_RUNTIME_DIR, or set DCS_PROXY_HOME")


def test_a_runtime_directory_is_used_if_it_leaves_room_for_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = str(tmp_path / ("d" * 90))
    monkeypatch.chdir(tmp_path)
    os.mkdir("relative")
    with socket_directory() as short:
        long = f"{short}/{'r' * 50}"
        os.mkdir(long)
        places = {}
        for runtime in (short, long, f"{short}/missing", "relative", ""):
            monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
            places[runtime] = os.path.dirname(PrivateAgents(deep, create=False).place)
    assert places.pop(short) == f"{short}/dcs-proxy"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    places["unset"] = os.path.dirname(PrivateAgents(deep, create=False).place)
    assert set(places.values()) == {f"/tmp/dcs-proxy-{os.geteuid()}"}


def test_the_longest_runtime_directory_leaves_room_for_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket_directory() as short:
        runtime = f"{short}/{'r' * (48 - len(short))}"
        os.mkdir(runtime, 0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        path = PrivateAgents(str(tmp_path / ("d" * 90)), create=False).path(999)
    assert path.startswith(f"{runtime}/dcs-proxy/") and len(path) <= 100


def test_an_agent_that_does_not_answer_properly_is_left_alone() -> None:
    with socket_directory() as state:
        agents = PrivateAgents(state)
        agent = FakeAgent(agents.path(1))
        agent.answer = lambda request: b""  # closes the connection instead
        agent.thread.start()
        try:
            assert agents.end(timeout_s=30) == []
            assert agents.holders() == {}
        finally:
            agent.stop()
        assert agents.paths() == [agents.path(1)]


@pytest.mark.parametrize("kind", [AgentRefused, AgentUnavailable])
def test_an_agent_that_refuses_to_list_its_keys_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[DcsError]
) -> None:
    def fail(path: str, limit_s: float = 0.0) -> list[Identity]:
        raise kind("the agent refused to list identities")

    agents = PrivateAgents(str(tmp_path))
    Path(agents.path(1)).touch()
    monkeypatch.setattr(private_agents, "held_by", fail)
    assert agents.holders() == {}
    assert agents.end(timeout_s=30) == []
    assert agents.paths() == [agents.path(1)]


def test_an_agent_that_does_not_answer_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fail(path: str, limit_s: float) -> list[Identity]:
        asked.append(os.path.basename(path))
        raise AgentUnavailable("did not answer within 2 s")

    agents = PrivateAgents(str(tmp_path), Log(str(tmp_path / "log")))
    for number in (1, 2):
        Path(agents.path(number)).touch()
    monkeypatch.setattr(private_agents, "held_by", fail)
    for _ in range(2):
        added = agents.add_key(
            generate_key(), comment="dm-foo", lifetime_s=60, may_start=False, timeout_s=30
        )
        assert added is None
    assert asked == ["agent-1.sock", "agent-2.sock"]
    assert (tmp_path / "log").read_text().count(" agent-skipped ") == 2


@pytest.mark.parametrize("reply", [b"\0\0\0\1\x05", b""], ids=["refuses", "hangs up"])
def test_a_key_that_the_first_agent_does_not_take_goes_to_the_next(reply: bytes) -> None:
    """The first one lists no keys, as an agent that is locked."""
    with socket_directory() as state:
        agents = PrivateAgents(state)
        first, second = (FakeAgent(agents.path(number)) for number in (1, 2))
        nothing = Store()
        first.answer = lambda request: nothing(request) if request == b"\x0b" else reply
        second.answer = store = Store()
        for agent in (first, second):
            agent.thread.start()
        key = generate_key()
        try:
            added = agents.add_key(
                key, comment="dm-foo", lifetime_s=60, may_start=False, timeout_s=30
            )
        finally:
            first.stop()
            second.stop()
        assert added is not None and added.path == agents.path(2)
        assert store.held == {key.blob: b"dm-foo"}


def test_only_a_socket_without_an_agent_is_removed(tmp_path: Path) -> None:
    with socket_directory() as state:
        agents = PrivateAgents(state)
        Path(agents.path(1)).write_text("not a socket")
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(agents.path(2))
        assert agents.end(timeout_s=30) == []
        assert agents.paths() == [agents.path(1)]


def test_a_new_agent_gets_the_first_number_that_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(private_agents, "start_agent", lambda path, _: started.append(path))
    agents = PrivateAgents(str(tmp_path))
    for number in (1, 2, 4):
        os.symlink("/nowhere", agents.path(number))
    assert agents._start(0.0).path == agents.path(3)
    assert started == [agents.path(3)]


def test_every_agent_that_holds_identities_of_a_machine_is_found() -> None:
    with socket_directory() as state:
        agents = PrivateAgents(state)
        running = [FakeAgent(agents.path(number)) for number in (1, 2, 3)]
        for agent in running:
            agent.answer = Store()
            agent.thread.start()
        try:
            for path, comment in (
                (1, "dm-foo"), (1, "dm-foo via gateway"), (2, "dm-foo via gateway"), (2, "dm-bar"),
            ):  # fmt: skip
                Agent(agents.path(path)).add_key(generate_key(), comment=comment, lifetime_s=60)
            one, two = agents.path(1), agents.path(2)
            assert agents.holders() == {"dm-foo": {one, two}, "dm-bar": {two}}
        finally:
            for agent in running:
                agent.stop()


def test_the_length_of_a_path_is_that_of_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    room = 100 - len("/nowhere//sockets/agent-999.sock")
    for name, is_outside in (("a" * room, False), ("a" * (room + 1), True), ("é" * 60, True)):
        state = f"/nowhere/{name}"
        assert PrivateAgents(state, create=False).is_outside(state) is is_outside


class Held:
    """What the agents at some sockets hold, in the place of asking them."""

    def __init__(self, agents: PrivateAgents, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held: dict[str, list[Identity]] = {}
        self.limits: list[float] = []
        self.agents = agents
        monkeypatch.setattr(private_agents, "held_by", self.held_by)

    def put(self, number: int, *identities: Identity) -> None:
        Path(self.agents.path(number)).touch()
        self.held[self.agents.path(number)] = list(identities)

    def held_by(self, path: str, limit_s: float = 2.0) -> list[Identity]:
        self.limits.append(limit_s)
        return self.held[path]


def identities(count: int, first: int = 0) -> list[Identity]:
    return [Identity(public_blob(bytes([first + n]) * 32), "dm-foo") for n in range(count)]


def certified(bare: Identity) -> Identity:
    public = Reader(bare.blob[len(pack_string(KEY_TYPE)) :]).string()
    blob = pack_string(CERTIFICATE_TYPE) + pack_string(b"nonce") + pack_string(public)
    return Identity(blob + b"more", "dm-foo via gateway")


@pytest.fixture
def agents(tmp_path: Path) -> PrivateAgents:
    return PrivateAgents(str(tmp_path), Log(str(tmp_path / "log")))


@pytest.fixture
def held(agents: PrivateAgents, monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(agents, monkeypatch)


@pytest.fixture
def started(agents: PrivateAgents, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sockets of the agents that were started."""
    paths: list[str] = []

    def start(path: str, deadline: float) -> None:
        # In time for those who wait 30 s.
        assert 20 < deadline - time.monotonic() <= 30
        paths.append(path)

    monkeypatch.setattr(private_agents, "start_agent", start)
    return paths


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """The sockets of the agents that got a key, its comment and lifetime."""
    given: list[tuple[str, str, int]] = []

    def add_key(agent: Agent, key: object, *, comment: str, lifetime_s: int) -> bool:
        assert agent._log is not None
        given.append((agent.path, comment, lifetime_s))
        return False

    monkeypatch.setattr(Agent, "add_key", add_key)
    return given


def add(agents: PrivateAgents, *, may_start: bool = False) -> str | None:
    agent = agents.add_key(
        generate_key(), comment="dm-bar", lifetime_s=77, may_start=may_start, timeout_s=30
    )
    return agent and os.path.basename(agent.path)


def test_a_key_goes_to_the_first_agent_with_fewer_than_eight(
    agents: PrivateAgents, held: Held, added: list[tuple[str, str, int]]
) -> None:
    held.put(1, *identities(8))
    held.put(2, *identities(6), Identity(b"malformed", ""), Identity(b"other", ""))
    assert add(agents) is None
    held.put(3, *identities(7))
    held.put(4)
    assert add(agents) == "agent-3.sock"
    assert added == [(agents.path(3), "dm-bar", 77)]


def test_a_key_and_its_certificate_count_once(
    agents: PrivateAgents, held: Held, added: list[tuple[str, str, int]]
) -> None:
    keys = identities(7)
    held.put(1, *keys, *map(certified, keys))
    assert add(agents) == "agent-1.sock"
    held.put(1, *keys, *map(certified, identities(1, first=7)))
    assert add(agents) is None


@pytest.mark.parametrize("is_full", [True, False], ids=["all are full", "there is none"])
def test_an_agent_is_started_only_where_that_is_allowed(
    agents: PrivateAgents,
    held: Held,
    started: list[str],
    added: list[tuple[str, str, int]],
    is_full: bool,
) -> None:
    if is_full:
        held.put(1, *identities(8))
    assert add(agents) is None and started == added == []
    assert add(agents, may_start=True) == ("agent-2.sock" if is_full else "agent-1.sock")
    assert started == [path for path, _, _ in added]
    log = Path(agents.place).parent.joinpath("log").read_text()
    assert f" agent-started path={started[0]}" in log


def test_any_agent_that_answers_is_ready_and_one_is_started_if_none_does(
    agents: PrivateAgents, held: Held, started: list[str]
) -> None:
    held.put(2, *identities(8))
    agent = agents.ready(timeout_s=30)
    assert agent.path == agents.path(2) and agent._log is agents._log
    assert started == []
    os.unlink(agents.path(2))
    agent = agents.ready(timeout_s=30)
    assert agent.path == agents.path(1) and agent._log is agents._log
    assert started == [agents.path(1)]


@pytest.mark.parametrize("unless_used", [True, False])
def test_agents_that_hold_nothing_are_ended_or_all(
    agents: PrivateAgents, held: Held, monkeypatch: pytest.MonkeyPatch, unless_used: bool
) -> None:
    ended: list[str] = []

    def end(path: str) -> bool:
        ended.append(path)
        return path != agents.path(3)

    monkeypatch.setattr(private_agents, "end_agent", end)
    held.put(1)
    held.put(2, *identities(1))
    held.put(3)
    assert agents.end(unless_used=unless_used, timeout_s=30) == [agents.path(3)]
    wanted = (1, 3) if unless_used else (1, 2, 3)
    assert ended == [agents.path(number) for number in wanted]
    assert held.limits == [0.5] * 3, "one that is stopped must not hold up a command for long"


def test_idle_agents_that_do_not_answer_are_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str, limit_s: float) -> list[Identity]:
        raise AgentUnavailable("did not answer within 0.5 s")

    Path(PrivateAgents(str(tmp_path)).path(1)).touch()
    monkeypatch.setattr(private_agents, "held_by", fail)
    end_idle_agents(str(tmp_path), Log(str(tmp_path / "log")))
    assert " agent-skipped " in (tmp_path / "log").read_text()


def test_ending_agents_waits_for_another_command_as_long_as_it_is_told(
    agents: PrivateAgents, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def wait(path: str, *, timeout_s: float, what: str) -> None:
        waits.append(timeout_s)
        raise LockHeld("held", hint="")

    held.put(1)
    monkeypatch.setattr(private_agents, "wait_for_lock", wait)
    for timeout_s in (0.0, 30.0):
        with pytest.raises(AgentUnavailable):
            agents.end(timeout_s=timeout_s)
    assert waits[0] == 0.0 and 20 < waits[1] <= 30


def test_another_process_that_works_on_the_agents_is_named(
    agents: PrivateAgents, held: Held, started: list[str], added: list[tuple[str, str, int]]
) -> None:
    held.put(1)
    lock = try_lock(os.path.join(agents.place, "lock"))
    assert lock is not None
    with lock:
        for call in (
            lambda: agents.end(),
            lambda: agents.ready(timeout_s=0.0),
            lambda: agents.add_key(
                generate_key(), comment="", lifetime_s=1, may_start=True, timeout_s=-1
            ),
        ):
            with pytest.raises(AgentUnavailable) as caught:
                call()
            assert f"dcs-proxy (process {os.getpid()}) has held" in caught.value.message
            assert caught.value.message.endswith(" for 0 s")
            assert caught.value.hint == "end that process if it is stopped, and try again"
    assert started == added == []
    assert agents.ready(timeout_s=30).path == agents.path(1)


def test_agents_cannot_be_used_without_the_program(
    agents: PrivateAgents, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents.check()
    monkeypatch.setattr(private_agents, "agent_program", lambda: pytest.fail("it was asked"))
    with pytest.raises(pytest.fail.Exception):
        agents.check()


@pytest.mark.parametrize(
    ("comment", "machine"),
    [("dm-foo", "dm-foo"), ("dm-foo via gateway", "dm-foo"), ("dm-a via b via c", "dm-a")],
)
def test_a_comment_begins_with_the_machine(comment: str, machine: str) -> None:
    assert private_agents.machine_of(Identity(b"", comment)) == machine


def test_an_agents_socket_is_recognised_by_whatever_name(tmp_path: Path) -> None:
    with (
        socket_directory() as directory,
        socket.socket(socket.AF_UNIX) as ours,
        socket.socket(socket.AF_UNIX) as theirs,
    ):
        agents = PrivateAgents(directory)
        ours.bind(agents.path(3))
        theirs.bind(f"{directory}/own")
        for name, target in (("link", agents.path(3)), ("chain", "link"), ("place", agents.place)):
            (tmp_path / name).symlink_to(target)
        assert agents.has(agents.path(3))
        assert agents.has(f"{agents.place}/../sockets/agent-3.sock")
        assert all(agents.has(str(tmp_path / path)) for path in ("link", "chain"))
        assert agents.has(str(tmp_path / "place" / "agent-3.sock"))
        assert not agents.has(f"{directory}/own")
        assert not agents.has(str(tmp_path / "none")) and not agents.has("")


def test_an_agents_socket_of_another_state_directory_is_recognised(tmp_path: Path) -> None:
    agents = PrivateAgents(str(tmp_path / "state"))
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "link").symlink_to(other / "agent-12.sock")
    assert not agents.has(str(other / "agent-12.sock"))
    (other / "lock").touch()
    assert agents.has(str(other / "agent-12.sock")) and agents.has(str(tmp_path / "link"))
    for name in ("agent.sock", "agent-.sock", "agent-1.sock.d", "my-agent-1.sock", "agent-1.pid"):
        assert not agents.has(str(other / name))
