from __future__ import annotations

import os
import signal
import socket
import time
from typing import Any

import pytest

from dcs_proxy.errors import AgentUnavailable, StateError
from dcs_proxy.local.files import write_atomically
from dcs_proxy.ssh import agent_process
from dcs_proxy.ssh.agent import AgentMissing
from tests.support.fake_agent import socket_directory


class Process:
    """A process that was started, and exits with `status`."""

    def __init__(self, status: int | None) -> None:
        self.pid = 4242
        self.status = status
        self.was_killed = self.was_awaited = False

    def poll(self) -> int | None:
        return self.status

    def kill(self) -> None:
        self.was_killed = True

    def wait(self) -> None:
        assert self.was_killed
        self.was_awaited = True


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """How the agent's program was started; "process" is what became of it."""
    found: dict[str, Any] = {"process": Process(None)}

    def start(words: list[str], **options: Any) -> Process:
        found.update(options, words=words)
        process: Process = found["process"]
        return process

    monkeypatch.setattr(agent_process, "start", start)
    return found


def test_an_agent_lives_in_a_session_of_its_own_without_our_environment(
    monkeypatch: pytest.MonkeyPatch, started: dict[str, Any]
) -> None:
    monkeypatch.setattr(agent_process, "_answers", lambda path, deadline: True)
    with socket_directory() as directory:
        path = f"{directory}/agent-1.sock"
        agent_process.start_agent(path, time.monotonic() + 60)
        with open(f"{directory}/agent-1.pid", encoding="ascii") as file:
            assert file.read() == "4242\n"
    assert started["words"][1:] == ["-D", "-a", path]
    assert os.path.isabs(started["words"][0])
    assert (started["environment"], started["cwd"]) == ({"PATH": os.defpath}, "/")
    assert started["new_session"] is True


@pytest.mark.parametrize(
    ("status", "seconds", "said"),
    [(3, 60, "exit status 3"), (None, -1, "it did not start in time")],
)
def test_an_agent_that_does_not_listen_is_ended(
    monkeypatch: pytest.MonkeyPatch,
    started: dict[str, Any],
    status: int | None,
    seconds: float,
    said: str,
) -> None:
    process = started["process"] = Process(status)
    monkeypatch.setattr(agent_process, "_answers", lambda path, deadline: False)
    with socket_directory() as directory:
        with pytest.raises(AgentUnavailable, match=f"does not listen on .*: {said}"):
            agent_process.start_agent(f"{directory}/agent-1.sock", time.monotonic() + seconds)
        assert os.listdir(directory) == []
    assert process.was_killed is process.was_awaited is (status is None)


def descriptors() -> set[str]:
    return set(os.listdir("/dev/fd"))


def test_an_agent_is_asked_again_a_little_later_each_time(
    monkeypatch: pytest.MonkeyPatch, started: dict[str, Any]
) -> None:
    answers = iter([False] * 7 + [True])
    pauses: list[float] = []
    monkeypatch.setattr(agent_process, "_answers", lambda path, deadline: next(answers))
    monkeypatch.setattr(time, "sleep", pauses.append)
    before = descriptors()
    with socket_directory() as directory:
        agent_process.start_agent(f"{directory}/agent-1.sock", time.monotonic() + 60)
    assert pauses == [0.001, 0.002, 0.004, 0.008, 0.016, 0.02, 0.02]
    assert descriptors() == before
    assert not started["process"].was_killed


@pytest.mark.parametrize(
    ("said", "is_held_open", "reason"),
    [
        (b"bind: No such\nfile\n", False, '"bind: No such file"'),
        (b"bind: \xff", True, '"bind: \ufffd"'),
        (b"", True, "exit status 3"),
        (b" \n", False, "exit status 3"),
    ],
)
def test_what_an_agent_writes_before_it_exits_is_the_reason(
    monkeypatch: pytest.MonkeyPatch,
    started: dict[str, Any],
    said: bytes,
    is_held_open: bool,
    reason: str,
) -> None:
    """A child of it may still hold the pipe open."""
    before = descriptors()
    held: list[int] = []

    def start(words: list[str], *, stderr: int, **options: Any) -> Process:
        os.write(stderr, said)
        if is_held_open:
            held.append(os.dup(stderr))
        return Process(3)

    monkeypatch.setattr(agent_process, "start", start)
    monkeypatch.setattr(agent_process, "_answers", lambda path, deadline: False)
    with socket_directory() as directory:
        write_atomically(path := f"{directory}/agent-1.sock", b"")
        with pytest.raises(AgentUnavailable) as caught:
            agent_process.start_agent(path, time.monotonic() + 60)
        assert not os.path.exists(path), "it would be in the way of the next"
    assert caught.value.message == f"ssh-agent does not listen on {path}: {reason}"
    assert caught.value.hint == "check that ssh-agent works: ssh-agent true && echo ok"
    for fd in held:
        os.close(fd)
    assert descriptors() == before


