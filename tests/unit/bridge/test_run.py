"""How a bridge ends, and what it says when it cannot begin."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import paramiko
import pytest
from cryptography.exceptions import InvalidTag

from dcs_proxy.bridge import run
from dcs_proxy.bridge.gateway import Gateway
from dcs_proxy.bridge.outbox import Outbox
from dcs_proxy.bridge.run import Bridge, explain_failure
from dcs_proxy.bridge.side import Farewell
from dcs_proxy.errors import ClientGone, DcsError, GatewayUnreachable, LoginRefused, Untrusted
from dcs_proxy.names import MachineName
from dcs_proxy.session.directory import StateDirectory
from tests.unit.bridge import fakes
from tests.unit.bridge.fakes import LOGIN, FakeGateway


@dataclass
class FakeSide:
    """One of the two connections; `told` is what its peer was told at the end."""

    farewell: Farewell | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    told: list[Farewell] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    is_let_in: bool = False
    remote_version: str = "SSH-2.0-x"

    def let_in(self) -> None:
        self.is_let_in = True

    def show(self, text: str) -> None:
        self.shown.append(text)

    def disconnect(self, farewell: Farewell, timeout_s: float) -> None:
        self.told.append(farewell)
        self.ended.set()


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    numbers = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def bridge_of(client: FakeSide, *, by_signal: int = 0) -> Bridge:
    bridge = Bridge.__new__(Bridge)
    bridge._host, bridge._signal = "dm-foo", by_signal
    bridge._bell = run._Bell()
    bridge._patience = threading.Timer(1000, bridge._bell.ring)
    bridge._client = cast(Any, client)
    bridge._to_client, bridge._to_gateway = Outbox(), Outbox()
    return bridge


def pass_on(client: FakeSide, gateway: FakeSide, *, by_signal: int = 0) -> int:
    """Run a bridge between the two sides, of which one has ended, or that a signal ends."""
    return bridge_of(client, by_signal=by_signal).pass_on(cast(Gateway, gateway))


@pytest.mark.parametrize(
    ("said", "told", "code"),
    [
        (None, Farewell(11, "dm-foo: the gateway has closed the connection"), 1),
        (Farewell(2, "maintenance"), Farewell(2, "maintenance"), 0),
    ],
)
def test_the_client_learns_why_the_gateway_has_gone(
    said: Farewell | None, told: Farewell, code: int
) -> None:
    client, gateway = FakeSide(), FakeSide(said)
    gateway.ended.set()
    assert pass_on(client, gateway) == code
    assert (client.is_let_in, client.told, gateway.told) == (True, [told], [])


@pytest.mark.parametrize("said", [None, Farewell(11, "disconnected by user")])
def test_the_gateway_learns_what_the_client_has_said(said: Farewell | None) -> None:
    client, gateway = FakeSide(said), FakeSide()
    client.ended.set()
    assert pass_on(client, gateway) == 0
    assert (client.told, gateway.told) == ([], [said or Farewell(11, "")])


class Reading(threading.Event):
    """The end of a client that is gone, but whose last message has not been read yet."""

    def __init__(self, client: FakeSide) -> None:
        super().__init__()
        self._client = client

    def wait(self, timeout: float | None = None) -> bool:
        self._client.farewell = Farewell(11, "disconnected by user")
        self.set()
        return True


def test_what_a_client_wrote_before_it_went_is_read_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "client_gone", lambda: True)
    client, gateway = FakeSide(), FakeSide()
    client.ended = Reading(client)
    assert pass_on(client, gateway) == 0
    assert gateway.told == [Farewell(11, "disconnected by user")]


@pytest.mark.parametrize("who", ["client", "gateway"])
def test_what_is_held_for_a_side_is_sent_before_the_farewell(
    monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    client, gateway = FakeSide(), FakeSide()
    ended, other = (client, gateway) if who == "client" else (gateway, client)
    told_by_then: list[list[Farewell]] = []
    monkeypatch.setattr(
        Outbox, "wait_until_empty", lambda outbox, timeout_s: told_by_then.append(other.told[:])
    )
    ended.ended.set()
    pass_on(client, gateway)
    assert (told_by_then, len(other.told)) == ([[]], 1)


@pytest.mark.parametrize("who", ["client", "gateway"])
def test_a_side_that_was_told_the_end_gets_time_to_read_it(who: str) -> None:
    client, gateway = FakeSide(), FakeSide()
    ended, other = (client, gateway) if who == "client" else (gateway, client)
    told_by_then: list[int] = []

    class Noting(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            told_by_then.append(len(other.told))
            return True

    other.ended = Noting()
    ended.ended.set()
    pass_on(client, gateway)
    assert told_by_then == [1]


def test_both_learn_of_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_SIGNALLED_S", 0.0)
    client, gateway = FakeSide(), FakeSide()
    assert pass_on(client, gateway, by_signal=signal.SIGTERM) == 0
    assert client.told == [Farewell(11, "dm-foo: ended by signal 15")]
    assert gateway.told == [Farewell(11, "")]


def test_ctrl_c_is_left_to_the_client_and_other_signals_end_the_bridge() -> None:
    client = FakeSide()
    client.ended.set()
    bridge = bridge_of(client)
    bridge.pass_on(cast(Gateway, FakeSide()))
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    for number in (signal.SIGHUP, signal.SIGTERM):
        assert signal.getsignal(number) == bridge._end_soon


def test_a_bridge_that_works_needs_no_patience_and_sends_what_it_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[tuple[Outbox, object]] = []
    monkeypatch.setattr(Outbox, "open", lambda outbox, side: opened.append((outbox, side)))
    client, gateway = FakeSide(), FakeSide()
    gateway.ended.set()
    bridge = bridge_of(client)
    bridge.pass_on(cast(Gateway, gateway))
    assert bridge._patience.finished.is_set()
    assert opened == [(bridge._to_gateway, gateway)], "the client's side opens its own"


@pytest.mark.parametrize("who", ["client", "gateway", "signal"])
def test_a_bridge_lasts_until_a_side_ends_or_a_signal_comes(
    client: FakeSide, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    monkeypatch.setattr(run, "_SIGNALLED_S", 0.0)
    gateway, waits = FakeSide(), list[float]()
    bridge = bridge_of(client)

    class Bell:
        def ring(self) -> None:
            pass

        def wait(self, timeout_s: float) -> None:
            waits.append(timeout_s)
            assert (client.told, gateway.told) == ([], [])
            if len(waits) == 3 and who == "signal":
                bridge._signal = signal.SIGHUP
            elif len(waits) == 3:
                {"client": client, "gateway": gateway}[who].ended.set()

    bridge._bell = cast(Any, Bell())
    bridge.pass_on(cast(Gateway, gateway))
    assert waits == [1.0] * 3
    assert bool(client.told) is (who != "client") and bool(gateway.told) is (who != "gateway")


def test_after_a_signal_the_client_may_finish_even_if_the_gateway_has_gone(
    client: FakeSide,
) -> None:
    gateway = FakeSide()
    gateway.ended.set()
    client.ended = Reading(client)
    assert pass_on(client, gateway, by_signal=signal.SIGHUP) == 0
    assert (client.told, gateway.told) == ([], [Farewell(11, "disconnected by user")])


def test_a_client_that_has_gone_too_is_told_nothing(client: FakeSide) -> None:
    gateway = FakeSide(Farewell(2, "maintenance"))
    client.ended.set()
    gateway.ended.set()
    assert pass_on(client, gateway) == 0
    assert client.told == []


def greeting_failed(cause: Exception) -> Exception:
    """Return what paramiko makes of a failure to read the version line."""
    error = paramiko.SSHException(f"Error reading SSH protocol banner{cause}")
    error.__context__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "farewell", "kind", "said"),
    [
        (Untrusted("not the service's"), None, Untrusted, "not the service's"),
        (
            paramiko.ssh_exception.IncompatiblePeer("no acceptable host key"), None, Untrusted,
            "the gateway ssh.example:2222 has no host certificate",
        ),
        (
            paramiko.ssh_exception.IncompatiblePeer("no acceptable ciphers"), None,
            GatewayUnreachable, 'no common algorithms: "no acceptable ciphers"',
        ),
        (EOFError(), Farewell(2, "too many"), GatewayUnreachable, 'it says "too many"'),
        (EOFError(), None, GatewayUnreachable, "it closed the connection"),
        (None, None, GatewayUnreachable, "it closed the connection"),
        (paramiko.SSHException("odd"), None, GatewayUnreachable, '"odd"'),
        (OSError(113, "No route to host"), None, GatewayUnreachable, 'No route to host"'),
        (greeting_failed(EOFError()), None, GatewayUnreachable, "it closed the connection"),
        (greeting_failed(TimeoutError()), None, GatewayUnreachable, "it sends no version line"),
        # What paramiko meets in messages that it cannot parse.
        (KeyError(192), None, GatewayUnreachable, "it breaks the SSH protocol"),
        (InvalidTag(), None, GatewayUnreachable, "it breaks the SSH protocol"),
    ],
)  # fmt: skip
def test_a_login_that_fails_is_explained(
    error: Exception | None, farewell: Farewell | None, kind: type[DcsError], said: str
) -> None:
    gateway = SimpleNamespace(farewell=farewell, get_exception=lambda: error)
    found = explain_failure(cast(Gateway, gateway), LOGIN)
    assert type(found) is kind and found.message.endswith(said)
    assert found.hint or found is error


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    near, far = socket.socketpair()
    with near, far:
        yield near


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeSide:
    """A client that stays, whatever the test run's stdout is."""
    monkeypatch.setattr(run, "client_gone", lambda: False)
    monkeypatch.setattr(run, "TURN_S", 0.001)
    return FakeSide()


