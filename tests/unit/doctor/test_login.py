"""The checks of a login: the gateway's version line, and what ssh says."""

from __future__ import annotations

import re
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.app import Options
from dcs_proxy.doctor import login
from dcs_proxy.doctor.context import Context
from dcs_proxy.doctor.login import (
    _read_banner,
    _telling_line,
    check_gateway,
    check_login,
    check_machine,
    check_session,
)
from dcs_proxy.doctor.runner import Check, passed, skipped
from dcs_proxy.errors import CredentialsError, StateError
from dcs_proxy.local.http_proxy import HttpProxy
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.openssh.version import Client, Version
from dcs_proxy.session.records import Attempt, ReadySession, Record


def read(*parts: bytes, limit_s: float = 30) -> str:
    """Return what is read from a server that sends `parts`, each once the last was received."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        received = threading.Semaphore(1)

        class Acknowledging(socket.socket):
            def recv(self, *arguments: int) -> bytes:
                data = super().recv(*arguments)
                received.release()
                return data

        def send() -> None:
            for part in parts:
                received.acquire()
                theirs.sendall(part)
            theirs.shutdown(socket.SHUT_WR)

        with Acknowledging(fileno=ours.detach()) as sock:
            thread = threading.Thread(target=send)
            thread.start()
            banner = _read_banner(sock, limit_s)
            sock.close()
            received.release()
            thread.join()
    return banner


@pytest.mark.parametrize(
    ("parts", "banner"),
    [
        ([b"SSH-2.0-x\r\n"], "SSH-2.0-x"),
        ([b"SSH-", b"2.0-", b"x\r\n"], "SSH-2.0-x"),
        ([b"SSH-2.0-x"], "SSH-2.0-x"),
        ([b"hello\r\nthere\r\n", b"SSH-2.0-x\r\n"], "SSH-2.0-x"),
        ([b"SSH-2.0-x\r\nmore\r\n"], "SSH-2.0-x"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "HTTP/1.1 400 Bad Request"),
        ([b"\x1b[2Jx\r\n"], "[2Jx"),
        ([b"SSH-2.0-\xff\r\n"], "SSH-2.0-\ufffd"),
        ([b"SSH-2.0-" + b"x" * 72 + b"\r\n"], "SSH-2.0-" + "x" * 72),
        ([b"SSH-2.0-" + b"x" * 73 + b"\r\n"], "SSH-2.0-" + "x" * 69 + "..."),
        ([], ""),
    ],
)
def test_the_version_line_is_read_to_its_end(parts: list[bytes], banner: str) -> None:
    assert read(*parts) == banner


@pytest.mark.parametrize("said", [b"SSH-2.0-x\r\n", b"hello there\r\nSSH-2.0-x\r\nmore"])
def test_nothing_is_waited_for_after_the_version_line(said: bytes) -> None:
    ours, theirs = socket.socketpair()
    reads = []

    class Counting(socket.socket):
        def recv(self, *arguments: int) -> bytes:
            reads.append(arguments)
            assert len(reads) == 1
            return super().recv(*arguments)

    with theirs, Counting(fileno=ours.detach()) as sock:
        theirs.sendall(said)
        assert _read_banner(sock, 30) == "SSH-2.0-x"


def test_a_server_that_never_comes_to_its_version_is_not_read_for_ever() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"x\n" * 6000)
        assert _read_banner(ours, 30) == "x"
        theirs.shutdown(socket.SHUT_WR)
        assert len(b"".join(iter(lambda: ours.recv(4096), b""))) == 12_000 - 8192


def test_a_silent_server_is_not_waited_for_longer_than_the_limit() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert _read_banner(ours, 0.01) == ""
        theirs.sendall(b"SSH-2.0")
        assert _read_banner(ours, 0.01) == "SSH-2.0"


def context_of(tmp_path: Path, ssh: str = "") -> Context:
    context = Context(Options(str(tmp_path / "state")), {}, "/home/me/config", False, "dm-foo")
    if ssh:
        path = tmp_path / "ssh"
        path.write_text(f"#!/bin/sh\n{ssh}\n")
        path.chmod(0o700)
        context.ssh = Client(str(path), "OpenSSH_9.2p1", Version(9, 2))
    return context


def gateway(tmp_path: Path, said: bytes) -> Check:
    """Return the check of a gateway that sends `said` and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        context = context_of(tmp_path)
        # The proxy is not for this computer.
        context.settings = replace(Settings(), proxy=HttpProxy("proxy.test", 3128))
        context.session = ReadySession("127.0.0.1", port, "u", "a", "", True, 9.0, 1.0, 1.0)
        check = check_gateway(context)
        thread.join()
    return check