@pytest.mark.parametrize("error", [StateError("the disk is full"), KeyboardInterrupt()])
def test_an_agent_whose_number_cannot_be_written_does_not_stay(
    monkeypatch: pytest.MonkeyPatch, started: dict[str, Any], error: BaseException
) -> None:
    def fail(path: str, data: bytes) -> None:
        raise error

    monkeypatch.setattr(agent_process, "_answers", lambda path, deadline: True)
    monkeypatch.setattr(agent_process, "write_atomically", fail)
    with socket_directory() as directory:
        write_atomically(path := f"{directory}/agent-1.sock", b"")
        with pytest.raises(type(error)):
            agent_process.start_agent(path, time.monotonic() + 60)
        assert os.listdir(directory) == []
        monkeypatch.setattr(agent_process, "remove_file", lambda path: fail(path, b""))
        started["process"] = Process(None)
        with pytest.raises(type(error)):
            agent_process.start_agent(path, time.monotonic() + 60)
    assert started["process"].was_killed


def test_an_agent_program_that_cannot_be_run_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(words: list[str], **options: Any) -> Process:
        raise PermissionError(13, "Permission denied")

    before = descriptors()
    monkeypatch.setattr(agent_process, "start", start)
    monkeypatch.setattr(agent_process, "agent_program", lambda: "/opt/ssh-agent")
    with pytest.raises(AgentUnavailable) as caught:
        agent_process.start_agent("/nowhere/agent-1.sock", time.monotonic() + 60)
    assert caught.value.message == "cannot run /opt/ssh-agent: Permission denied"
    assert caught.value.hint and descriptors() == before


def test_a_computer_without_ssh_agent_gets_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def find(name: str, environment: Any, more: Any) -> str | None:
        asked.append((name, environment is os.environ, "/usr/bin" in more))
        return None

    monkeypatch.setattr(agent_process, "find_program", find)
    monkeypatch.setattr(agent_process, "install_hint", lambda environment: "install it")
    before = descriptors()
    with pytest.raises(AgentUnavailable, match=r"^ssh-agent is not installed$") as caught:
        agent_process.start_agent("/nowhere/agent-1.sock", time.monotonic() + 60)
    assert caught.value.hint == "install it" and asked == [("ssh-agent", True, True)]
    assert descriptors() == before


@pytest.mark.parametrize(
    ("error", "answers", "listens"),
    [
        (None, True, True),
        (AgentMissing("no agent listens"), False, False),
        (AgentUnavailable("did not answer"), None, True),
    ],
)
def test_only_a_missing_agent_does_not_listen(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, answers: bool | None, listens: bool
) -> None:
    """One that does not answer must neither be taken for ready nor get a second one beside it."""

    class Asked:
        def __init__(self, path: str, *, timeout_s: float) -> None:
            assert path == "/agent-1.sock" and 0 < timeout_s <= 2

        def pid(self) -> int:
            if error is not None:
                raise error
            return 1

        def identities(self) -> list[object]:
            self.pid()
            return []

    monkeypatch.setattr(agent_process, "Agent", Asked)
    assert agent_process._is_listening("/agent-1.sock") is listens
    deadline = time.monotonic() + 1
    if answers is None:
        with pytest.raises(AgentUnavailable):
            agent_process._answers("/agent-1.sock", deadline)
    else:
        assert agent_process._answers("/agent-1.sock", deadline) is answers


def test_an_agent_is_asked_even_at_the_last_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    monkeypatch.setattr(agent_process, "held_by", lambda path, limit_s: limits.append(limit_s))
    assert agent_process._answers("/agent-1.sock", time.monotonic() - 5)
    assert agent_process._answers("/agent-1.sock", time.monotonic() + 500)
    assert limits[0] == pytest.approx(0.1) and limits[1] == pytest.approx(500, abs=50)


def test_the_end_of_an_agent_is_awaited_for_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(agent_process, "_is_listening", lambda path: True)
    agent_process._await_end("/agent-1.sock")
    assert 1002 <= now[0] < 1002.1
    monkeypatch.setattr(agent_process, "_is_listening", lambda path: now[0] < 1003)
    agent_process._await_end("/agent-1.sock")
    assert 1003 <= now[0] < 1003.1


