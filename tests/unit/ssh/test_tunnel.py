from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy import __version__
from dcs_proxy.emulator.loopback import closed_port
from dcs_proxy.errors import ClientGone, GatewayUnreachable
from dcs_proxy.local.http_proxy import HttpProxy
from dcs_proxy.ssh import tunnel
from dcs_proxy.ssh.tunnel import connect_request, reach, read_head
from tests.support.connect_proxy import ConnectProxy, connect_proxy

NEVER_S = 600.0


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    with connect_proxy() as running:
        yield running


@pytest.fixture
def gateway() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def call(proxy: ConnectProxy | None, port: int = 22, **changes: Any) -> socket.socket:
    options: dict[str, Any] = {
        "timeout_s": 20.0, "deadline": time.monotonic() + 60, "client_gone": lambda: False
    }  # fmt: skip
    way = None if proxy is None else HttpProxy("127.0.0.1", proxy.port, "me", "secret")
    return reach(way, "gateway.test", port, **{**options, **changes})


def test_the_proxy_looks_the_name_up_and_connects(proxy: ConnectProxy, gateway: int) -> None:
    with call(proxy, gateway) as sock:
        assert sock.gettimeout() is None
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getpeername()[1] == proxy.port
    assert proxy.targets == [f"gateway.test:{gateway}"]


def test_what_the_gateway_says_first_is_left_for_ssh(proxy: ConnectProxy, gateway: int) -> None:
    proxy.greeting = b"SSH-2.0-fast\r\n\r\nmore"
    with call(proxy, gateway) as sock:
        assert sock.recv(len(proxy.greeting), socket.MSG_WAITALL) == proxy.greeting


