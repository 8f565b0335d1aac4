"""The client's side against clients that are hostile, odd, or real ones of paramiko's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from dcs_proxy.bridge.client import Client
from dcs_proxy.bridge.outbox import Outbox
from dcs_proxy.bridge.packets import Payload
from dcs_proxy.bridge.side import Farewell
from dcs_proxy.bridge.stream import Stream
from dcs_proxy.ssh.wire import Reader, pack_string, pack_u32
from tests.support.waiting import wait_until
from tests.unit.bridge.wire import KEX_INIT, KEX_REPLY, KEXINIT, Peer, kexinit

KEY = paramiko.ECDSAKey.generate()
KINDS = (b"ecdsa-sha2-nistp256",)
CURVE = (b"curve25519-sha256",)


@dataclass
class Served:
    """A client's side, and the peer that plays the client."""

    peer: Peer = field(default_factory=Peer)
    inbox: Outbox = field(default_factory=Outbox)
    outbox: Outbox = field(default_factory=Outbox)
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        stream = Stream(self.peer.fd, self.peer.fd)
        self.client = Client(stream, [KEY], self.inbox, self.outbox, self.ended.set)
        self.client.start()


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.client.close()
    made.peer.sock.close()
    assert made.ended.wait(60)
    made.peer.close()


def exchange() -> bytes:
    """Return the body of a client's first half of an exchange (RFC 5656 §4, RFC 8731)."""
    return pack_string(X25519PrivateKey.generate().public_key().public_bytes_raw())


def test_a_key_exchange_is_answered(served: Served) -> None:
    served.peer.greet()
    assert served.peer.receive()[0] == KEXINIT
    served.peer.send(KEXINIT, kexinit(CURVE, KINDS))
    served.peer.send(KEX_INIT, exchange())
    assert served.peer.receive()[0] == KEX_REPLY


def test_a_right_guess_of_the_key_exchange_is_used(served: Served) -> None:
    served.peer.greet()
    served.peer.send(KEXINIT, kexinit(CURVE, KINDS, follows=True))
    served.peer.send(KEX_INIT, exchange())
    assert [served.peer.receive()[0] for _ in range(2)] == [KEXINIT, KEX_REPLY]


@pytest.mark.parametrize(
    ("kex", "keys"),
    [
        ((b"sntrup761x25519-sha512@openssh.com", *CURVE), KINDS),
        (CURVE, (b"ssh-ed25519", *KINDS)),
    ],
)
def test_a_wrong_guess_of_the_key_exchange_is_passed_over(
    served: Served, kex: tuple[bytes, ...], keys: tuple[bytes, ...]
) -> None:
    served.peer.greet()
    served.peer.send(KEXINIT, kexinit(kex, keys, follows=True))
    served.peer.send(KEX_INIT, pack_string(b"of another algorithm"))
    served.peer.send(KEX_INIT, exchange())
    assert [served.peer.receive()[0] for _ in range(2)] == [KEXINIT, KEX_REPLY]


def ciphers_of(body: bytes) -> list[bytes]:
    """Return the ciphers towards the server that SSH_MSG_KEXINIT lists."""
    reader = Reader(body[16:])
    return [reader.string() for _ in range(3)][2].split(b",")


@pytest.mark.parametrize(
    ("theirs", "back", "has_slow_ones"),
    [
        (b"aes128-ctr,aes256-gcm@openssh.com", None, False),
        (b"aes128-ctr,aes256-gcm@openssh.com", b"aes128-gcm@openssh.com,aes128-ctr", False),
        (b"aes128-ctr", None, True),
        (b"aes128-ctr", b"aes128-ctr,aes256-gcm@openssh.com", True),
        (b"aes128-ctr,aes256-gcm@openssh.com", b"aes128-ctr", True),
    ],
)
def test_openssh_is_offered_the_fastest_ciphers_that_it_has(
    served: Served, theirs: bytes, back: bytes | None, has_slow_ones: bool
) -> None:
    served.peer.greet(b"SSH-2.0-OpenSSH_9.2p1")
    served.peer.send(KEXINIT, kexinit(CURVE, KINDS, ciphers=theirs, back=back))
    served.peer.send(KEX_INIT, exchange())
    number, body = served.peer.receive()
    offered = ciphers_of(body)
    assert number == KEXINIT and b"aes256-gcm@openssh.com" in offered
    assert (b"aes128-ctr" in offered) == has_slow_ones
    assert served.peer.receive()[0] == KEX_REPLY


