from __future__ import annotations

import os
import socket

from dcs_proxy.ssh.handover import client_gone, hand_over, is_fdpass


def test_one_socket_on_both_descriptors_is_fdpass() -> None:
    ours, theirs = socket.socketpair()
    ends = os.pipe()
    with ours, theirs:
        again = os.dup(theirs.fileno())
        assert is_fdpass(theirs.fileno(), again)
        assert not is_fdpass(ours.fileno(), theirs.fileno())
        assert not is_fdpass(*ends)
        assert not is_fdpass(ends[0], ends[0])
        os.close(again)
    for fd in ends:
        os.close(fd)


def test_a_socket_is_handed_over_with_one_byte() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as gateway:
        hand_over(gateway, theirs.fileno())
        data, fds, _, _ = socket.recv_fds(ours, 10, 2)
        assert data == b"\0" and len(fds) == 1
        with socket.socket(fileno=fds[0]) as passed:
            assert passed.getsockname() == gateway.getsockname()


def test_a_client_that_closed_its_end_is_noticed() -> None:
    reader, writer = os.pipe()
    assert not client_gone(writer)
    os.close(reader)
    assert client_gone(writer)
    os.close(writer)
