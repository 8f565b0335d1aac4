"""The client behind stdin and stdout: whether it is still there, and how it gets the socket.

Under ProxyUseFdpass ssh connects one end of a socketpair to our stdin and stdout and waits to
receive a connected socket over it.  Every other client gives us two different ends, and needs a
relay (fastpath/relay.py) or the bridge.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys

from dcs_proxy.errors import ClientGone
from dcs_proxy.fastpath import helper


def client_gone(stdout: int = 1) -> bool:
    """Return, without waiting, whether the program that runs us has closed its end of stdout.

    Always false for a terminal or a file.  stdin does not tell: a client may close it early.
    """
    if sys.platform != "linux" and hasattr(select, "kqueue"):
        # On macOS poll reports a hang-up only where it waits for data.
        with contextlib.closing(select.kqueue()) as queue:
            wanted = select.kevent(stdout, select.KQ_FILTER_WRITE, select.KQ_EV_ADD)
            try:
                events = queue.control([wanted], 1, 0)
            except OSError:
                return False  # kqueue(2) does not watch every kind of file
        return any(event.flags & select.KQ_EV_EOF for event in events)
    poll = select.poll()
    poll.register(stdout, 0)
    return bool(poll.poll(0))


def hand_over(sock: socket.socket, fd: int = 1) -> None:
    """Pass a connected socket to ssh over the socket `fd`.  Raises ClientGone."""
    try:
        helper.hand_over(sock, fd)
    except OSError:
        raise ClientGone("ssh exited before it got its connection") from None