def test_a_client_other_than_openssh_need_not_begin_the_key_exchange(served: Served) -> None:
    served.peer.greet()
    number, body = served.peer.receive()
    assert number == KEXINIT and b"aes128-ctr" in ciphers_of(body)


STRICT = (*CURVE, b"kex-strict-c-v00@openssh.com")


@pytest.mark.parametrize("number", [2, 3, 4, 7])
@pytest.mark.parametrize("when", ["before", "within"])
def test_nothing_is_slipped_into_the_first_key_exchange(
    served: Served, number: int, when: str
) -> None:
    served.peer.greet()
    lists = (KEXINIT, kexinit(STRICT, KINDS))
    slipped = (number, bytes(8))
    for message in [slipped, lists] if when == "before" else [lists, slipped]:
        served.peer.send(*message)
    assert served.ended.wait(60)
    assert isinstance(served.client.get_exception(), paramiko.SSHException)


@pytest.mark.parametrize("size", [100_004, 2**31 - 12])
def test_a_packet_of_any_size_is_not_waited_for(served: Served, size: int) -> None:
    served.peer.greet()
    served.peer.sock.sendall(pack_u32(size) + bytes(12))
    assert served.ended.wait(60)


def test_a_greeting_without_end_is_not_kept(served: Served) -> None:
    served.peer.sock.sendall(b"x" * 100_000)
    assert served.ended.wait(60)
    # Not by paramiko's time limit.
    assert "the greeting is too long" in str(served.client.get_exception())


@pytest.mark.parametrize("number", [80, 90, 94, 98, 127])
def test_no_message_is_passed_on_before_the_client_is_let_in(served: Served, number: int) -> None:
    passed: list[Payload] = []
    # In place of the method, to see what reaches it.
    served.outbox.put = lambda message, **_: passed.append(message)  # type: ignore[method-assign]
    transport = negotiated(served)
    message = paramiko.Message()
    message.add_byte(bytes([number]))
    message.add_string("session")
    message.add_int(0)
    transport._send_message(message)
    assert not transport.is_authenticated()
    transport.close()
    assert served.ended.wait(60)
    assert passed == []


def negotiated(served: Served) -> paramiko.Transport:
    """Return paramiko's client at the end of its key exchange."""
    transport = paramiko.Transport(served.peer.sock)
    transport.start_client(timeout=60)
    return transport


class Waiting:
    """paramiko's client while it waits to be let in."""

    def __init__(self, served: Served, how: str) -> None:
        self.transport = negotiated(served)
        self.error: Exception | None = None
        self._how = how
        self._thread = threading.Thread(target=self._log_in)
        self._thread.start()

    def _log_in(self) -> None:
        try:
            if self._how == "none":
                self.transport.auth_none("anybody")
            elif self._how == "password":
                self.transport.auth_password("anybody", "")
            elif self._how == "interactive":
                self.transport.auth_interactive("anybody", lambda *_: [])
            else:
                self.transport.auth_publickey("anybody", paramiko.ECDSAKey.generate())
        except (paramiko.SSHException, EOFError) as error:
            self.error = error

    def end(self) -> paramiko.Transport:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.transport