def test_a_gateway_that_lets_the_session_in_is_returned(
    client: FakeSide, sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge, gateway = bridge_of(client), FakeGateway()
    gateway.use_in(run, monkeypatch)
    assert bridge.log_in(sock, LOGIN) is cast(Gateway, gateway)
    both = (bridge._to_gateway, bridge._to_client)
    assert gateway.started and gateway.arguments[:4] == (sock, LOGIN, *both)
    assert (gateway.ended.seen, sock.fileno() != -1) == ([], True)
    gateway.arguments[4]()
    started = time.monotonic()
    bridge._bell.wait(60)
    assert time.monotonic() - started < 50, "its end wakes the main thread"


@pytest.mark.parametrize(
    ("gateway", "kind", "text"),
    [
        (
            FakeGateway(authenticated=False), LoginRefused,
            "the gateway ssh.example refuses the session's login",
        ),
        (FakeGateway(has_ended=True, error=Untrusted("forged")), Untrusted, "forged"),
        (FakeGateway(active=False, error=Untrusted("forged")), Untrusted, "forged"),
        (
            FakeGateway(has_ended=True), GatewayUnreachable,
            "the gateway ssh.example:2222 did not complete the login: it closed the connection",
        ),
        (
            FakeGateway(negotiates=False), GatewayUnreachable,
            "the gateway ssh.example did not complete the login in 0 s",
        ),
        (
            FakeGateway(answers=False), GatewayUnreachable,
            "the gateway ssh.example did not complete the login in 0 s",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ends", [True, False])
def test_a_gateway_that_lets_nobody_in_is_left(
    client: FakeSide,
    sock: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    gateway: FakeGateway,
    kind: type[DcsError],
    text: str,
    ends: bool,
) -> None:
    monkeypatch.setattr(run, "_LOGIN_S", 0.0)
    gateway.ends = ends
    gateway.use_in(run, monkeypatch)
    with pytest.raises(kind) as caught:
        bridge_of(client).log_in(sock, LOGIN)
    assert caught.value.message == text
    assert caught.value.hint or kind is Untrusted
    if kind is LoginRefused:
        assert caught.value.hint == "dcs-proxy close dm-foo, then try again"
    assert gateway.ended.seen[-1] == "shut"
    # Another connection could get the number of a closed one, and the gateway's thread read it.
    assert (sock.fileno() == -1) == ends


def test_a_gateway_whose_connection_was_reset_is_left_all_the_same(
    client: FakeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    unconnected = socket.socket()
    gateway = FakeGateway(authenticated=False)
    gateway.use_in(run, monkeypatch)
    monkeypatch.setattr(fakes.End, "wait", lambda end, timeout=None: True)
    with pytest.raises(LoginRefused):
        bridge_of(client).log_in(unconnected, LOGIN)
    assert unconnected.fileno() == -1


@pytest.mark.parametrize("how", ["its connection has ended", "it reads no more"])
@pytest.mark.parametrize("gateway", [FakeGateway(negotiates=False), FakeGateway(answers=False)])
def test_a_client_that_goes_ends_the_wait_for_the_gateway(
    client: FakeSide,
    sock: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    gateway: FakeGateway,
    how: str,
) -> None:
    gateway.use_in(run, monkeypatch)
    if how == "it reads no more":
        monkeypatch.setattr(run, "client_gone", lambda: True)
    else:
        client.ended.set()
    with pytest.raises(ClientGone, match="has exited"):
        bridge_of(client).log_in(sock, LOGIN)
    assert sock.fileno() == -1


def test_a_gateway_may_take_some_turns(
    client: FakeSide, sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(threading.Event):
        turns = 0

        def wait(self, timeout: float | None = None) -> bool:
            self.turns += 1
            return self.turns > 3

    gateway = FakeGateway(has_answered=Late())
    gateway.use_in(run, monkeypatch)
    assert bridge_of(client).log_in(sock, LOGIN) is cast(Gateway, gateway)


def test_why_a_gateway_stopped_is_known_once_its_thread_has_ended(
    client: FakeSide, sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = FakeGateway(active=False)
    gateway.use_in(run, monkeypatch)

    def end(_: fakes.End, timeout: float | None = None) -> bool:
        gateway.error = Untrusted("forged")
        return True

    monkeypatch.setattr(fakes.End, "wait", end)
    with pytest.raises(Untrusted, match="forged"):
        bridge_of(client).log_in(sock, LOGIN)


def test_a_client_learns_why_there_is_no_connection(client: FakeSide) -> None:
    bridge = bridge_of(client)
    error = GatewayUnreachable("no answer", hint="try again")
    bridge.fail(error)
    assert client.told == [Farewell(11, error.one_line())]
    assert bridge._patience.finished.is_set(), "the client is not let in any more"
    assert not client.is_let_in


@pytest.mark.parametrize(
    ("version", "is_let_in", "shows"),
    [
        ("SSH-2.0-OpenSSH_9.2p1 Debian", False, True),
        ("SSH-2.0-dropbear_2022.83", True, True),
        ("SSH-2.0-PuTTY_Release_0.78", True, True),
        ("SSH-2.0-ssh2js1.17.0", True, False),
        ("SSH-2.0-x OpenSSH", True, False),
        ("", True, False),
    ],
)
def test_only_openssh_is_left_to_wait_and_some_clients_show_reasons(
    client: FakeSide, version: str, is_let_in: bool, shows: bool
) -> None:
    client.remote_version = version
    bridge = bridge_of(client)
    bridge._run_out_of_patience()
    assert (client.is_let_in, bridge.shows_reasons) == (is_let_in, shows)


def test_a_clients_version_is_cleaned_for_the_log(client: FakeSide) -> None:
    client.remote_version = "SSH-2.0-\x1b[31mred" + "x" * 200
    version = bridge_of(client).client_version
    assert version.startswith("SSH-2.0- [31mred") and len(version) <= 81


def test_progress_is_shown_to_the_client_as_ours(client: FakeSide) -> None:
    run._Banners(cast(Any, client)).notice("waking dm-foo")
    assert client.shown == ["dcs-proxy: waking dm-foo"]


def test_a_bridge_has_both_keys_and_lets_no_client_wait_for_long(
    client: FakeSide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    began: list[bool] = []

    def make(*arguments: Any) -> FakeSide:
        made.extend(arguments)
        return client

    monkeypatch.setattr(client, "start", lambda: began.append(True), raising=False)
    monkeypatch.setattr(run, "Client", make)
    monkeypatch.setattr(run, "Stream", lambda *arguments: arguments)
    state = StateDirectory(str(tmp_path / "state"))
    bridge = Bridge("dm-foo", state, b"SSH-2.0-x")
    try:
        stream, keys, inbox, outbox, on_end = made
        assert stream == (0, 1, b"SSH-2.0-x") and began == [True]
        assert [key.get_name() for key in keys] == ["ssh-ed25519", "ecdsa-sha2-nistp256"]
        known = Path(state.file("known_hosts")).read_text()
        assert all(key.get_base64() in known for key in keys)
        assert (inbox, outbox) == (bridge._to_client, bridge._to_gateway)
        assert (bridge._host, bridge._signal) == ("dm-foo", 0)
        bridge.progress.waking(MachineName("dm-foo"), 60)
        assert client.shown == ["dcs-proxy: dm-foo: waking up, at most 60 s"]
        assert on_end == bridge._bell.ring
        assert (bridge._patience.interval, bridge._patience.daemon) == (2.0, True)
        assert bridge._patience.is_alive()
    finally:
        bridge._patience.cancel()


def test_a_signal_ends_the_wait_and_the_process_if_nobody_reads(
    client: FakeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers: list[tuple[int, float]] = []
    monkeypatch.setattr(signal, "setitimer", lambda *arguments: timers.append(arguments))
    bridge = bridge_of(client)
    bridge._end_soon(signal.SIGTERM, None)
    assert timers == [(signal.ITIMER_REAL, 2.0)] and bridge._signal == signal.SIGTERM
    started = time.monotonic()
    bridge._bell.wait(60)
    assert time.monotonic() - started < 50


def test_a_bell_rings_once_however_often_it_was_rung() -> None:
    bell = run._Bell()
    for _ in range(100):
        bell.ring()
    bell.wait(60)
    assert not os.get_blocking(bell._write), "a signal handler must not wait"
    started = time.monotonic()
    bell.wait(0.01)
    assert time.monotonic() - started >= 0.01
    # Until nobody has read for so long that the pipe is full.
    for _ in range(70_000):
        bell.ring()
