from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from dcs_proxy.bridge import proof
from dcs_proxy.bridge.proof import prove_gateway
from dcs_proxy.errors import ClientGone, DcsError, GatewayUnreachable, Untrusted
from tests.unit.bridge.fakes import LOGIN, FakeGateway

UNTRUSTED = Untrusted("forged")


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    near, far = socket.socketpair()
    with near, far:
        yield near


def prove(
    gateway: FakeGateway,
    sock: socket.socket,
    *,
    timeout_s: float = 60,
    client_gone: bool = False,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        gateway.use_in(proof, patch)
        patch.setattr(proof, "TURN_S", 0.001)
        prove_gateway(sock, LOGIN, timeout_s=timeout_s, client_gone=lambda: client_gone)


def test_a_gateway_with_the_right_certificate_is_accepted(sock: socket.socket) -> None:
    gateway = FakeGateway()
    prove(gateway, sock, client_gone=True, timeout_s=0)
    assert gateway.started and gateway.arguments[:2] == (sock, LOGIN)


@pytest.mark.parametrize(
    ("gateway", "timeout_s", "client_gone", "kind", "text"),
    [
        (FakeGateway(has_ended=True, error=UNTRUSTED), 60, False, Untrusted, "forged"),
        # paramiko says so first, and its thread ends a moment later.
        (FakeGateway(active=False, error=UNTRUSTED), 60, False, Untrusted, "forged"),
        (
            FakeGateway(has_ended=True), 60, False, GatewayUnreachable,
            "the gateway ssh.example:2222 did not complete the login: it closed the connection",
        ),
        (
            FakeGateway(negotiates=False), 60, True, ClientGone,
            "the program that asked for the connection has exited",
        ),
        (
            FakeGateway(negotiates=False), 0, False, GatewayUnreachable,
            "the gateway ssh.example has not proved its identity within 0 s",
        ),
    ],
)  # fmt: skip
def test_a_gateway_that_proves_nothing_is_refused(
    sock: socket.socket,
    gateway: FakeGateway,
    timeout_s: float,
    client_gone: bool,
    kind: type[DcsError],
    text: str,
) -> None:
    with pytest.raises(kind) as caught:
        prove(gateway, sock, timeout_s=timeout_s, client_gone=client_gone)
    assert caught.value.message == text
    assert gateway.ended.seen[-1] == "shut" and sock.fileno() == -1
    if not gateway.active:
        assert gateway.ended.seen[0] == "open", "its error is there only at its end"


def test_the_connection_is_closed_once_its_thread_reads_no_more(sock: socket.socket) -> None:
    gateway = FakeGateway()
    prove(gateway, sock)
    assert gateway.ended.seen == ["shut"] and sock.fileno() == -1


def test_a_connection_that_is_reset_meanwhile_does_no_harm(sock: socket.socket) -> None:
    unconnected = socket.socket()

    class Deaf(FakeGateway):
        def start(self) -> None:
            super().start()
            self.ended.wait = lambda timeout=None: True  # type: ignore[method-assign]

    prove(Deaf(), unconnected)
    assert unconnected.fileno() == -1
