"""How a bridge ends, and what it says when it cannot begin."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import paramiko
import pytest
from cryptography.exceptions import InvalidTag

from dcs_proxy.bridge import run
from dcs_proxy.bridge.gateway import Gateway
from dcs_proxy.bridge.login import Login
from dcs_proxy.bridge.outbox import Outbox
from dcs_proxy.bridge.run import Bridge, explain_failure
from dcs_proxy.bridge.side import Farewell
from dcs_proxy.errors import DcsError, GatewayUnreachable, Untrusted

LOGIN = cast(Login, SimpleNamespace(endpoint="ssh.example", port=2222))


@dataclass
class FakeSide:
    """One of the two connections; `told` is what its peer was told at the end."""

    farewell: Farewell | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    told: list[Farewell] = field(default_factory=list)
    is_let_in: bool = False

    def let_in(self) -> None:
        self.is_let_in = True

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


def pass_on(client: FakeSide, gateway: FakeSide, *, by_signal: int = 0) -> int:
    """Run a bridge between the two sides, of which one has ended, or that a signal ends."""
    bridge = Bridge.__new__(Bridge)
    bridge._host, bridge._signal = "dm-foo", by_signal
    bridge._bell = run._Bell()
    bridge._patience = threading.Timer(1000, bridge._bell.ring)
    bridge._client = cast(Any, client)
    bridge._to_client, bridge._to_gateway = Outbox(), Outbox()
    return bridge.pass_on(cast(Gateway, gateway))


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


def test_ctrl_c_is_left_to_the_client() -> None:
    client = FakeSide()
    client.ended.set()
    pass_on(client, FakeSide())
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


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
