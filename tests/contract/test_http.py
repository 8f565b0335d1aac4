"""Requests that never reach a route are refused in the contract's words too."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
import requests

from tests.support.emulator import Emulator
from tests.support.waiting import LIMIT_S

Start = Callable[..., Emulator]


@pytest.mark.parametrize("method", ["OPTIONS", "PATCH", "PUT", "QUERY", "TRACE"])
def test_a_method_that_a_route_lacks_is_not_allowed(start_emulator: Start, method: str) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    reply = requests.request(
        method, f"{emulator.api}/v1/machines/dm-foo/ssh",
        headers={"x-api-key": emulator.key}, timeout=LIMIT_S,
    )  # fmt: skip
    assert (reply.status_code, reply.headers["Allow"]) == (405, "POST, GET")
    assert reply.headers["Content-Type"] == "application/problem+json"


def test_the_refusal_of_head_has_no_body(start_emulator: Start) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    with requests.Session() as session:
        session.headers["x-api-key"] = emulator.key
        for _ in range(2):
            reply = session.head(f"{emulator.api}/v1/machines", timeout=LIMIT_S)
            assert (reply.status_code, reply.content) == (405, b"")


POST = b"POST /v1/machines HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /v1/machines HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
        (b"GET /v1/" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b'"\\ nonsense\r\n\r\n', 400),
        (b"BREW /v1/machines HTTP/1.1\r\n\r\n", 501),
        (POST + b"Content-Length: x\r\n\r\n", 400),
        (POST + b"Content-Length: \xb2\r\n\r\n", 400),
        (POST + b"Content-Length: " + b"1" * 5000 + b"\r\n\r\n", 400),
        (POST + b"Content-Length: 99999999\r\n\r\n", 413),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", 411),
    ],
)
def test_what_is_no_request_is_refused_once(
    start_emulator: Start, sent: bytes, status: int
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    port = int(emulator.api.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as sock:
        sock.sendall(sent)
        reply = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
    assert reply.startswith(f"HTTP/1.1 {status} ")
    assert "\r\nContent-Type: application/problem+json\r\n" in reply
    assert f'"status": {status}' in reply and reply.count("HTTP/1.1") == 1
