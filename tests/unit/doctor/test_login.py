"""The checks of a login: the gateway's version line, and what ssh says."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from dcs_proxy.app import Options
from dcs_proxy.doctor.context import Context
from dcs_proxy.doctor.login import _read_banner, _reason, check_gateway, check_login
from dcs_proxy.doctor.runner import Check
from dcs_proxy.local.settings import Settings
from dcs_proxy.openssh.version import Client, Version
from dcs_proxy.session.records import ReadySession


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
        ([], ""),
    ],
)
def test_the_version_line_is_read_to_its_end(parts: list[bytes], banner: str) -> None:
    assert read(*parts) == banner


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
        context.settings = Settings()
        context.session = ReadySession("127.0.0.1", port, "u", "a", "", True, 9.0, 1.0, 1.0)
        check = check_gateway(context)
        thread.join()
    return check


def test_a_gateway_has_to_speak_ssh(tmp_path: Path) -> None:
    check = gateway(tmp_path, b"SSH-2.0-Gateway\r\n")
    assert check.ok and check.text.endswith('at 127.0.0.1: "SSH-2.0-Gateway"')
    check = gateway(tmp_path, b"<html>\n")
    assert check.ok is False and 'sends "<html>", which is not SSH' in check.text
    check = gateway(tmp_path, b"")
    assert check.ok is False and check.text.endswith("accepts a connection but sends nothing")


def test_a_login_runs_true_and_nothing_of_the_users(tmp_path: Path) -> None:
    check = check_login(context_of(tmp_path, f'printf "%s\\n" "$@" > {tmp_path}/words'))
    assert check.ok and check.text == "ssh dm-foo true"
    words = (tmp_path / "words").read_text().splitlines()
    assert words[:2] == ["-F", "/home/me/config"] and words[-2:] == ["dm-foo", "true"]
    for option in ("BatchMode=yes", "ControlPath=none", "ClearAllForwardings=yes"):
        assert words[words.index(option) - 1] == "-o"


def test_a_login_that_fails_is_told_in_the_words_of_ssh(tmp_path: Path) -> None:
    check = check_login(context_of(tmp_path, "echo one >&2; echo two >&2; exit 255"))
    assert check.ok is False and check.text == "ssh dm-foo true failed: two"
    assert "dcs-proxy log dm-foo" in check.hint
    check = check_login(context_of(tmp_path, "exit 7"))
    assert check.ok is False and check.text == "ssh dm-foo true failed: exit status 7"
    check = check_login(context_of(tmp_path, "exec yes"))
    assert check.ok is False and "it prints without end" in check.text


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        (b"dcs-proxy: dm-foo: no such machine\nssh: lost\n", "dm-foo: no such machine"),
        (b"dcs-proxy: dm-foo: waking up\ndcs-proxy: dm-foo: no\n", "dm-foo: no"),
        (b"dcs-proxy: dm-foo: waking up\nssh: lost\n\n", "dcs-proxy: dm-foo: waking up"),
        (b"a\nb\n\n \n", "b"),
        (b" \n", "exit status 1"),
    ],
)
def test_the_reason_is_our_line_or_else_the_last(errors: bytes, reason: str) -> None:
    assert _reason(errors, 1) == reason