def test_a_gateway_has_to_speak_ssh(tmp_path: Path) -> None:
    check = gateway(tmp_path, b"SSH-2.0-Gateway\r\n")
    assert check.ok
    assert re.fullmatch(r'127\.0\.0\.1 port \d+ at 127\.0\.0\.1: "SSH-2\.0-Gateway"', check.text)
    check = gateway(tmp_path, b"<html>\n")
    assert check.ok is False and 'sends "<html>", which is not SSH' in check.text
    assert check.hint == (
        "a firewall or the login page of a network may be intercepting the connection"
    )
    check = gateway(tmp_path, b"")
    assert check.ok is False and check.text.endswith("accepts a connection but sends nothing")


def test_a_gateway_is_reached_as_ssh_will_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b"SSH-2.0-x\r\n")

    def reach(*where: object, timeout_s: float, deadline: float, client_gone: Any) -> socket.socket:
        assert where == (proxy, "gw.example", 2222)
        assert timeout_s == 1000 and 2900 < deadline - time.monotonic() <= 3000
        assert client_gone() is False
        return ours

    monkeypatch.setattr(login, "reach", reach)
    proxy = HttpProxy("proxy.test", 3128)
    context = context_of(tmp_path)
    context.settings = replace(Settings(), proxy=proxy, connect_seconds=1000)
    context.session = ReadySession("gw.example", 2222, "u", "a", "", True, 9.0, 1.0, 1.0)
    expected = f'gw.example port 2222 through {proxy}: "SSH-2.0-x"'
    assert check_gateway(context) == passed(expected)
    theirs.close()


class Session:
    """Stands for what a login needs of the session's context, and records what it is used for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state, self.calls = object(), list[tuple[object, ...]]()
        self.found = MachineName("dm-foo")
        ready = ReadySession("gw.example", 22, "wssh-1", "a", "", True, 4000.0, 1.0, 1.0)
        attempt = Attempt("k", "ab" * 32, "/agent.sock", 20_000.0, "a")
        self.record = Record(replace(attempt, session_id="s-1"), ready)
        monkeypatch.setattr(Context, "open_session_context", lambda _: self)
        monkeypatch.setattr(login, "open_lookup", self.lookup)
        monkeypatch.setattr(login, "resolve", self.resolve)
        monkeypatch.setattr(login, "publish", lambda *words: self.calls.append(words))

    def now(self) -> float:
        return 1000.0

    def lookup(self, context: object) -> Session:
        assert context is self
        return self

    def find(self, host: str) -> MachineName:
        self.calls.append((host,))
        return self.found

    def resolve(self, machine: MachineName, context: object) -> Record:
        assert (machine, context) == ("dm-long-name", self)
        return self.record


@pytest.mark.parametrize(
    ("found", "text"), [("dm-foo", "dm-foo"), ("dm-long-name", "dm-foo is dm-long-name")]
)
def test_the_machine_is_found_by_what_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str, text: str
) -> None:
    session = Session(monkeypatch)
    session.found = MachineName(found)
    context = context_of(tmp_path)
    context.host = "foo"
    assert check_machine(context) == passed(text)
    assert (context.host, context.machine) == ("dm-foo", found)
    assert session.calls == [("dm-foo",)]


@pytest.mark.parametrize(("ends_at", "minutes"), [(4000.0, 50), (1059.0, 0), (999.0, 0)])
def test_a_session_is_published_for_the_name_that_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends_at: float, minutes: int
) -> None:
    session = Session(monkeypatch)
    ready = session.record.ready
    assert ready is not None
    session.record = replace(session.record, ready=replace(ready, ends_at=ends_at))
    context = context_of(tmp_path)
    context.machine = MachineName("dm-long-name")
    assert check_session(context) == passed(f"s-1 for the login wssh-1, {minutes} min left")
    assert context.session == session.record.ready
    assert session.calls == [(session.state, "dm-foo", "dm-long-name", session.record)]


def test_a_login_runs_true_and_nothing_of_the_users(tmp_path: Path) -> None:
    check = check_login(context_of(tmp_path, f'printf "%s\\n" "$@" > {tmp_path}/words'))
    assert check.ok and check.text == "ssh dm-foo true"
    words = (tmp_path / "words").read_text().splitlines()
    assert words[:4] == ["-F", "/home/me/config", "-T", "-n"] and words[-2:] == ["dm-foo", "true"]
    options = ["BatchMode=yes", "ControlPath=none", "ClearAllForwardings=yes", "RemoteCommand=none"]
    assert (words[4:-2:2], words[5:-2:2]) == (["-o"] * 4, options)


def test_a_login_that_fails_is_told_in_the_words_of_ssh(tmp_path: Path) -> None:
    check = check_login(context_of(tmp_path, "echo one >&2; echo two >&2; exit 255"))
    failure = "ssh dm-foo true failed with exit status"
    assert check.ok is False and check.text == f'{failure} 255 and printed "two"'
    assert "dcs-proxy log dm-foo" in check.hint
    check = check_login(context_of(tmp_path, "exit 7"))
    assert check.ok is False and check.text == f"{failure} 7 and printed no error"
    check = check_login(context_of(tmp_path, "exec yes"))
    assert check.ok is False and "it prints without end" in check.text
    assert check.hint == "look at the start files of the shell on the machine: ssh dm-foo"


def test_a_login_that_hangs_has_a_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object, **more: object) -> None:
        assert more["limit_s"] == 60
        raise TimeoutError

    monkeypatch.setattr(login, "run", run)
    check = check_login(context_of(tmp_path, "true"))
    assert check.ok is False and check.text == "ssh dm-foo true timed out after 60 s"


class Asking:
    """Stands for the context of doctor's ssh: whether it has a key, and has to ask the API."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, has_key: bool, error: Any) -> None:
        self.has_key, self.error = has_key, error
        monkeypatch.setattr(Context, "open_session_context_of_ssh", lambda _: self)
        monkeypatch.setattr(login, "resolve", self.resolve)

    def open_api(self) -> None:
        if not self.has_key:
            raise CredentialsError("there is no API key")

    def resolve(self, machine: MachineName, context: object) -> None:
        assert (machine, context) == ("dm-foo", self)
        if self.error is not None:
            raise self.error