def test_an_agent_that_ends_by_itself_meanwhile_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(pid: int, number: int) -> None:
        listening.clear()
        raise ProcessLookupError

    listening = [True]
    monkeypatch.setattr(agent_process, "_is_listening", lambda path: bool(listening))
    monkeypatch.setattr(agent_process, "_find_pid", lambda path: 4242)
    monkeypatch.setattr(os, "kill", gone)
    with socket_directory() as directory:
        for name in ("agent-1.sock", "agent-1.pid"):
            write_atomically(f"{directory}/{name}", b"")
        assert agent_process.end_agent(f"{directory}/agent-1.sock")
        assert os.listdir(directory) == []


@pytest.mark.parametrize(
    ("ends_at", "has_ended"),
    [([signal.SIGTERM], True), ([signal.SIGTERM, signal.SIGKILL], True), ([], False)],
)
def test_an_agent_that_does_not_end_when_asked_is_killed(
    monkeypatch: pytest.MonkeyPatch, ends_at: list[signal.Signals], has_ended: bool
) -> None:
    sent: list[int] = []

    def is_listening(path: str) -> bool:
        return sent != ends_at or not ends_at

    monkeypatch.setattr(agent_process, "_find_pid", lambda path: 4242)
    monkeypatch.setattr(agent_process, "_is_listening", is_listening)
    awaited: list[int] = []
    monkeypatch.setattr(agent_process, "_await_end", lambda path: awaited.append(sent[-1]))
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number))
    with socket_directory() as directory:
        for name in ("agent-1.sock", "agent-1.pid"):
            write_atomically(f"{directory}/{name}", b"")
        assert agent_process.end_agent(f"{directory}/agent-1.sock") is has_ended
        assert bool(os.listdir(directory)) is not has_ended
    assert sent == awaited == (ends_at or [signal.SIGTERM, signal.SIGKILL])


def test_an_agent_whose_process_is_not_known_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_process, "_find_pid", lambda path: None)
    monkeypatch.setattr(agent_process, "_is_listening", lambda path: True)
    monkeypatch.setattr(os, "kill", lambda pid, number: pytest.fail("a process was ended"))
    assert not agent_process.end_agent("/does/not/exist/agent-1.sock")


def test_an_agent_that_has_ended_already_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_process, "_find_pid", lambda path: 4242)
    monkeypatch.setattr(agent_process, "_is_listening", lambda path: False)
    monkeypatch.setattr(os, "kill", lambda pid, number: pytest.fail("a process was ended"))
    assert agent_process.end_agent("/does/not/exist/agent-1.sock")


def test_the_number_beside_the_socket_is_used_if_the_kernel_does_not_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Missing:
        def __init__(self, path: str, **options: Any) -> None:
            pass

        def pid(self) -> int:
            raise AgentMissing("none listens")

    monkeypatch.setattr(agent_process, "Agent", Missing)
    with socket_directory() as directory:
        assert agent_process._find_pid(f"{directory}/agent-1.sock") is None
        for text, pid in (("17\n", 17), ("x\n", None), ("-1\n", None)):
            write_atomically(f"{directory}/agent-1.pid", text.encode())
            assert agent_process._find_pid(f"{directory}/agent-1.sock") == pid


def test_the_process_that_the_kernel_names_is_believed_before_a_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Known:
        def __init__(self, path: str, **options: Any) -> None:
            assert options == {"timeout_s": 2.0}

        def pid(self) -> int:
            return 55

    monkeypatch.setattr(agent_process, "Agent", Known)
    with socket_directory() as directory:
        write_atomically(f"{directory}/agent-1.pid", b"17\n")
        assert agent_process._find_pid(f"{directory}/agent-1.sock") == 55


def test_only_a_socket_itself_is_one() -> None:
    with socket_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path := f"{directory}/agent-1.sock")
        os.symlink(path, link := f"{directory}/link")
        write_atomically(file := f"{directory}/file", b"")
        found = [agent_process.is_socket(each) for each in (path, link, file, f"{directory}/none")]
    assert found == [True, False, False, False]


def test_an_agent_of_root_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []

    def refuse(pid: int, number: int) -> None:
        sent.append(number)
        raise PermissionError

    monkeypatch.setattr(agent_process, "_is_listening", lambda path: True)
    monkeypatch.setattr(agent_process, "_find_pid", lambda path: 1)
    monkeypatch.setattr(os, "kill", refuse)
    assert agent_process.end_agent("/nowhere/agent-1.sock") is False
    assert sent == [signal.SIGTERM]