def test_without_a_proxy_the_way_is_direct() -> None:
    with pytest.raises(GatewayUnreachable, match=r"cannot look up the gateway gateway\.test:"):
        call(None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        end = time.monotonic() + 60
        with reach(
            None, "127.0.0.1", port, timeout_s=20, deadline=end, client_gone=lambda: False
        ) as sock:
            assert sock.getpeername() == ("127.0.0.1", port)


@pytest.mark.parametrize(
    ("user", "more"),
    [("", ""), ("me", "Proxy-Authorization: Basic bWU6c2VjcmV0\r\n")],
)
def test_the_request_names_the_gateway_and_the_user(user: str, more: str) -> None:
    proxy = HttpProxy("proxy.test", 3128, user, "secret" if user else "")
    assert connect_request(proxy, "gateway.test:22").decode() == (
        "CONNECT gateway.test:22 HTTP/1.1\r\nHost: gateway.test:22\r\n"
        f"User-Agent: dcs-proxy/{__version__}\r\n{more}\r\n"
    )


SETTING = "check proxy in the config file"
LOGIN = 'set the login in the config file: proxy = "http://user:password@host:port"'
ALLOW = "ask the proxy's administrator to allow CONNECT to the gateway"
LATER = "try again later; then ask the proxy's administrator whether it reaches the gateway"


@pytest.mark.parametrize(
    ("answer", "said", "hint"),
    [
        (b"HTTP/1.1 407 Who?\r\n\r\n", 'answered "HTTP/1.1 407 Who?"', LOGIN),
        (b"HTTP/1.0 403 No\r\nA: b\r\n\r\n", 'answered "HTTP/1.0 403 No"', ALLOW),
        (b"HTTP/1.1 502 \x1b[31m\x07Bad\r\n\r\n", 'answered "HTTP/1.1 502 [31m Bad"', LATER),
        (b"HTTP/1.1 502\r\n\r\n", 'answered "HTTP/1.1 502"', LATER),
        (b"HTTP/1.1 302 Go\r\nLocation: x\r\n\r\n", 'answered "HTTP/1.1 302 Go"', "check proxy"),
        (b"HTTP/1.1 407 secret\r\n\r\n", 'answered "HTTP/1.1 407 [masked]"', LOGIN),
        (b"HTTP/1.1 407 bWU6c2VjcmV0\r\n\r\n", '"HTTP/1.1 407 [masked]"', LOGIN),
        (b"SSH-2.0-OpenSSH\r\n\r\n", 'answered "SSH-2.0-OpenSSH"', "check proxy"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", 'answered "HTTP/1.1 2000 OK"', "check proxy"),
        (b"\n\n", 'answered ""', "check proxy"),
        (b"x" * 70000, "failed: its answer is too long", "check proxy"),
    ],
)  # fmt: skip
def test_what_a_proxy_says_in_place_of_connecting_is_told(
    proxy: ConnectProxy, answer: bytes, said: str, hint: str
) -> None:
    proxy.answer = answer
    with pytest.raises(GatewayUnreachable) as caught:
        call(proxy)
    where = f"the gateway gateway.test:22 cannot be reached: the HTTP proxy {proxy.url} "
    assert caught.value.message.startswith(where)
    assert said in caught.value.message
    assert caught.value.hint == (SETTING if hint == "check proxy" else hint)
    assert "secret" not in caught.value.one_line()


def test_a_proxy_that_hangs_up_is_told(proxy: ConnectProxy) -> None:
    # Nobody listens at the port that it is to connect to.
    with pytest.raises(GatewayUnreachable, match="failed: it closed the connection"):
        call(proxy, closed_port())


def test_a_proxy_that_is_not_there_is_told() -> None:
    with pytest.raises(GatewayUnreachable, match=r"the HTTP proxy 127\.0.*refused") as caught:
        call(ConnectProxy(closed_port()))
    assert caught.value.hint == "check proxy in the config file"


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\n"])
def test_a_proxy_that_does_not_answer_is_given_up(proxy: ConnectProxy, said: bytes) -> None:
    proxy.answer = said
    with pytest.raises(GatewayUnreachable, match=r"did not answer within 0\.3 s"):
        call(proxy, timeout_s=0.3)
    with pytest.raises(GatewayUnreachable, match="did not answer"):
        call(proxy, timeout_s=NEVER_S, deadline=time.monotonic() + 0.5)


def test_waiting_for_the_proxy_ends_when_the_client_goes(proxy: ConnectProxy) -> None:
    proxy.answer = b""
    with pytest.raises(ClientGone, match=r"^the program that asked for the connection has exited$"):
        call(proxy, timeout_s=NEVER_S, client_gone=lambda: bool(proxy.asked))


def test_a_head_that_comes_in_two_pieces_ends_where_it_ends() -> None:
    ours, theirs = socket.socketpair()
    turns = iter([b"HTTP/1.1 200 OK\r\nA: b", b"\r\n\r\nSSH-2.0-x\r\n"])

    def send() -> bool:
        theirs.sendall(next(turns))
        return False

    with ours, theirs:
        ours.settimeout(20)
        head = read_head(ours, time.monotonic() + 20, send)
        assert head == b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"
        assert ours.recv(100) == b"SSH-2.0-x\r\n"


@given(
    st.lists(st.binary(min_size=1, max_size=20), max_size=6),
    st.sampled_from([b"\r\n\r\n", b"\n\n", b"\n\r\n"]),
    st.binary(max_size=20),
)
def test_a_head_in_any_pieces_ends_where_it_ends(
    pieces: list[bytes], end: bytes, rest: bytes
) -> None:
    head = b"HTTP/1.1 200 OK" + b"".join(pieces).replace(b"\n", b" ") + end
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(20)
        theirs.sendall(head + rest)
        assert read_head(ours, time.monotonic() + 20, lambda: False) == head
        theirs.shutdown(socket.SHUT_WR)
        assert ours.recv(100) == rest


@pytest.mark.parametrize("error", [OSError(104, "reset"), ClientGone("gone"), KeyboardInterrupt()])
def test_a_connection_to_the_proxy_that_leads_nowhere_is_closed(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    near, far = socket.socketpair()
    monkeypatch.setattr(tunnel, "dial", lambda *_, **__: near)
    monkeypatch.setattr(tunnel, "read_head", fail)
    with far, pytest.raises((GatewayUnreachable, ClientGone, KeyboardInterrupt)) as caught:
        call(ConnectProxy(1))
    assert near.fileno() == -1
    if isinstance(caught.value, GatewayUnreachable):
        assert caught.value.message.endswith("the HTTP proxy http://127.0.0.1:1 failed: reset")
