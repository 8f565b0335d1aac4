"""What both sides do with messages for the transport, and with those that they do not know."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
import pytest

from dcs_proxy.bridge.client import Client
from dcs_proxy.bridge.gateway import Gateway
from dcs_proxy.bridge.login import Login
from dcs_proxy.bridge.outbox import Outbox
from dcs_proxy.bridge.side import Side
from dcs_proxy.bridge.stream import Stream
from dcs_proxy.names import MachineName
from dcs_proxy.ssh.certificates import parse_authority
from dcs_proxy.ssh.wire import pack_string, pack_u32
from tests.support.rogues import UNUSED, Rogue, RogueClient, RogueGateway, rogue_gateway
from tests.support.waiting import LIMIT_S, wait_until

MARKER = b"\x50" + pack_string(b"marker@example.com") + b"\0"
TEXT = b"\x04\x01" + pack_string(b"authorized_keys:1: key options") + pack_string(b"")
PADDING = b"\x02" + pack_string(b"padding")


class Signing:
    """An agent that signs anything."""

    def sign(self, *_: object) -> bytes:
        return pack_string(b"ssh-ed25519") + pack_string(bytes(64))


@dataclass
class Joined:
    """Both sides of a bridge, between a rogue client and a rogue gateway.

    Each is logged in when it is first used.
    """

    rogue: RogueGateway
    to_client: Outbox = field(default_factory=Outbox)
    to_gateway: Outbox = field(default_factory=Outbox)

    def __post_init__(self) -> None:
        near, self._far = socket.socketpair()
        self._near = near
        stream = Stream(near.fileno(), near.fileno())
        key = paramiko.ECDSAKey.generate()
        self.client_side = Client(stream, [key], self.to_client, self.to_gateway, lambda: None)
        self.client_side.start()
        self.client = RogueClient(self._far)
        line = (self.rogue.authorities / "host_ca.pub").read_text()
        agent: Any = Signing()
        login = Login(
            "localhost", self.rogue.port, "me", parse_authority(line, MachineName("dm-foo")),
            agent, b"key", b"\0\0\0\x0bssh-ed25519",
        )  # fmt: skip
        self._sock = socket.create_connection(("127.0.0.1", self.rogue.port))
        self.gateway_side = Gateway(
            self._sock, login, self.to_gateway, self.to_client, lambda: None
        )
        self.gateway_side.start()
        assert self.gateway_side.is_negotiated.wait(LIMIT_S)
        self.gateway = self.rogue.served[0]
        # paramiko sets this last in a key exchange: until then it may still send messages of its
        # own, and count from zero again.
        for rogue in (self.client, self.gateway):
            assert rogue.clear_to_send.wait(LIMIT_S)

    def log_in(self) -> Joined:
        """Let the client in, and log in to the gateway."""
        self.client_side.let_in()
        self.client.log_in()
        self.gateway_side.log_in()
        assert self.gateway_side.has_answered.wait(LIMIT_S)
        assert self.gateway_side.is_authenticated()
        self.to_gateway.open(self.gateway_side)
        return self

    def ends(self, by: str) -> tuple[Rogue, Rogue, Side]:
        """Return the end that speaks, the other one, and our side towards the first."""
        if by == "client":
            return self.client, self.gateway, self.client_side
        return self.gateway, self.client, self.gateway_side

    def close(self) -> None:
        for sock in (self._near, self._sock):
            sock.shutdown(socket.SHUT_RDWR)
        for side in (self.client_side, self.gateway_side):
            assert side.ended.wait(LIMIT_S)
        for sock in (self._near, self._far, self._sock):
            sock.close()


@pytest.fixture(params=["aes128-gcm@openssh.com", "aes128-ctr"], ids=["gcm", "ctr"])
def joined(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Joined]:
    monkeypatch.setattr(Rogue, "_preferred_ciphers", (request.param,))
    with rogue_gateway(tmp_path) as rogue:
        made = Joined(rogue)
        yield made
        made.close()


BY = pytest.mark.parametrize("by", ["client", "gateway"])


def refusal(number: int) -> bytes:
    return b"\x03" + pack_u32(number)


def goes_through(source: Rogue, sink: Rogue) -> None:
    """Wait until a message has come through, and so all before it."""
    sink.heard.clear()
    source.say(MARKER)
    wait_until(lambda: MARKER in sink.heard)


@BY
def test_each_unknown_message_is_refused_by_its_number(joined: Joined, by: str) -> None:
    """RFC 4253 §11.4; 192 is ping@openssh.com, which we do not advertise."""
    source, sink, _ = joined.log_in().ends(by)
    expected = []
    for number in UNUSED:
        expected.append(refusal(source.next_number))
        source.say(bytes([number]) + bytes(20))
        goes_through(source, sink)
    wait_until(lambda: source.generic == expected)
    assert not sink.generic


@BY
def test_an_unknown_message_before_the_login_is_refused(joined: Joined, by: str) -> None:
    source, sink, _ = joined.ends(by)
    expected = refusal(source.next_number)
    source.say(b"\x09")
    wait_until(lambda: source.generic == [expected])
    joined.log_in()
    goes_through(source, sink)


@BY
@pytest.mark.parametrize("number", [80, 127, 128, 192])
def test_a_message_for_after_the_login_ends_the_connection_before_it(
    joined: Joined, by: str, number: int
) -> None:
    """RFC 4252 §6, also for numbers of no protocol."""
    source, _, side = joined.ends(by)
    source.say(bytes([number]) + bytes(20))
    assert side.ended.wait(LIMIT_S)
    assert "before the login" in str(side.get_exception())


@BY
def test_unknown_messages_of_the_connection_protocol_are_left_to_the_other_end(
    joined: Joined, by: str
) -> None:
    """It may know them; if not, the sender learns which of its own messages is refused."""
    source, sink, _ = joined.log_in().ends(by)
    for number in (83, 89, 101, 127):
        message = bytes([number]) + b"unknown"
        ours = source.next_number
        source.say(message)
        wait_until(lambda message=message: message in sink.heard)
        theirs = sink.last_number
        # Later messages do not change which one is meant.
        goes_through(source, sink)
        sink.say(refusal(theirs))
        wait_until(lambda ours=ours: source.generic[-1:] == [refusal(ours)])
        # A message of our own in between: their difference is another from now on.
        sink.say(b"\x09")
        goes_through(sink, source)


@BY
def test_refusals_are_right_after_a_key_exchange(joined: Joined, by: str) -> None:
    """Strict key exchanges begin to count at zero again; each side has its own."""
    source, sink, _ = joined.log_in().ends(by)
    for renewing in (source, sink, source):
        goes_through(source, sink)
        renewing.renegotiate_keys()
        goes_through(source, sink)
        ours = source.next_number
        source.say(b"\x7funknown")
        wait_until(lambda: b"\x7funknown" in sink.heard)
        sink.say(refusal(sink.last_number))
        wait_until(lambda ours=ours: source.generic[-1:] == [refusal(ours)])


@BY
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_refusal_of_our_own_message_changes_nothing(joined: Joined, by: str, when: str) -> None:
    source, sink, _ = joined.ends(by)
    if when == "after":
        joined.log_in()
    source.say(refusal(0), refusal(2**32 - 1))
    if when == "before":
        joined.log_in()
    goes_through(source, sink)
    assert not sink.generic and not source.generic


@BY
def test_padding_and_texts_for_the_user_reach_the_other_end(joined: Joined, by: str) -> None:
    source, sink, _ = joined.log_in().ends(by)
    source.say(PADDING, TEXT)
    goes_through(source, sink)
    assert sink.generic == [PADDING, TEXT]


@BY
def test_no_padding_or_text_is_passed_on_before_the_login(joined: Joined, by: str) -> None:
    source, sink, _ = joined.ends(by)
    source.say(PADDING, TEXT)
    joined.log_in()
    goes_through(source, sink)
    assert not sink.generic


def within_exchange(*messages: bytes) -> Callable[[Rogue], None]:
    """Return a function that renews the keys and says the messages before anything else of it."""

    def renew(source: Rogue) -> None:
        begin: Callable[[], None] = source._send_kex_init  # type: ignore[attr-defined]  # not in the stubs

        def slip() -> None:
            begin()
            source.say(*messages)

        # paramiko looks it up in the instance.
        source._send_kex_init = slip  # type: ignore[attr-defined]
        source.renegotiate_keys()

    return renew


@BY
def test_messages_for_the_transport_may_come_within_a_later_key_exchange(
    joined: Joined, by: str
) -> None:
    """RFC 4253 §7.1: the peer has sent them before it has read ours, or answers us."""
    source, sink, _ = joined.log_in().ends(by)
    goes_through(source, sink)
    within_exchange(PADDING, TEXT, refusal(0), b"\x09")(source)
    goes_through(source, sink)
    assert sink.generic == [PADDING, TEXT]
    (answer,) = source.generic
    assert answer[:1] == b"\x03"


@BY
@pytest.mark.parametrize(
    "message",
    [
        # Global requests with and without a reply, channel types, requests and failure codes of
        # nobody's (RFC 4254 §4, §5.1, §5.4).
        b"\x50" + pack_string(b"unknown@example.com") + b"\x01",
        b"\x50" + pack_string(b"unknown@example.com") + b"\x00" + bytes(1000),
        b"\x50" + pack_string(b"\xff\xfe") + b"\x01",
        b"\x5a" + pack_string(b"unknown@example.com") + pack_u32(7) * 3 + bytes(500),
        b"\x5c" + pack_u32(7) + pack_u32(0xFE00_0001) + pack_string(b"\x1b[31m") + pack_string(b""),
        b"\x62" + pack_u32(7) + pack_string(b"unknown@example.com") + b"\x01",
        b"\x62" + pack_u32(7) + pack_string(b"keepalive@openssh.com") + b"\x01",
        b"\x62",
    ],
)  # fmt: skip
def test_what_the_other_end_must_judge_is_passed_on_unchanged(
    joined: Joined, by: str, message: bytes
) -> None:
    source, sink, _ = joined.log_in().ends(by)
    source.say(message)
    wait_until(lambda: sink.heard == [message])
    assert not source.generic


@BY
def test_extensions_are_ignored_at_any_time(joined: Joined, by: str) -> None:
    """RFC 8308: after the first keys, before the login is granted, and malformed."""
    source, sink, _ = joined.ends(by)
    extensions = [
        b"\x07" + pack_u32(1) + pack_string(b"ping@openssh.com") + pack_string(b"0"),
        b"\x07" + pack_u32(2**32 - 1),
        b"\x07",
    ]
    source.say(*extensions)
    joined.log_in()
    source.say(*extensions)
    goes_through(source, sink)
    assert not source.generic
