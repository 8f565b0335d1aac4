"""Waiting for a machine that has woken to let a login in."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.errors import ClientGone, DeadlineExceeded
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.log import Log
from dcs_proxy.local.programs import Output
from dcs_proxy.names import MachineName
from dcs_proxy.openssh.config_text import session_options
from dcs_proxy.publish import guest
from dcs_proxy.publish.includes import write_identity
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import Attempt, ReadySession, Record

NAME = MachineName("dm-foo")
READY = ReadySession("ssh.example", 2222, "wssh-1", "ssh-ed25519 AAAA", "", True, 9.0, 1.0, 1.0)
RECORD = Record(Attempt("k", "ab" * 32, "/agent.sock", 2000.0, "a"), READY, "")


def log_in(script: str, deadline: Deadline | None = None) -> str:
    return guest._log_in(["/bin/sh", "-c", script], deadline or Deadline(60))


@pytest.mark.parametrize(
    "code",
    [
        "SSH_TUNNEL_NOT_READY",
        "SSH_GUEST_CONNECT_FAILED",
        "SSH_GUEST_AUTH_FAILED",
        "SSH_GUEST_SESSION_TERMINATED",
    ],
)
def test_each_code_of_the_gateway_means_not_yet(code: str) -> None:
    assert log_in(f"echo 'kex: done' >&2; echo 'error: {code}: wait' >&2; exit 255") == code


@pytest.mark.parametrize(
    "script",
    [
        "exit 0",
        "echo SSH_TUNNEL_NOT_READY >&2; exit 0",  # a banner may say anything
        "echo 'Permission denied' >&2; exit 255",
        "echo SSH_SOMETHING_ELSE >&2; exit 255",
        "echo SSH_TUNNEL_NOT_READY; exit 255",
        "exec yes",
        # The environment of the user's ssh, which may hold the API key, is not passed on.
        f"""test "$PATH" = '{os.defpath}' && test "$HOME" = '{os.path.expanduser("~")}' ||
        {{ echo SSH_TUNNEL_NOT_READY >&2; exit 255; }}""",
    ],
)
def test_any_other_end_is_left_to_the_users_ssh(script: str) -> None:
    assert log_in(script) == ""


def test_a_code_is_found_among_other_bytes() -> None:
    assert log_in("printf '\\377 SSH_TUNNEL_NOT_READY' >&2; exit 255") == "SSH_TUNNEL_NOT_READY"


class Guest:
    """A machine that is not ready for the first `codes`; `words` are the last ssh's arguments."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state = StateDirectory(str(directory / "state"))
        self.left, self.said = directory / "left", directory / "words"
        self.log_file = directory / "log"
        program = directory / "bin" / "ssh"
        program.parent.mkdir()
        program.write_text(
            f"#!/bin/sh\nprintf '%s\\n' \"$@\" >'{self.said}'\n"
            f"code=$(head -n 1 '{self.left}')\nsed -i 1d '{self.left}'\n"
            '[ -z "$code" ] || { echo "$code" >&2; exit 255; }\n'
        )
        program.chmod(0o700)
        monkeypatch.setenv("PATH", str(program.parent))
        self.program = program

    def wait(self, *codes: str, deadline: Any = None, proxy_command: str | None = None) -> None:
        self.left.write_text("".join(f"{code}\n" for code in codes))
        guest.await_guest(
            self.state, NAME, RECORD, deadline or Deadline(60), Log(str(self.log_file)),
            proxy_command,
        )  # fmt: skip

    def events(self) -> list[str]:
        """Return the log's events without their times and processes."""
        text = self.log_file.read_text()
        return [re.sub(r"ms=\d+$", "ms=N", line.split("] ")[1]) for line in text.splitlines()]


