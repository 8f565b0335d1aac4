"""Where the private agents' sockets are."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from dcs_proxy.errors import AgentRefused, AgentUnavailable, DcsError, StateError
from dcs_proxy.local.log import Log
from dcs_proxy.ssh import private_agents
from dcs_proxy.ssh.agent import Agent, Identity
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.private_agents import PrivateAgents, end_idle_agents
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
    class Refusing(socket.socket):
        def bind(self, _: object) -> None:
            raise OSError(number, os.strerror(number))

    with socket_directory() as short:
        state = f"{short}/state"
        os.mkdir(state, 0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
        monkeypatch.setattr(socket, "socket", Refusing)
        assert PrivateAgents(state).is_outside(state) is is_outside


def test_looking_at_the_file_system_leaves_nothing_behind(tmp_path: Path) -> None:
    PrivateAgents(str(tmp_path))
    assert os.listdir(tmp_path) == ["sockets"]


def test_agents_can_be_looked_at_without_making_a_directory(tmp_path: Path) -> None:
    agents = PrivateAgents(str(tmp_path / "none"), create=False)
    assert agents.paths() == []
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
    with socket_directory() as short:
        long = f"{short}/{'r' * 50}"
        os.mkdir(long)
        places = {}
        for runtime in (short, long, f"{short}/missing", "relative", ""):
            monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
            places[runtime] = os.path.dirname(PrivateAgents(deep, create=False).place)
    assert places.pop(short) == f"{short}/dcs-proxy"
    assert set(places.values()) == {f"/tmp/dcs-proxy-{os.geteuid()}"}


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
    for name, is_outside in (("a" * 60, False), ("é" * 60, True)):
        state = f"/nowhere/{name}"
        assert PrivateAgents(state, create=False).is_outside(state) is is_outside
