from __future__ import annotations

import threading
from typing import Any, cast

import paramiko
import pytest

from dcs_proxy.bridge.outbox import Outbox
from dcs_proxy.bridge.packets import Payload
from tests.support.waiting import wait_until


class FakeSide:
    """What an outbox asks of a connection; `sent` is what it was given to send."""

    def __init__(self) -> None:
        self.clear_to_send = threading.Event()
        self.clear_to_send.set()
        self.clear_to_send_lock = threading.Lock()
        self.packetizer = self
        self.sent: list[bytes] = []
        self.is_broken = False

    def send_message(self, message: Any) -> None:
        if self.is_broken:
            raise EOFError
        self.sent.append(message.asbytes())

    def as_transport(self) -> paramiko.Transport:
        return cast(paramiko.Transport, self)


@pytest.fixture
def side() -> FakeSide:
    return FakeSide()


@pytest.fixture
def outbox(side: FakeSide) -> Outbox:
    made = Outbox()
    made.open(side.as_transport())
    return made


def test_messages_are_held_until_there_is_a_side_and_keep_their_order(side: FakeSide) -> None:
    outbox = Outbox()
    outbox.put(Payload(b"1"), may_wait=True)
    outbox.put(Payload(b"2"), may_wait=False)
    outbox.open(side.as_transport())
    outbox.put(Payload(b"3"), may_wait=True)
    outbox.flush()  # after the next key exchange
    assert side.sent == [b"1", b"2", b"3"]


def test_messages_are_held_during_a_key_exchange(side: FakeSide, outbox: Outbox) -> None:
    side.clear_to_send.clear()
    outbox.put(Payload(b"1"), may_wait=True)
    outbox.put(Payload(b"2"), may_wait=True)
    outbox.flush()
    assert side.sent == []
    side.clear_to_send.set()
    # One that comes before the rest was sent must not overtake it.
    outbox.put(Payload(b"3"), may_wait=True)
    outbox.flush()
    outbox.put(Payload(b"4"), may_wait=True)
    assert side.sent == [b"1", b"2", b"3", b"4"]


def fill(outbox: Outbox) -> int:
    """Put messages of 64 KiB until the next would wait; return how many."""
    count = 0
    while outbox._size < 2 * 1024 * 1024:
        outbox.put(Payload(bytes(65536)), may_wait=True)
        count += 1
    return count


def put_last(outbox: Outbox) -> None:
    outbox.put(Payload(b"last"), may_wait=True)


def test_a_thread_waits_for_room_only_where_it_may(side: FakeSide, outbox: Outbox) -> None:
    side.clear_to_send.clear()
    count = fill(outbox)
    outbox.put(Payload(b"in an exchange of its own"), may_wait=False)
    thread = threading.Thread(
        target=outbox.put, args=(Payload(b"last"),), kwargs={"may_wait": True}
    )
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    side.clear_to_send.set()
    outbox.flush()
    thread.join(60)
    assert not thread.is_alive()
    assert len(side.sent) == count + 2
    assert side.sent[-2:] == [b"in an exchange of its own", b"last"]


def test_a_thread_that_waits_is_let_go_when_all_ends(side: FakeSide, outbox: Outbox) -> None:
    side.clear_to_send.clear()
    fill(outbox)
    thread = threading.Thread(
        target=outbox.put, args=(Payload(b"last"),), kwargs={"may_wait": True}
    )
    thread.start()
    outbox.close(FakeSide().as_transport())
    thread.join(0.2)
    assert thread.is_alive(), "another side's end is not this one's"
    outbox.close(side.as_transport())
    thread.join(60)
    assert not thread.is_alive() and side.sent == []


@pytest.mark.parametrize("size", [0, 1000, 65536])
def test_a_peer_that_ignores_a_key_exchange_is_not_served(
    side: FakeSide, outbox: Outbox, size: int
) -> None:
    side.clear_to_send.clear()
    with pytest.raises(paramiko.SSHException, match="too many messages during a key exchange"):
        for _ in range(1_000_000):
            outbox.put(Payload(bytes(size)), may_wait=False)
    assert outbox._size < 17 * 1024 * 1024


def test_a_side_that_has_gone_takes_messages_and_loses_them(side: FakeSide, outbox: Outbox) -> None:
    # Its own thread finds out; the other one must not end in its place.
    side.is_broken = True
    outbox.put(Payload(b"1"), may_wait=True)
    outbox.put(Payload(b"2"), may_wait=True)
    assert side.sent == []


def test_one_can_wait_until_all_is_sent(side: FakeSide, outbox: Outbox) -> None:
    outbox.wait_until_empty(60)
    side.clear_to_send.clear()
    outbox.put(Payload(b"1"), may_wait=True)
    outbox.wait_until_empty(0.01)
    assert side.sent == []
    thread = threading.Thread(target=outbox.wait_until_empty, args=(60,))
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    side.clear_to_send.set()
    outbox.flush()
    thread.join(60)
    assert not thread.is_alive() and side.sent == [b"1"]
    wait_until(lambda: not thread.is_alive())


def test_what_was_sent_makes_room_again(side: FakeSide, outbox: Outbox) -> None:
    """A hundred key exchanges with a megabyte each are more than may be held at once."""
    for _ in range(100):
        side.clear_to_send.clear()
        for _ in range(16):
            outbox.put(Payload(bytes(65536)), may_wait=False)
        side.clear_to_send.set()
        outbox.flush()
    assert len(side.sent) == 1600 and outbox._size == 0


@pytest.mark.parametrize("error", [EOFError(), BrokenPipeError(), TimeoutError()])
def test_a_broken_side_gets_nothing_more(
    side: FakeSide, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(message: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(side, "send_message", fail)
        outbox.put(Payload(b"1"), may_wait=True)
    outbox.put(Payload(b"2"), may_wait=True)
    assert side.sent == []


def test_nobody_waits_for_a_thread_that_sends_to_a_peer_that_reads_nothing(outbox: Outbox) -> None:
    with outbox._changed:
        waiting = threading.Thread(target=outbox.wait_until_empty, args=(0.01,))
        waiting.start()
        waiting.join(60)
        assert not waiting.is_alive()
    outbox.wait_until_empty(60)
    assert outbox._changed.acquire(blocking=False), "the lock is free again"
    outbox._changed.release()