class Pauses:
    """A deadline of four seconds that records what is slept, and is over after `turns`."""

    seconds = 4.0

    def __init__(self, turns: int) -> None:
        self.turns, self.slept = turns, list[float]()

    def check(self) -> None:
        pass

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) == self.turns:
            raise DeadlineExceeded("over")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guest:
    return Guest(tmp_path, monkeypatch)


@pytest.mark.parametrize("proxy_command", [None, "/launcher dial %h %p"])
def test_the_machine_is_tried_as_ssh_will_log_in(machine: Guest, proxy_command: str | None) -> None:
    machine.wait(proxy_command=proxy_command)
    options = [
        *session_options(write_identity(machine.state, NAME, NAME, RECORD)),
        "BatchMode yes", "StrictHostKeyChecking yes", "ConnectTimeout 10",
    ]  # fmt: skip
    if proxy_command:
        options += [f"ProxyCommand {proxy_command}", "ProxyUseFdpass yes"]
    words = [word for option in options for word in ("-o", option)]
    assert machine.said.read_text().splitlines() == [
        "-F", "none", "-T", *words, "-p", "2222", "--", "ssh.example", "true"
    ]  # fmt: skip
    assert machine.events() == ["guest-ready machine=dm-foo ms=N"]


def test_it_is_tried_again_until_it_lets_the_login_in(machine: Guest) -> None:
    codes, pauses = ["SSH_TUNNEL_NOT_READY", "SSH_GUEST_AUTH_FAILED"], Pauses(9)
    machine.wait(*codes, deadline=pauses)
    assert machine.events() == [
        *(f"guest-not-ready machine=dm-foo code={code}" for code in codes),
        "guest-ready machine=dm-foo ms=N",
    ]
    assert pauses.slept == [0.5, 0.5]


def test_at_the_deadline_the_last_code_is_named(machine: Guest) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        machine.wait("SSH_TUNNEL_NOT_READY", "SSH_GUEST_CONNECT_FAILED", deadline=Pauses(2))
    assert caught.value.message == (
        "the machine woke, but no login succeeded within 4 s (SSH_GUEST_CONNECT_FAILED)"
    )
    assert caught.value.hint == ("try again; if this persists, look at the machine in the console")


def test_a_deadline_during_the_first_login_has_no_code(
    machine: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def over(_command: list[str], _deadline: Deadline) -> str:
        raise DeadlineExceeded("over")

    monkeypatch.setattr(guest, "_log_in", over)
    with pytest.raises(DeadlineExceeded, match=r"within 60 s$"):
        machine.wait()


def test_without_an_ssh_the_users_own_will_show_what_is_wrong(machine: Guest) -> None:
    machine.program.unlink()
    machine.wait()
    assert not machine.said.exists() and not machine.log_file.exists()


def test_a_login_that_takes_too_long_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "_TRY_S", 0.01)
    assert log_in("exec sleep 60") == "no answer"


def test_a_login_may_take_twenty_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []

    def run(*_: object, limit_s: float, **__: object) -> Output:
        limits.append(limit_s)
        return Output(0, b"", b"")

    monkeypatch.setattr(guest, "run", run)
    assert guest._log_in(["ssh"], Deadline(60)) == ""
    assert limits == [20]


def test_a_login_ends_with_the_ssh_that_waits_for_it() -> None:
    with pytest.raises(ClientGone):
        log_in("exec sleep 60", Deadline(60, lambda: True))


def test_a_guest_that_prints_without_end_has_let_the_login_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for is_cut, code in ((True, ""), (False, "SSH_TUNNEL_NOT_READY")):
        output = Output(-9, b"", b"error: SSH_TUNNEL_NOT_READY", is_cut)
        monkeypatch.setattr(guest, "run", lambda *_, output=output, **__: output)
        assert guest._log_in(["ssh"], Deadline(60)) == code


def test_only_a_ready_session_can_be_logged_in_to(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only a ready session"):
        guest._arguments(StateDirectory(str(tmp_path)), NAME, Record(RECORD.attempt), None)