@pytest.mark.parametrize("how", ["none", "password", "interactive", "publickey"])
def test_a_client_is_let_in_by_any_method_but_not_before_its_time(served: Served, how: str) -> None:
    waiting = Waiting(served, how)
    wait_until(lambda: served.client._is_asking)
    assert not served.client.authenticated
    served.client.let_in()
    assert waiting.end().is_authenticated()


def test_a_client_that_comes_late_is_let_in_at_once(served: Served) -> None:
    served.client.let_in()
    assert Waiting(served, "none").end().is_authenticated()


def test_lines_are_shown_while_the_client_waits(served: Served) -> None:
    served.client.show("before it asks")
    waiting = Waiting(served, "none")
    banners: list[bytes] = []

    def seen() -> bytes:
        banner = waiting.transport.get_banner()
        if banner is not None and banner not in banners:
            banners.append(banner)
        return b"".join(banners)

    wait_until(lambda: b"before it asks\r\n" in seen())
    served.client.show("while it waits")
    wait_until(lambda: b"while it waits\r\n" in seen())
    served.client.let_in()
    assert waiting.end().is_authenticated()
    served.client.show("too late, and not sent")


def test_each_line_is_shown_once(served: Served) -> None:
    sent: list[bytes] = []
    # In place of the method, to see what reaches it.
    served.client.send = sent.append  # type: ignore[method-assign]
    served.client.show("one")
    served.client.show("two")
    assert sent == [], "before the client may get one (RFC 4252 §5.4)"
    served.client.ask()
    served.client.show("three")
    served.client.ask()
    served.client.let_in()
    served.client.let_in()
    served.client.ask()
    served.client.show("too late")
    lines = [b"one\r\n", b"two\r\n", b"three\r\n"]
    banners = [b"\x35" + pack_string(line) + pack_string(b"") for line in lines]
    assert sent == [*banners, b"\x34"]


def test_what_was_meant_for_the_client_comes_once_it_is_let_in(served: Served) -> None:
    request = b"\x50" + pack_string(b"odd@example.com") + b"\x00"
    served.inbox.put(Payload(request), may_wait=True)
    requests: list[str] = []
    waiting = Waiting(served, "none")
    waiting.transport._handler_table[80] = lambda message: requests.append(message.get_text())
    wait_until(lambda: served.client._is_asking)
    assert requests == []
    served.client.let_in()
    wait_until(lambda: requests == ["odd@example.com"])
    waiting.end()


def test_the_reason_for_the_end_is_told_at_any_stage(served: Served) -> None:
    waiting = Waiting(served, "none")
    wait_until(lambda: served.client._is_asking)
    said: list[tuple[int, str]] = []

    def note(message: paramiko.Message) -> None:
        said.append((message.get_int(), message.get_text()))

    waiting.transport._parse_disconnect = note
    served.client.disconnect(Farewell(11, "dm-foo: there is no such machine"), 60)
    waiting.end()
    assert said == [(11, "dm-foo: there is no such machine")]
    assert waiting.error is not None


def test_the_reason_for_the_end_is_told_before_the_first_packet(served: Served) -> None:
    served.peer.greet()
    served.client.disconnect(Farewell(11, "why"), 60)
    numbers = []
    while not numbers or numbers[-1][0] != 1:
        numbers.append(served.peer.receive())
    reader = Reader(numbers[-1][1])
    assert (reader.u32(), reader.string()) == (11, b"why")


def test_a_clients_own_farewell_is_kept_clean(served: Served) -> None:
    served.peer.greet()
    served.peer.send(1, b"\0\0\0\x0b" + pack_string(b"by\x1b[31m user\n") + pack_string(b""))
    assert served.ended.wait(60)
    assert served.client.farewell == Farewell(11, "by [31m user")


def login_request(service: str, method: str) -> paramiko.Message:
    """Return a login request; of the method "publickey", a query for a key (RFC 4252 §5, §7)."""
    message = paramiko.Message()
    message.add_byte(b"\x32")
    for text in ("anybody", service, method):
        message.add_string(text)
    message.add_boolean(False)
    message.add_string("ssh-ed25519")
    message.add_string(b"key")
    return message


