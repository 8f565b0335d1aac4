"""What ssh gave us as stdin and stdout, and how a connected socket gets to it.

Under ProxyUseFdpass ssh connects one end of a socketpair to our stdin and stdout and waits to
receive a connected socket over it.  Every other client gives us two different ends, and needs a
relay (fastpath/relay.py).
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import stat
import sys
from typing import NoReturn

import dcs_proxy
from dcs_proxy.errors import ClientGone
from dcs_proxy.fastpath.helper import await_received


def is_fdpass(stdin: int = 0, stdout: int = 1) -> bool:
    """Return whether both descriptors are the same socket, as under ProxyUseFdpass."""
    first, second = os.fstat(stdin), os.fstat(stdout)
    is_same = (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
    return is_same and stat.S_ISSOCK(first.st_mode)


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
    """Pass a connected socket to ssh over the socket `fd`, as mm_receive_fd of OpenSSH expects it.

    One zero byte with the descriptor as SCM_RIGHTS (monitor_fdpass.c).  Raises ClientGone.
    """
    with socket.socket(fileno=os.dup(fd)) as channel:
        descriptors = array.array("i", [sock.fileno()])
        try:
            channel.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        except OSError:
            raise ClientGone("ssh exited before it got its connection") from None
        await_received(channel)


def become_relay(sock: socket.socket, host: str, home: str) -> NoReturn:
    """Replace this program by the relay between stdin, stdout and `sock`.

    The relay gets an empty environment, because ours may hold the API key.  `host` and the state
    directory `home` only serve to identify it in a list of processes.
    """
    sock.set_inheritable(True)
    start = os.path.join(os.path.dirname(dcs_proxy.__file__), "start.py")
    words = [sys.executable, "-I", "-S", start, "relay", str(sock.fileno()), host, home]
    os.execve(sys.executable, words, {})