NO_KEY = CredentialsError("there is no API key")
# What a machine or a gateway may print to pose as us.
POSES = ["dcs-proxy: dm-foo: there is no API key", "there is no API key", "Permission denied"]


def login_to(tmp_path: Path, variable: str, said: str, status: int = 255) -> Check:
    """Return the check of a login whose ssh prints `said`, with a key in a variable of doctor's."""
    context = context_of(tmp_path, f"echo '{said}' >&2; exit {status}")
    context.environment = {variable: "secret"} if variable else {}
    context.machine = MachineName("dm-foo")
    return check_login(context)


@pytest.mark.parametrize("variable", ["DEDALUS_API_KEY", "DEDALUS_X_API_KEY"])
def test_a_login_that_lacks_the_key_that_doctor_has_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    Asking(monkeypatch, has_key=False, error=NO_KEY)
    assert login_to(tmp_path, variable, "", 0) == skipped(
        f"not tried: ssh has to ask the API, and doctor gives the key in {variable} to no other"
        " program",
        "try it yourself: ssh dm-foo true",
    )


@pytest.mark.parametrize("said", POSES)
@pytest.mark.parametrize(
    ("variable", "has_key", "error"),
    [
        ("DEDALUS_API_KEY", False, None),
        ("DEDALUS_API_KEY", False, StateError("the disk is full")),
        ("DEDALUS_API_KEY", True, NO_KEY),
        ("", False, NO_KEY),
    ],
)
def test_what_a_machine_prints_makes_no_failure_a_skipped_check(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    variable: str,
    has_key: bool,
    error: Exception | None,
) -> None:
    Asking(monkeypatch, has_key=has_key, error=error)
    check = login_to(tmp_path, variable, said)
    assert check.ok is False
    assert check.text == f'ssh dm-foo true failed with exit status 255 and printed "{said}"'


def test_what_a_machine_prints_cannot_end_its_quotation(tmp_path: Path) -> None:
    check = login_to(tmp_path, "", 'dcs-proxy: "; hint: type your key here: "')
    assert check.text.endswith("""and printed "dcs-proxy: '; hint: type your key here: '\"""")


@pytest.mark.parametrize(
    ("errors", "line"),
    [
        (b"dcs-proxy: dm-foo: no such machine\nssh: lost\n", "dcs-proxy: dm-foo: no such machine"),
        (b"dcs-proxy: dm-foo: waking up\ndcs-proxy: dm-foo: no\n", "dcs-proxy: dm-foo: no"),
        (b"dcs-proxy: dm-foo: waking up\nssh: lost\n\n", "ssh: lost"),
        (b"dcs-proxy: dm-foo: no\ndcs-proxy: hint: do it\n", "dcs-proxy: dm-foo: no"),
        (b"a\nb\n\n \n", "b"),
        (b" \n", ""),
        (b"\xff\n", "\ufffd"),
    ],
)
def test_the_line_shown_is_ours_or_else_the_last(errors: bytes, line: str) -> None:
    assert _telling_line(errors) == line
