from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from dcs_proxy.emulator.loopback import closed_port, listen
from dcs_proxy.errors import ClientGone, GatewayUnreachable
from dcs_proxy.ssh import dial as dial_module
from dcs_proxy.ssh.dial import _Race, address_of, dial


@pytest.fixture
def gateway() -> Iterator[list[socket.socket]]:
    sockets = listen(0)
    yield sockets
    for sock in sockets:
        sock.close()


def call(endpoint: str, port: int, **changes: Any) -> socket.socket:
    options: dict[str, Any] = {
        "timeout_s": 20.0, "deadline": time.monotonic() + 60, "client_gone": lambda: False
    }  # fmt: skip
    return dial(endpoint, port, **{**options, **changes})


def test_a_dialled_socket_is_ready_to_be_handed_over(gateway: list[socket.socket]) -> None:
    with call("localhost", gateway[0].getsockname()[1]) as sock:
        assert sock.getblocking()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


def resolves_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    infos = [(socket.AF_INET6 if ":" in host else socket.AF_INET, 1, 6, "", (host, port))
             for host, port in addresses]  # fmt: skip
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos)


def test_an_address_where_nobody_listens_is_passed_over(
    gateway: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolves_to(monkeypatch, ("127.0.0.1", closed_port()), gateway[0].getsockname())
    call("gateway.example", 22).close()


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """An address that never answers a connection: its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = []
        for _ in range(4):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(address)
        yield address
        for sock in waiting:
            sock.close()


def test_an_address_that_does_not_answer_holds_nobody_up(
    silent: tuple[str, int], gateway: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolves_to(monkeypatch, silent, gateway[0].getsockname())
    # The limit for each address is longer than the test would be given.
    call("gateway.example", 22, timeout_s=600, deadline=time.monotonic() + 600).close()


def test_every_address_is_named_with_its_reason(
    silent: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolves_to(monkeypatch, ("127.0.0.1", closed_port()), silent)
    with pytest.raises(GatewayUnreachable) as caught:
        call("gateway.example", 22, timeout_s=0.5)
    assert "127.0.0.1: Connection refused" in caught.value.message
    assert "127.0.0.1: no answer after 0.5 s" in caught.value.message


def test_a_name_that_nobody_knows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(GatewayUnreachable, match=r"up the gateway none\.example: Name or service"):
        call("none.example", 22)


def test_a_lookup_that_hangs_ends_with_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(threading.enumerate())
    never = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [never.wait()][:0])
    with pytest.raises(GatewayUnreachable, match=r"slow\.example: no answer after 0\.2 s"):
        call("slow.example", 22, timeout_s=0.2)
    with pytest.raises(ClientGone):
        call("slow.example", 22, client_gone=lambda: True)
    left = set(threading.enumerate()) - before
    assert left and all(thread.daemon for thread in left), "the process must be able to end"
    never.set()


def test_a_lookup_is_waited_for_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    turns: list[float] = []

    def join(_: threading.Thread, timeout: float) -> None:
        turns.append(timeout)
        never.set() if len(turns) == 3 else None

    monkeypatch.setattr(threading.Thread, "join", join)
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [never.wait(60)] and [(2, 1, 6, "", ("a", 1))]
    )
    assert dial_module.look_up("slow.example", 1, 60, lambda: False) == [(2, ("a", 1))]
    assert set(turns) == {dial_module.TURN_S}


def test_dialling_ends_when_the_client_goes(
    silent: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolves_to(monkeypatch, silent)
    with pytest.raises(ClientGone):
        call("gateway.example", 22, client_gone=lambda: True)


def test_the_next_address_is_tried_a_quarter_of_a_second_later(
    silent: tuple[str, int], gateway: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 8305, by a clock that goes on only while dial waits."""
    clock, started = [1000.0], []

    def wait(_: Any, writers: list[socket.socket], __: Any, turn: float) -> Any:
        clock[0] += turn
        return select.select([], writers, [], 0)

    def start(race: _Race, *address: Any) -> None:
        started.append(clock[0])
        _start(race, *address)

    _start = _Race.start
    monkeypatch.setattr(_Race, "start", start)
    monkeypatch.setattr(dial_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(dial_module, "select", SimpleNamespace(select=wait))
    resolves_to(monkeypatch, silent, gateway[0].getsockname())
    call("gateway.example", 22, deadline=2000.0).close()
    first, second = started
    assert second - first == pytest.approx(0.25)


def test_the_deadline_of_all_holds_for_each_address_and_for_the_lookup(
    silent: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolves_to(monkeypatch, silent)
    with pytest.raises(GatewayUnreachable, match="no answer"):
        call("gateway.example", 22, timeout_s=600, deadline=time.monotonic() + 0.2)
    never = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [never.wait()][:0])
    with pytest.raises(GatewayUnreachable, match="no answer"):
        call("slow.example", 22, timeout_s=600, deadline=time.monotonic() + 0.2)
    never.set()


def test_a_connection_that_was_reset_has_no_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname())
        assert address_of(sock) == "127.0.0.1"
        accepted, _ = server.accept()
        # Closed with nothing to linger for, a connection is reset.
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()
        select.select([sock], [], [], 60)
        assert address_of(sock) == ""
        sock.close()


class Clock:
    """A clock that goes on only while dial waits; `seconds` is how long it has."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(dial_module, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(dial_module, "select", SimpleNamespace(select=self._select))

    def _select(self, _: Any, writers: list[socket.socket], __: Any, turn: float) -> Any:
        self.now += turn
        return select.select([], writers, [], 0)

    @property
    def seconds(self) -> float:
        return self.now - 1000.0


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """Every socket that dial makes."""
    sockets: list[socket.socket] = []

    class Noted(socket.socket):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            sockets.append(self)

    monkeypatch.setattr(dial_module.socket, "socket", Noted)
    return sockets


def test_the_losers_are_closed_and_the_winner_is_not(
    silent: tuple[str, int],
    gateway: list[socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    made: list[socket.socket],
) -> None:
    Clock(monkeypatch)
    refused = ("127.0.0.1", closed_port())
    made.clear()
    resolves_to(monkeypatch, silent, refused, gateway[0].getsockname())
    with call("gateway.example", 22, deadline=2000.0) as winner:
        assert [sock.fileno() != -1 for sock in made] == [False, False, True]
        assert made[-1] is winner


@pytest.mark.parametrize("how", ["the client goes", "no answer"])
def test_nothing_stays_open_without_a_winner(
    silent: tuple[str, int],
    monkeypatch: pytest.MonkeyPatch,
    made: list[socket.socket],
    how: str,
) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(
        dial_module, "look_up", lambda *_: [(socket.AF_INET, silent), (socket.AF_INET, silent)]
    )
    with pytest.raises((ClientGone, GatewayUnreachable)):
        call(
            "gateway.example", 22, timeout_s=5, deadline=2000.0,
            client_gone=lambda: how == "the client goes" and clock.seconds > 1,
        )  # fmt: skip
    assert [sock.fileno() for sock in made] == [-1, -1]
    if how == "no answer":
        assert 5.2 < clock.seconds < 5.5, "each address has its own time"
    else:
        assert 1 < clock.seconds < 1.2


def test_an_address_that_fails_starts_the_next_at_once(
    gateway: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one of IPv6, where this computer has none."""
    clock = Clock(monkeypatch)
    started: list[int] = []

    class Old(socket.socket):
        """A socket of a system without IPv6, whose network is down at the first address."""

        def __init__(self, family: int = -1, *arguments: Any, **options: Any) -> None:
            started.append(family)
            if family == socket.AF_INET6:
                raise OSError(97, "Address family not supported")
            super().__init__(family, *arguments, **options)

        def connect_ex(self, address: Any) -> int:
            return 101 if address[0] == "127.0.0.9" else super().connect_ex(address)

    monkeypatch.setattr(dial_module.socket, "socket", Old)
    monkeypatch.setattr(
        dial_module, "look_up",
        lambda *_: [
            (socket.AF_INET6, ("::1", 22)), (socket.AF_INET, ("127.0.0.9", 22)),
            (socket.AF_INET, gateway[0].getsockname()[:2]),
        ],
    )  # fmt: skip
    call("gateway.example", 22, deadline=2000.0).close()
    assert len(started) == 3 and clock.seconds < 0.25
    bad = [(socket.AF_INET6, ("::1", 22)), (socket.AF_INET, ("127.0.0.9", 22))] * 2
    monkeypatch.setattr(dial_module, "look_up", lambda *_: bad)
    with pytest.raises(GatewayUnreachable) as caught:
        call("fd00::1", 22, deadline=2000.0, peer="HTTP proxy")
    assert caught.value.message == (
        "the HTTP proxy [fd00::1]:22 cannot be reached: ::1: Address family not supported,"
        " 127.0.0.9: Network is unreachable"
    )
    assert caught.value.hint == "check the network; a firewall may block this port"


def test_a_name_with_the_same_address_twice_is_tried_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolves_to(monkeypatch, ("127.0.0.1", 22), ("127.0.0.2", 22), ("127.0.0.1", 22))
    found = dial_module.look_up("gateway.example", 22, 60, lambda: False)
    assert found == [(socket.AF_INET, ("127.0.0.1", 22)), (socket.AF_INET, ("127.0.0.2", 22))]


def test_a_connection_that_is_there_at_once_is_used(
    gateway: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Immediate(socket.socket):
        def connect_ex(self, address: Any) -> int:
            self.setblocking(True)
            self.connect(address)
            self.setblocking(False)
            return 0

    monkeypatch.setattr(socket, "socket", Immediate)
    call("localhost", gateway[0].getsockname()[1]).close()


def test_an_address_that_cannot_be_used_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> socket.socket:
        raise OSError("no such family")

    resolves_to(monkeypatch, ("127.0.0.1", 22))
    monkeypatch.setattr(socket, "socket", fail)
    with pytest.raises(GatewayUnreachable, match=r"127\.0\.0\.1: no such family"):
        call("gateway.example", 22)


def test_a_lookup_without_an_address_or_words_fails_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("odd")

    for answer, reason in ((fail, "odd"), (lambda *_, **__: [], "no answer after 60 s")):
        monkeypatch.setattr(socket, "getaddrinfo", answer)
        with pytest.raises(GatewayUnreachable) as caught:
            dial_module.look_up("gateway.example", 22, 60, lambda: False, "HTTP proxy")
        assert caught.value.message == f"cannot look up the HTTP proxy gateway.example: {reason}"
        assert caught.value.hint == "check the network and its name servers"


def test_a_connection_that_was_reset_at_once_is_left_to_the_caller(
    gateway: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: socket.socket) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(dial_module, "set_options", fail)
    call("localhost", gateway[0].getsockname()[1]).close()