def test_a_login_to_another_service_ends_the_connection(served: Served) -> None:
    transport = negotiated(served)
    transport._send_message(login_request("ssh-userauth", "publickey"))
    assert served.ended.wait(60)


def test_answers_that_nobody_asked_for_are_not_counted(served: Served) -> None:
    """paramiko makes a list of as many as the client says there are (RFC 4256 §3.4)."""
    transport = negotiated(served)
    message = paramiko.Message(b"\x3d" + pack_u32(2**32 - 1))
    transport._send_message(message)
    assert served.ended.wait(60)
    assert "an answer to no question" in str(served.client.get_exception())


def test_a_request_after_the_login_is_not_answered(served: Served) -> None:
    """The client would take an answer for a message of the connection protocol (RFC 4252 §5.1)."""
    waiting = Waiting(served, "none")
    served.client.let_in()
    waiting.end()
    sent: list[bytes] = []
    # In place of the method, to see what reaches it.
    served.client.send = sent.append  # type: ignore[method-assign]
    waiting.transport._send_message(login_request("ssh-connection", "publickey"))
    waiting.transport.close()
    assert served.ended.wait(60)
    assert sent == []


def test_a_farewell_is_said_once(served: Served) -> None:
    served.peer.greet()
    assert served.peer.receive()[0] == KEXINIT
    for text in ("first", "second"):
        served.client.disconnect(Farewell(11, text), 60)
    assert served.peer.receive() == (1, pack_u32(11) + pack_string(b"first") + bytes(4))
    # Nothing else is on its way: what was sent has been written when disconnect() returns.
    served.peer.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        served.peer.receive()


