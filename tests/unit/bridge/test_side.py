"""What both of the bridge's connections do with messages, and how they end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import paramiko
import pytest

from dcs_proxy.bridge.client import Client
from dcs_proxy.bridge.outbox import Outbox
from dcs_proxy.bridge.packets import Payload
from dcs_proxy.bridge.side import Farewell, Side
from dcs_proxy.bridge.stream import Stream
from dcs_proxy.ssh.wire import pack_string
from tests.unit.bridge.wire import Peer

WITHHELD = pack_string(b"hostkeys-00@openssh.com")


@dataclass
class Made:
    """A side whose thread is not started, and what its outbox gets."""

    peer: Peer = field(default_factory=Peer)
    passed: list[tuple[bytes, bool]] = field(default_factory=list)
    inbox: Outbox = field(default_factory=Outbox)
    order: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        outbox = Outbox()
        # In place of the method, to see what reaches it.
        outbox.put = lambda message, *, may_wait: self.passed.append(  # type: ignore[method-assign]
            (message.asbytes(), may_wait)
        )
        stream = Stream(self.peer.fd, self.peer.fd)
        self.side = Client(stream, [], self.inbox, outbox, self._on_end)

    def _on_end(self) -> None:
        self.order.append("ended" if self.side.ended.is_set() else "not ended")


@pytest.fixture
def made() -> Iterator[Made]:
    each = Made()
    yield each
    each.side.close()
    each.peer.close()


@pytest.mark.parametrize("error", [EOFError(), BrokenPipeError(), TimeoutError()])
def test_a_farewell_to_a_broken_connection_is_no_failure(
    made: Made, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    failed: list[object] = []
    tried = threading.Event()

    def fail(message: Payload) -> None:
        tried.set()
        raise error

    monkeypatch.setattr(threading, "excepthook", failed.append)
    monkeypatch.setattr(made.side.packetizer, "send_message", fail)
    made.side.disconnect(Farewell(11, "why"), 60)
    assert tried.is_set() and failed == []


def test_a_farewell_is_said_once_and_cut_between_two_characters(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    monkeypatch.setattr(made.side, "_send_last", sent.append)
    made.side.disconnect(Farewell(7, "x" + "é" * 1500), 60)
    made.side.disconnect(Farewell(2, "again"), 60)
    text = ("x" + "é" * 999).encode()
    assert sent == [b"\1\0\0\0\7" + pack_string(text)]


def test_a_connection_that_has_ended_gets_no_farewell(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.side.ended.set()
    monkeypatch.setattr(made.side, "_send_last", lambda _: pytest.fail("it was sent"))
    made.side.disconnect(Farewell(11, "why"), 60)
    assert not made.side._said_farewell


def test_a_peer_that_reads_no_farewell_is_not_waited_for(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = threading.Event()
    is_daemon: list[bool] = []

    def block(message: bytes) -> None:
        is_daemon.append(threading.current_thread().daemon)
        read.wait(60)

    monkeypatch.setattr(made.side, "_send_last", block)
    made.side.disconnect(Farewell(11, "why"), 0.01)
    assert not read.is_set()
    read.set()
    assert is_daemon == [True], "the process can end"


def test_a_farewell_is_sent_before_the_process_can_exit(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []

    def send(message: bytes) -> None:
        time.sleep(0.05)  # in which a caller that does not wait would return
        sent.append(message)

    monkeypatch.setattr(made.side, "_send_last", send)
    made.side.disconnect(Farewell(11, "why"), 60)
    assert len(sent) == 1


@pytest.mark.parametrize("body", [b"", b"\0\0\1"])
def test_a_malformed_refusal_ends_the_connection(made: Made, body: bytes) -> None:
    with pytest.raises(paramiko.SSHException, match="a malformed refusal"):
        made.side._pass_on_refusal(paramiko.Message(body))
    assert made.passed == []


@pytest.mark.parametrize("number", [80, 81, 82, 90, 98, 100, 127])
@pytest.mark.parametrize("in_exchange", [True, False])
def test_every_message_of_the_connection_protocol_is_passed_on(
    made: Made, number: int, in_exchange: bool
) -> None:
    """Waiting only outside of a key exchange, which this thread has to finish."""
    if not in_exchange:
        made.side.clear_to_send.set()
    body = pack_string(b"keepalive@openssh.com") + b"\1more"
    made.side._handler_table[number](Payload(bytes([number]) + body))
    assert made.passed == [(bytes([number]) + body, not in_exchange)]


@pytest.mark.parametrize("number", [80, 94, 127])
def test_paramiko_checks_the_order_before_the_login_and_in_key_exchanges(
    made: Made, number: int
) -> None:
    take, body = made.side.packetizer.take, Payload(bytes([number]) + pack_string(b"x") + b"\1")
    assert not take(number, body)
    made.side.authenticated = True
    assert not take(number, body)
    made.side.authenticated = False
    made.side.clear_to_send.set()
    assert not take(number, body)
    assert made.passed == []
    made.side.authenticated = True
    assert take(number, body)
    assert made.passed == [(body.asbytes(), True)]


@pytest.mark.parametrize("wants_reply", [b"\0", b"\1"])
def test_a_request_about_host_keys_is_not_passed_on(made: Made, wants_reply: bytes) -> None:
    made.side._handler_table[80](Payload(b"\x50" + WITHHELD + wants_reply))
    refused = b"\x50" + pack_string(b"withheld@dcs-proxy") + b"\1"
    assert [message for message, _ in made.passed] == ([refused] if wants_reply == b"\1" else [])


@pytest.mark.parametrize("body", [b"", b"\0\0\0\xffx", WITHHELD])
def test_a_malformed_global_request_ends_the_connection(made: Made, body: bytes) -> None:
    with pytest.raises(paramiko.SSHException, match="a malformed global request"):
        made.side._handler_table[80](Payload(b"\x50" + body))
    assert made.passed == []


@pytest.mark.parametrize("is_let_in", [True, False])
@pytest.mark.parametrize("number", [80, 127])
def test_the_connection_protocol_begins_with_the_login(
    made: Made, is_let_in: bool, number: int
) -> None:
    made.side.authenticated = is_let_in
    made.side._ensure_authed(50, None)
    if is_let_in:
        made.side._ensure_authed(number, None)
    else:
        with pytest.raises(paramiko.SSHException, match=f"message {number} before the login"):
            made.side._ensure_authed(number, None)


def test_messages_that_say_nothing_to_us_are_ignored(made: Made) -> None:
    made.side._handler_table[7](paramiko.Message(b"\xff" * 9))
    made.side._parse_debug(paramiko.Message(b""))
    assert made.passed == []


@pytest.mark.parametrize(
    ("body", "farewell"),
    [
        (b"\0\0\0\2" + pack_string(b"too\nmany \xff"), Farewell(2, "too many \ufffd")),
        (b"\0\0\0\2" + pack_string(b"x" * 5000), Farewell(2, "x" * 1997 + "...")),
        (b"\0\0\0\2", Farewell(11, "")),
        (b"", Farewell(11, "")),
    ],
)
def test_a_farewell_is_noted_on_one_line(made: Made, body: bytes, farewell: Farewell) -> None:
    made.side._parse_disconnect(paramiko.Message(body))
    assert made.side.farewell == farewell


def test_what_was_held_is_sent_once_the_new_keys_are_in_use(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(made.side, "_newkeys", lambda _: order.append("keys"))
    monkeypatch.setattr(made.inbox, "flush", lambda: order.append("flush"))
    made.side._handler_table[21](paramiko.Message(b""))
    assert order == ["keys", "flush"]


@pytest.mark.parametrize("fails", [True, False])
def test_the_end_is_announced_when_nothing_more_is_taken(
    made: Made, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    def run(_: object) -> None:
        if fails:
            raise KeyError(192)

    monkeypatch.setattr(paramiko.Transport, "run", run)
    monkeypatch.setattr(made.inbox, "close", lambda side: made.order.append("closed"))
    try:
        made.side.run()
    except KeyError:
        assert fails
    assert made.order == ["closed", "ended"]


def test_paramiko_writes_nothing_to_the_clients_terminal() -> None:
    log = logging.getLogger("paramiko.transport")
    assert not log.isEnabledFor(logging.CRITICAL)
    assert not logging.getLogger("paramiko").propagate
    assert logging.getLogger("paramiko").handlers


def test_what_is_offered_exists_and_is_not_broken() -> None:
    assert set(Side._preferred_kex) <= set(Side._kex_info)
    assert set(Side._preferred_ciphers) <= set(paramiko.Transport._cipher_info)
    assert set(Side._preferred_macs) <= set(paramiko.Transport._mac_info)
    offered = " ".join((*Side._preferred_kex, *Side._preferred_ciphers, *Side._preferred_macs[:-1]))
    assert not any(old in offered for old in ("sha1", "md5", "cbc", "arcfour", "3des", "group1-"))
    # Only with peers that have no other: as HMAC it is not broken (RFC 6194).
    assert Side._preferred_macs[-1] == "hmac-sha1"
    # The names that OpenSSH's clients have had since 6.5, and dropbear's guess, are first.
    assert Side._preferred_kex[0] == "curve25519-sha256"
    # Peers may have only one of those that RFC 9142 §4 says implementations must or should have.
    recommended = {
        "curve25519-sha256", "ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521",
        "diffie-hellman-group14-sha256", "diffie-hellman-group16-sha512",
    }  # fmt: skip
    assert recommended <= set(Side._preferred_kex)
    assert {"aes128-ctr", "aes256-ctr", "aes256-gcm@openssh.com"} <= set(Side._preferred_ciphers)
    for mac in ("hmac-sha2-256", "hmac-sha2-512"):
        both = (f"{mac}-etm@openssh.com", mac)
        assert [name for name in Side._preferred_macs if name in both] == [*both]
    assert Side._preferred_ciphers[0] == "aes128-gcm@openssh.com"
    assert Side._preferred_compression == ("none",)
