"""Packets against paramiko's own at the other end."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import paramiko
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from paramiko.packet import NeedRekeyException, Packetizer

from dcs_proxy.bridge.packets import Packet, Packets, Payload, _make_packet
from dcs_proxy.bridge.stream import Stream

KEY, NONCE = bytes(range(16)), bytes(range(12))
DATA = 94


@dataclass
class Pair:
    """Our packets, paramiko's at the other end, and that end's socket."""

    ours: Packets
    theirs: Packetizer
    sock: socket.socket

    def use_gcm(self, nonce: bytes = NONCE) -> None:
        for end in (self.ours, self.theirs):
            common: dict[str, Any] = {
                "block_engine": AESGCM(KEY), "block_size": 16, "mac_engine": None, "mac_size": 16,
                "mac_key": None, "aead": True,
            }  # fmt: skip
            end.set_inbound_cipher(**common, iv_in=nonce)
            end.set_outbound_cipher(**common, iv_out=nonce)

    def use_ctr(self) -> None:
        for end in (self.ours, self.theirs):
            common: dict[str, Any] = {
                "block_size": 16, "mac_engine": hashlib.sha256, "mac_size": 32,
                "mac_key": bytes(32), "aead": False,
            }  # fmt: skip
            cipher = Cipher(algorithms.AES(KEY), modes.CTR(bytes(16)))
            end.set_inbound_cipher(**common, block_engine=cipher.decryptor(), iv_in=None)
            end.set_outbound_cipher(
                **common, block_engine=cipher.encryptor(), sdctr=True, iv_out=None
            )


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = socket.socketpair()
    with near, far:
        far.settimeout(60)
        theirs = Packetizer(far)
        theirs.set_log(paramiko.util.get_logger("paramiko.test"))
        ours = Packets(Stream(near.fileno(), near.fileno()))
        ours.set_log(paramiko.util.get_logger("paramiko.test"))
        yield Pair(ours, theirs, far)


def message(number: int, size: int) -> Payload:
    return Payload(bytes([number]) + os.urandom(size))


def exchange(pair: Pair, number: int, size: int) -> None:
    """Send a message each way; it must arrive as it was."""
    sent = message(number, size)
    pair.ours.send_message(sent)
    # The stubs know no message but paramiko's own.
    got, body = pair.theirs.read_message()
    assert bytes([got]) + body.asbytes() == sent.asbytes()
    # The stubs know no message but paramiko's own.
    pair.theirs.send_message(sent)  # type: ignore[arg-type]
    got, body = pair.ours.read_message()
    assert got == number
    data = body.asbytes() if number >= 80 else bytes([got]) + body.asbytes()
    assert data == sent.asbytes()


@pytest.mark.parametrize("cipher", ["none", "gcm", "ctr"])
def test_messages_of_every_size_go_both_ways(pair: Pair, cipher: str) -> None:
    {"none": lambda: None, "gcm": pair.use_gcm, "ctr": pair.use_ctr}[cipher]()
    for size in [*range(40), 32768]:
        for number in (DATA, 80, 79, 7):
            exchange(pair, number, size)


def test_a_packet_is_passed_on_as_it_came(pair: Pair) -> None:
    pair.use_gcm()
    for size in (0, 9, 32768):
        sent = message(DATA, size)
        # The stubs know no message but paramiko's own.
        pair.theirs.send_message(sent)  # type: ignore[arg-type]
        _, came = pair.ours.read_message()
        assert isinstance(came, Packet)
        pair.ours.send_message(came)
        number, body = pair.theirs.read_message()
        assert bytes([number]) + body.asbytes() == sent.asbytes()


def test_packets_of_which_only_a_part_can_be_written_arrive_complete(pair: Pair) -> None:
    # The client may have made the descriptor non-blocking.
    near = pair.ours._stream._sink
    os.set_blocking(near, False)
    pair.use_gcm()
    messages = [message(DATA, 30_000) for _ in range(40)]
    sender = threading.Thread(target=lambda: [pair.ours.send_message(each) for each in messages])
    sender.start()
    for sent in messages:
        number, body = pair.theirs.read_message()
        assert bytes([number]) + body.asbytes() == sent.asbytes()
    sender.join()


def test_a_packet_of_which_a_few_bytes_are_written_at_a_time_arrives_complete(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.use_gcm()
    write = pair.ours._stream.write
    monkeypatch.setattr(pair.ours._stream, "write", lambda *parts: write(b"".join(parts)[:3]))
    for size in (0, 100):
        exchange(pair, DATA, size)


@pytest.mark.parametrize("first", [1, 4, 10, 40])
def test_a_packet_that_comes_in_two_pieces_is_put_together(pair: Pair, first: int) -> None:
    pair.use_gcm()
    data = encrypted(bytes([4, DATA]) + b"m" * 26 + bytes(4))
    pair.sock.sendall(data[:first])
    assert pair.ours._stream.recv(0) == b"" and pair.ours._stream.ready == first
    pair.sock.sendall(data[first:])
    number, came = pair.ours.read_message()
    assert (number, came.asbytes()) == (DATA, bytes([DATA]) + b"m" * 26)


def test_what_is_taken_is_not_returned_and_keys_are_renewed_in_between(pair: Pair) -> None:
    pair.use_gcm()
    taken: list[int] = []

    def take(number: int, received: Any) -> bool:
        taken.append(number)
        if len(taken) == 3:
            pair.ours._trigger_rekey()  # type: ignore[attr-defined]  # not in the stubs
        return number != 95

    pair.ours.take = take
    for number in (94, 93, 94, 94, 95, 20):
        # The stubs know no message but paramiko's own.
        pair.theirs.send_message(message(number, 9))  # type: ignore[arg-type]
    with pytest.raises(NeedRekeyException):
        pair.ours.read_message()
    assert taken == [94, 93, 94]
    with pytest.raises(NeedRekeyException):
        pair.ours.read_message()
    assert [pair.ours.read_message()[0] for _ in range(2)] == [95, 20]
    assert taken == [94, 93, 94, 94, 95], "paramiko deals with a key exchange itself"


def test_packets_are_counted_on_when_the_cipher_changes(pair: Pair) -> None:
    # A MAC covers the number of the packet since the beginning (RFC 4253 §6.4).
    for use in (pair.use_gcm, pair.use_ctr, pair.use_gcm, pair.use_ctr):
        use()
        for size in range(5):
            exchange(pair, DATA, size)


def test_a_message_knows_its_number_for_those_that_are_not_implemented(pair: Pair) -> None:
    pair.use_gcm()
    for sequence in range(3):
        # The stubs know no message but paramiko's own.
        pair.theirs.send_message(message(7, 4))  # type: ignore[arg-type]
        assert pair.ours.read_message()[1].seqno == sequence


def test_numbers_from_before_they_begin_at_zero_again_are_forgotten(pair: Pair) -> None:
    pair.ours.send_message(Payload(b"\x5e", 7))
    assert pair.ours.sent.origin(0) == 7
    pair.ours.reset_seqno_out()
    assert pair.ours.sent.origin(0) is None
    pair.ours.send_message(Payload(b"\x5e", 9))
    assert pair.ours.sent.origin(0) == 9


def test_new_keys_are_asked_for_after_so_many_bytes(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Packets, "REKEY_BYTES", 1000)
    pair.use_gcm()
    pair.ours.send_message(message(DATA, 900))
    assert not pair.ours.need_rekey()
    pair.ours.send_message(message(DATA, 100))
    assert pair.ours.need_rekey()
    pair.use_gcm()
    assert not pair.ours.need_rekey()
    # The stubs know no message but paramiko's own.
    pair.theirs.send_message(message(DATA, 1000))  # type: ignore[arg-type]
    pair.ours.read_message()
    assert pair.ours.need_rekey()


def test_new_keys_are_asked_for_after_so_many_packets(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Packets, "REKEY_PACKETS", 3)
    pair.use_gcm()
    asked = []
    for _ in range(3):
        pair.ours.send_message(message(DATA, 1))
        asked.append(pair.ours.need_rekey())
    assert asked == [False, False, True]
    pair.use_gcm()
    asked.clear()
    for _ in range(3):
        # The stubs know no message but paramiko's own.
        pair.theirs.send_message(message(DATA, 1))  # type: ignore[arg-type]
        pair.ours.read_message()
        asked.append(pair.ours.need_rekey())
    assert asked == [False, False, True]


def test_a_peer_that_never_renews_its_keys_is_not_served(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Packets, "REKEY_BYTES", 1000)
    monkeypatch.setattr(Packets, "REKEY_BYTES_OVERFLOW_MAX", 5000)
    pair.use_gcm()
    with pytest.raises(paramiko.SSHException, match="does not renew its keys"):
        for _ in range(8):
            # The stubs know no message but paramiko's own.
            pair.theirs.send_message(message(DATA, 900))  # type: ignore[arg-type]
            pair.ours.read_message()


def encrypted(packet: bytes, nonce: bytes = NONCE) -> bytes:
    length = len(packet).to_bytes(4, "big")
    return length + AESGCM(KEY).encrypt(nonce, packet, length)


def test_the_counter_in_the_nonce_starts_again_at_zero(pair: Pair) -> None:
    # paramiko's own cannot, so the packets are made here.
    pair.use_gcm(b"abcd" + b"\xff" * 8)
    pair.sock.sendall(encrypted(bytes([4, DATA]) + bytes(14), b"abcd" + b"\xff" * 8))
    pair.sock.sendall(encrypted(bytes([4, DATA]) + bytes(14), b"abcd" + bytes(8)))
    assert [pair.ours.read_message()[0] for _ in range(2)] == [DATA, DATA]


@pytest.mark.parametrize(
    "packet",
    [
        bytes([4, DATA]) + bytes(13),  # not a multiple of 16
        bytes([255, DATA]) + bytes(14),  # more padding than packet
        bytes([15, DATA]) + bytes(14),  # no message
        bytes([3, DATA]) + bytes(14),  # RFC 4253 §6: at least four bytes of padding
        b"",
    ],
)
def test_a_malformed_packet_is_refused(pair: Pair, packet: bytes) -> None:
    pair.use_gcm()
    pair.sock.sendall(encrypted(packet))
    with pytest.raises(paramiko.SSHException, match="malformed"):
        pair.ours.read_message()


def test_an_empty_message_before_there_are_keys_is_refused(pair: Pair) -> None:
    pair.sock.sendall((12).to_bytes(4, "big") + bytes([11]) + bytes(11))
    with pytest.raises(paramiko.SSHException, match="malformed"):
        pair.ours.read_message()


def test_a_forged_packet_is_refused(pair: Pair) -> None:
    pair.use_gcm()
    pair.sock.sendall(encrypted(bytes([4, DATA]) + bytes(14))[:-1] + b"?")
    with pytest.raises(InvalidTag):
        pair.ours.read_message()


@pytest.mark.parametrize("use_gcm", [False, True])
def test_a_packet_of_any_size_is_not_waited_for(pair: Pair, use_gcm: bool) -> None:
    if use_gcm:
        pair.use_gcm()
    pair.sock.sendall(b"\x7f\xff\xff\xf4" + bytes(12))
    with pytest.raises(paramiko.SSHException, match="a packet of"):
        pair.ours.read_message()


def test_packets_are_shorter_until_the_first_keys_are_in_use(pair: Pair) -> None:
    """A number of 250 KB in a key exchange takes seconds, before anything is proved."""
    for is_done, limit in ((False, 64 * 1024), (True, 300_000)):
        pair.ours._initial_kex_done = is_done
        sender = threading.Thread(target=pair.sock.sendall, args=[bytes(limit)])
        sender.start()
        assert pair.ours.read_all(limit) == bytes(limit)
        sender.join()
        with pytest.raises(paramiko.SSHException, match=f"a packet of {limit + 1} bytes"):
            pair.ours.read_all(limit + 1)


def test_a_greeting_is_read_by_the_line(pair: Pair) -> None:
    pair.sock.sendall(b"hello\r\nSSH-2.0-x\r\n")
    assert [pair.ours.readline(60), pair.ours.readline(60)] == ["hello", "SSH-2.0-x"]
    exchange(pair, DATA, 5)


def test_a_greeting_may_come_slowly_until_the_connection_is_closed(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([None, b"S", None, None, b"S", b"\n", None])

    def receive(size: int) -> bytes:
        assert size == 1
        if (answer := next(answers)) is None:
            raise TimeoutError
        return answer

    monkeypatch.setattr(pair.ours._stream, "recv", receive)
    assert pair.ours.readline(60) == "SS"
    pair.ours.close()
    with pytest.raises(TimeoutError):
        pair.ours.readline(60)


def test_a_greeting_that_breaks_off_is_the_end(pair: Pair) -> None:
    pair.sock.sendall(b"SSH-2")
    pair.sock.shutdown(socket.SHUT_WR)
    with pytest.raises(EOFError):
        pair.ours.readline(60)


def test_a_greeting_that_does_not_come_is_given_up(pair: Pair) -> None:
    with pytest.raises(TimeoutError):
        pair.ours.readline(0)


@pytest.mark.parametrize("size", [1, 10, 11, 12, 26, 27, 28, 1000])
def test_the_padding_is_random_and_as_long_as_the_cipher_needs(size: int) -> None:
    """RFC 4253 §6: at least four bytes, and a length byte counts them; RFC 5647 §7.2."""
    message = os.urandom(size)
    one, two = _make_packet(message), _make_packet(message)
    assert one[1 : 1 + size] == message and one[0] == len(one) - 1 - size >= 4
    assert len(one) % 16 == 0 and len(one) <= size + 1 + 4 + 16
    assert one != two
