from __future__ import annotations

import os
import select
import socket
import sys
import threading
from dataclasses import dataclass
from typing import ClassVar

import pytest

from dcs_proxy.errors import ClientGone
from dcs_proxy.fastpath import helper
from dcs_proxy.ssh.handover import client_gone, hand_over


def test_a_socket_is_handed_over_with_one_byte() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as gateway:
        hand_over(gateway, theirs.fileno())
        data, fds, _, _ = socket.recv_fds(ours, 10, 2)
        assert data == b"\0" and len(fds) == 1
        with socket.socket(fileno=fds[0]) as passed:
            assert passed.getsockname() == gateway.getsockname()


def test_an_ssh_that_has_exited_gets_no_socket() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs, socket.create_server(("127.0.0.1", 0)) as gateway:
        with pytest.raises(ClientGone, match="ssh exited before it got its connection"):
            hand_over(gateway, theirs.fileno())
        assert gateway.fileno() != -1 and theirs.fileno() != -1, "both are the caller's"


def test_a_client_that_closed_its_end_is_noticed() -> None:
    reader, writer = os.pipe()
    assert not client_gone(writer)
    os.close(reader)
    assert client_gone(writer)
    os.close(writer)


@dataclass(frozen=True)
class Event:
    """A struct kevent."""

    ident: int
    filter: int
    flags: int


class Queue:
    """A kqueue that has `answer` for whoever asks."""

    answer: ClassVar[list[Event] | OSError] = []

    def control(self, wanted: list[Event], count: int, timeout: int) -> list[Event]:
        assert (count, timeout) == (1, 0) and wanted[0].filter == -2
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("answer", "gone"),
    [([], False), ([Event(1, -2, 0)], False), ([Event(1, -2, 0x8000)], True), (OSError(), False)],
)
def test_where_poll_tells_nothing_kqueue_is_asked(
    answer: list[Event] | OSError, gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(Queue, "answer", answer)
    names = {"kqueue": Queue, "kevent": Event, "KQ_FILTER_WRITE": -2, "KQ_EV_ADD": 1,
             "KQ_EV_EOF": 0x8000}  # fmt: skip
    for name, value in names.items():
        monkeypatch.setattr(select, name, value, raising=False)
    assert client_gone() is gone


def test_a_descriptor_in_flight_is_waited_for_where_it_could_be_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    ours, theirs = socket.socketpair()
    with ours, socket.create_server(("127.0.0.1", 0)) as gateway, theirs:
        sender = threading.Thread(target=hand_over, args=(gateway, theirs.fileno()))
        sender.start()
        _, fds, _, _ = socket.recv_fds(ours, 10, 2)
        assert sender.is_alive()
        ours.close()
        sender.join(10)
        assert not sender.is_alive()
        os.close(fds[0])


def test_one_that_nobody_takes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(helper, "_RECEIVE_S", 0.05)
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as gateway:
        hand_over(gateway, theirs.fileno())
