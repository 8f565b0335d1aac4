"""The control plane on the wire: credentials, lengths, and faults, asked by http.client."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from dcs_proxy.emulator.authority import Authorities
from dcs_proxy.emulator.control_plane import ControlPlaneServer
from dcs_proxy.emulator.describe import Describer
from dcs_proxy.emulator.faults import Faults, parse_fault
from dcs_proxy.emulator.journal import Journal
from dcs_proxy.emulator.loopback import listen
from dcs_proxy.emulator.machines import Service
from dcs_proxy.emulator.routes import Routes

KEY, ORG = "dsk-right", "org-mine"
LIMIT_S = 30
MACHINES = "/v1/machines"


@pytest.fixture
def plane() -> Iterator[ControlPlaneServer]:
    service, faults = Service(5.0, 3600.0, 300.0), Faults()
    service.add("dm-foo", "running")
    describer = Describer(service, Authorities(), faults, "ssh.example", {"": 22}, frozenset())
    routes = Routes(service, describer, faults)
    server = ControlPlaneServer(listen(0), routes, faults, Journal(None), key=KEY, org_id=ORG)
    server.start()
    yield server
    server.stop()


def ask(
    plane: ControlPlaneServer, headers: dict[str, str], method: str = "GET", path: str = MACHINES
) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection(plane.url.removeprefix("http://"), timeout=LIMIT_S)
    with closing(connection):
        connection.request(method, path, headers=headers)
        reply = connection.getresponse()
        body = reply.read()
        assert len(body) == int(reply.headers["Content-Length"])
        return reply.status, json.loads(body)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "AUTH_REQUIRED"),
        ({"x-api-key": ""}, 401, "AUTH_REQUIRED"),
        ({"Authorization": KEY}, 401, "AUTH_REQUIRED"),
        ({"Authorization": "Bearer"}, 401, "AUTH_REQUIRED"),
        ({"Authorization": f"Basic {KEY}"}, 401, "AUTH_REQUIRED"),
        ({"Authorization": f"Bearer {KEY}x"}, 401, "AUTH_INVALID"),
        ({"Authorization": f"Bearer {KEY[:-1]}"}, 401, "AUTH_INVALID"),
        ({"x-api-key": KEY.upper()}, 401, "AUTH_INVALID"),
        # x-api-key decides if both are given.
        ({"x-api-key": "wrong", "Authorization": f"Bearer {KEY}"}, 401, "AUTH_INVALID"),
        ({"x-api-key": KEY, "X-Dedalus-Org-Id": "org-other"}, 403, "AUTH_ORG_MISMATCH"),
        ({"x-api-key": KEY, "X-Dedalus-Org-Id": ""}, 403, "AUTH_ORG_MISMATCH"),
    ],
)
def test_wrong_credentials_open_no_route(
    plane: ControlPlaneServer, headers: dict[str, str], status: int, code: str
) -> None:
    routes = (
        ("GET", MACHINES), ("GET", f"{MACHINES}/dm-foo"), ("POST", f"{MACHINES}/dm-foo/ssh"),
        ("GET", f"{MACHINES}/dm-foo/ssh"), ("DELETE", f"{MACHINES}/dm-foo/ssh/x"),
        ("GET", "/emulator/state"), ("DELETE", "/emulator/machines/dm-foo"), ("GET", "/v9"),
    )  # fmt: skip
    for method, path in routes:
        seen, body = ask(plane, headers, method, path)
        assert (seen, body["error_code"]) == (status, code)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": KEY},
        {"X-API-KEY": KEY, "X-Dedalus-Org-Id": ORG},
        {"Authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {KEY}"},
    ],
)
def test_the_right_key_opens_them(plane: ControlPlaneServer, headers: dict[str, str]) -> None:
    assert ask(plane, headers)[0] == 200


def exchange(plane: ControlPlaneServer, request: bytes) -> bytes:
    """Send a request that http.client would not; return all that is answered."""
    address = plane.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), LIMIT_S) as sock:
        sock.sendall(request)
        return b"".join(iter(lambda: sock.recv(65536), b""))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Content-Length: -1", 400),
        ("Content-Length: 1_0", 400),
        ("Content-Length: ٣", 400),
        ("Content-Length: 16777217", 413),
        (f"Content-Length: {'9' * 30}", 400),
        ("Transfer-Encoding: chunked", 411),
    ],
)
def test_a_length_that_cannot_be_read_ends_the_connection(
    plane: ControlPlaneServer, headers: str, status: int
) -> None:
    request = f"POST {MACHINES}/dm-foo/ssh HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n"
    reply = exchange(plane, request.encode())
    assert reply.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Content-Type: application/problem+json" in reply
    assert b"Connection: close" in reply


def test_a_request_that_is_not_http_gets_a_problem(plane: ControlPlaneServer) -> None:
    head, _, body = exchange(plane, b"nonsense\r\n\r\n").partition(b"\r\n\r\n")
    assert json.loads(body or head)["status"] == 400


def test_a_fault_strikes_as_often_as_it_says(plane: ControlPlaneServer) -> None:
    plane.faults.add(parse_fault("dm-foo=503/GET@2"))
    path = f"{MACHINES}/dm-foo"
    assert [ask(plane, {"x-api-key": KEY}, path=path)[0] for _ in range(3)] == [503, 503, 200]


def test_the_control_routes_are_struck_by_no_fault(plane: ControlPlaneServer) -> None:
    plane.faults.add(parse_fault("*=503"))
    assert ask(plane, {"x-api-key": KEY}, path="/emulator/state")[0] == 200
    assert ask(plane, {"x-api-key": KEY}, "DELETE", "/emulator/faults")[0] == 200
    assert ask(plane, {"x-api-key": KEY})[0] == 200
