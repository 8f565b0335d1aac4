from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from dcs_proxy.errors import AgentUnavailable
from dcs_proxy.local.files import write_atomically
from dcs_proxy.ssh import agent_process
from dcs_proxy.ssh.agent import AgentMissing
from tests.support.fake_agent import socket_directory


class Process:
    """A process that was started, and exits with `status`."""

    def __init__(self, status: int | None) -> None:
        self.pid = 4242
        self.status = status
        self.was_killed = False

    def poll(self) -> int | None:
        return self.status

    def kill(self) -> None:
        self.was_killed = True

    def wait(self) -> None:
        pass


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
    assert process.was_killed is (status is None)


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
    monkeypatch.setattr(agent_process, "_await_end", lambda path: None)
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number))
    with socket_directory() as directory:
        for name in ("agent-1.sock", "agent-1.pid"):
            write_atomically(f"{directory}/{name}", b"")
        assert agent_process.end_agent(f"{directory}/agent-1.sock") is has_ended
        assert bool(os.listdir(directory)) is not has_ended
    assert sent == (ends_at or [signal.SIGTERM, signal.SIGKILL])


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


def test_an_agent_of_root_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(agent_process, "_is_listening", lambda path: True)
    monkeypatch.setattr(agent_process, "_find_pid", lambda path: 1)
    monkeypatch.setattr(os, "kill", refuse)
    assert agent_process.end_agent("/nowhere/agent-1.sock") is False