def test_nothing_is_said_to_a_peer_that_has_gone(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    monkeypatch.setattr(served.client, "_send_last", sent.append)
    served.peer.sock.shutdown(socket.SHUT_RDWR)
    assert served.ended.wait(60)
    served.client.disconnect(Farewell(11, "too late"), 60)
    assert sent == []


@pytest.mark.parametrize("text", ["x" * 5000, "é" * 5000, "x" + "é" * 5000])
def test_a_long_farewell_is_cut_between_two_characters(served: Served, text: str) -> None:
    served.peer.greet()
    assert served.peer.receive()[0] == KEXINIT
    served.client.disconnect(Farewell(11, text), 60)
    reader = Reader(served.peer.receive()[1])
    assert reader.u32() == 11
    said = reader.string()
    assert text.startswith(said.decode()) and 1999 <= len(said) <= 2000


def test_a_request_about_host_keys_is_refused_if_it_wants_a_reply(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (b"hostkeys-00@openssh.com", b"hostkeys-prove-00@openssh.com", b"keepalive@openssh.com")
    passed: list[bytes] = []
    monkeypatch.setattr(
        served.outbox, "put", lambda message, may_wait: passed.append(message.asbytes())
    )
    for name in names:
        for wants_reply in (0, 1):
            request = bytes([80]) + pack_string(name) + bytes([wants_reply]) + b"more"
            served.client._pass_on_request(Payload(request))
    refused = bytes([80]) + pack_string(b"withheld@dcs-proxy") + b"\x01"
    kept = [bytes([80]) + pack_string(names[2]) + bytes([reply]) + b"more" for reply in (0, 1)]
    assert passed == [refused, refused, *kept]


@pytest.mark.parametrize(
    "body",
    [
        bytes(16) + b"\0\0\0\xffx",
        kexinit(CURVE, KINDS)[:-5],  # no word on a guess
        bytes(16) + pack_string(b"\xff") * 10 + bytes(5),
    ],
)
def test_a_malformed_key_exchange_ends_the_connection(served: Served, body: bytes) -> None:
    served.peer.greet()
    served.peer.send(KEXINIT, body)
    assert served.ended.wait(60)
    assert "a malformed key exchange" in str(served.client.get_exception())


def test_only_the_first_key_exchange_is_left_to_openssh_to_begin(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[bool] = []
    served.peer.greet(b"SSH-2.0-OpenSSH_9.2p1")
    served.peer.send(KEXINIT, kexinit(CURVE, KINDS))
    assert served.peer.receive()[0] == KEXINIT
    monkeypatch.setattr(paramiko.Transport, "_send_kex_init", lambda _: begun.append(True))
    served.client._send_kex_init()
    assert begun == [True]


def test_a_key_that_the_client_asks_about_would_do_but_is_no_login_yet(served: Served) -> None:
    """RFC 4252 §7: boolean FALSE; the answer repeats the algorithm and the key."""
    transport = negotiated(served)
    answers: list[bytes] = []
    transport._handler_table[60] = lambda message: answers.append(message.asbytes())
    transport.auth_handler = paramiko.auth_handler.AuthHandler(transport)
    served.client.let_in()
    transport._send_message(login_request("ssh-connection", "publickey"))
    wait_until(lambda: bool(answers))
    assert answers == [pack_string(b"ssh-ed25519") + pack_string(b"key")]
    assert not served.client.authenticated and not served.client._is_asking


@pytest.mark.parametrize("size", [0, 4, 12, 30])
def test_a_request_that_breaks_off_ends_the_connection(served: Served, size: int) -> None:
    transport = negotiated(served)
    request = login_request("ssh-connection", "publickey").asbytes()[1 : 1 + size]
    transport._send_message(paramiko.Message(b"\x32" + request))
    assert served.ended.wait(60)
    assert "a malformed request" in str(served.client.get_exception())


def test_another_key_exchange_leaves_the_login_as_it_is(served: Served) -> None:
    waiting = Waiting(served, "none")
    served.client.let_in()
    transport = waiting.end()
    login = served.client.auth_handler
    transport.renegotiate_keys()
    # paramiko needs it for every message of the session.
    assert served.client.auth_handler is login


def test_a_client_may_choose_among_all_keys() -> None:
    peer = Peer()
    more = paramiko.ECDSAKey.generate(bits=384)
    client = Client(Stream(peer.fd, peer.fd), [KEY, more], Outbox(), Outbox(), lambda: None)
    assert client.server_key_dict == {KEY.get_name(): KEY, more.get_name(): more}
    peer.close()


class Held:
    """A lock that knows whether it is held."""

    now = False

    def __enter__(self) -> None:
        self.now = True

    def __exit__(self, *_: object) -> None:
        self.now = False


def test_two_threads_never_grant_a_login_or_show_a_line_at_once(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = Held()
    held: list[bool] = []
    monkeypatch.setattr(served.client, "_login_lock", lock)
    monkeypatch.setattr(served.client, "_send_banners", lambda: held.append(lock.now))
    monkeypatch.setattr(served.client, "_answer", lambda: held.append(lock.now))
    served.client.show("a line")
    served.client.ask()
    served.client.let_in()
    assert held == [True] * 4


def test_a_login_name_may_have_any_bytes(served: Served) -> None:
    transport = negotiated(served)
    served.client.let_in()
    names = pack_string(b"\xff\xfe") + pack_string(b"ssh-connection") + pack_string(b"none")
    transport._send_message(paramiko.Message(b"\x32" + names))
    wait_until(lambda: served.client.is_authenticated())


def test_a_line_that_is_shown_has_no_control_characters_and_an_end(served: Served) -> None:
    sent: list[bytes] = []
    # In place of the method, to see what reaches it.
    served.client.send = sent.append  # type: ignore[method-assign]
    served.client.ask()
    served.client.show("a\x1b]0;title\x07b\nc" + "d" * 9000)
    (message,) = sent
    text = Reader(message[1:]).string()
    assert text.endswith(b"\r\n") and len(text) < 9000
    assert text[:-2].decode().isprintable()
