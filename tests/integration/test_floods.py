"""Floods: what a guest, an API, a gateway or an agent sends without end takes little memory."""

from __future__ import annotations

import contextlib
import functools
import gzip
import itertools
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.emulator import Emulator
from tests.support.user import User

Start = Callable[..., Emulator]

# Runs a command; then its last line on stdout is the most memory, in KiB, that one process took.
_MEASURE = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""
# A command takes up to 60 MiB without a flood.
_LIMIT_KIB = 96 * 1024


def measure(user: User, *words: str) -> tuple[int, str, str]:
    """Run dcs-proxy; return its exit status, what it wrote, and fail if it took much memory."""
    command = [sys.executable, "-c", _MEASURE, sys.executable, "-m", "dcs_proxy", *words]
    done = user.run(command)
    *lines, peak = done.stdout.splitlines()
    assert int(peak) < _LIMIT_KIB
    return done.returncode, "\n".join(lines), done.stderr


@pytest.fixture
def flooding_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the shell of every machine write to stderr without end."""
    shell = tmp_path / "bin" / "bash"
    shell.parent.mkdir()
    shell.write_text("#!/bin/sh\nexec yes $(seq 200) >&2\n")
    shell.chmod(0o755)
    monkeypatch.setenv("PATH", str(shell.parent), prepend=":")


@pytest.mark.usefixtures("flooding_guest")
def test_a_guest_that_writes_without_end_delays_no_wake_and_fills_no_memory(
    start_emulator: Start, user: User
) -> None:
    user.use(start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1"))
    status, _, errors = measure(user, "prepare", "dm-foo")
    assert status == 0, errors
    assert "guest-ready" in user.log()


@pytest.mark.usefixtures("flooding_guest")
def test_doctor_ends_the_login_to_a_guest_that_writes_without_end(
    start_emulator: Start, user: User
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    status, out, _ = measure(user, "doctor", "--ssh-config", str(user.config), "dm-foo")
    assert status == 1
    assert "ssh dm-foo true was stopped because it prints without end" in out


def head(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode()


def chunked(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


_MIB = bytes(1024 * 1024)
_CHUNKED = "Transfer-Encoding: chunked"


@functools.cache
def bomb() -> bytes:
    """Return a little data that becomes 256 MiB."""
    return gzip.compress(gzip.compress(bytes(256 * 1024 * 1024)))


# What the API answers, without end where a number of times is not given.
FLOODS: dict[str, Callable[[], Iterator[bytes]]] = {
    "body": lambda: itertools.chain([head("200 OK", _CHUNKED)], itertools.repeat(chunked(_MIB))),
    "redirect": lambda: itertools.chain(
        [head("302 Found", "Location: /", _CHUNKED)], itertools.repeat(chunked(_MIB))
    ),
    "error": lambda: itertools.chain([head("503 No", _CHUNKED)], itertools.repeat(chunked(_MIB))),
    "bomb": lambda: iter([
        head("200 OK", "Content-Encoding: gzip, gzip", f"Content-Length: {len(bomb())}"), bomb(),
    ]),
    "bomb-redirect": lambda: iter([
        head("302 Found", "Location: /", "Content-Encoding: gzip, gzip",
             f"Content-Length: {len(bomb())}"), bomb(),
    ]),
    "headers": lambda: itertools.chain([b"HTTP/1.1 200 OK\r\n"],
                                       itertools.repeat(b"X: " + bytes(60000).replace(b"\0", b"x")
                                                        + b"\r\n")),
    "line": lambda: itertools.chain([b"HTTP/1.1 200 "], itertools.repeat(b"x" * len(_MIB))),
    "continue": lambda: itertools.repeat(head("100 Continue", "X: " + "x" * 60000)),
    "chunk-size": lambda: itertools.chain(
        [head("200 OK", _CHUNKED)], itertools.repeat(b"0" * 9999)
    ),
    # To read -1 bytes means to read until the end.
    "chunk-minus-one": lambda: itertools.chain(
        [head("200 OK", _CHUNKED), b"-1\r\n"], itertools.repeat(_MIB)
    ),
}  # fmt: skip


class FloodingApi:
    """A server on loopback that answers every request with a flood."""

    def __init__(self, flood: Callable[[], Iterator[bytes]]) -> None:
        self._flood = flood
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                threading.Thread(
                    target=self._answer, args=self._listener.accept()[:1], daemon=True
                ).start()

    def _answer(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while sock.recv(65536):
                for part in self._flood():
                    sock.sendall(part)


@contextlib.contextmanager
def flooding_api(flood: Callable[[], Iterator[bytes]]) -> Iterator[FloodingApi]:
    api = FloodingApi(flood)
    try:
        yield api
    finally:
        api.close()


@pytest.mark.parametrize("flood", FLOODS)
def test_an_api_that_sends_without_end_fills_no_memory(user: User, flood: str) -> None:
    user.settings("wake_seconds = 3\n")
    if flood.startswith("bomb"):
        bomb()  # takes a second, which is not one of those three
    with flooding_api(FLOODS[flood]) as api:
        user.environment |= {"DEDALUS_BASE_URL": api.url, "DEDALUS_API_KEY": "dsk-0123456789"}
        status, _, errors = measure(user, "prepare", "dm-foo")
    assert status != 0
    assert "dcs-proxy: dm-foo: the API" in errors
    assert "internal error" not in errors


@pytest.mark.parametrize("flood", ["cursors", "machines"])
def test_a_list_without_end_fills_no_memory(user: User, flood: str) -> None:
    numbers = itertools.count()

    def page() -> Iterator[bytes]:
        number = next(numbers)
        items = [
            {"machine_id": f"dm-{number}-{each}", "phase": "p" * 4000} for each in range(200)
        ]  # fmt: skip
        body = json.dumps(
            {"items": items if flood == "machines" else [], "next_cursor": f"{number}" * 100}
        ).encode()
        yield head("200 OK", f"Content-Length: {len(body)}") + body

    with flooding_api(page) as api:
        user.environment |= {"DEDALUS_BASE_URL": api.url, "DEDALUS_API_KEY": "dsk-0123456789"}
        status, _, errors = measure(user, "list")
    assert status != 0
    assert "the API's list of machines does not end" in errors or "timed out" in errors
