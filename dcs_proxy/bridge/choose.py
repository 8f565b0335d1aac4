"""Choose how to connect a client, from its descriptors and the first line that it sends.

Every client sends its version line without waiting for ours, so we can read it before we send
anything.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import time
from enum import Enum, auto

from dcs_proxy.errors import UsageError
from dcs_proxy.fastpath.helper import has_spoken, is_fdpass

_LINE_S = 10.0
_MAX_LINE = 4096
# How the version line of every OpenSSH begins.
OPENSSH = "SSH-2.0-OpenSSH"


class Way(Enum):
    """How a client is connected to the gateway."""

    HANDOVER = auto()
    RELAY = auto()
    BRIDGE = auto()


def choose_way(login: str | None, stdin: int = 0, stdout: int = 1) -> tuple[Way, bytes]:
    """Return the way, and the bytes that were read from stdin to choose it.

    `login` is the login name from the client's config, None if the config passes none.
    """
    if is_fdpass(stdin, stdout) and not has_spoken(stdin):
        return Way.HANDOVER, b""
    if login is None:
        return Way.BRIDGE, b""
    # Only OpenSSH can use a session's certificate: no other client binds the agent to the host that
    # it logs in to.  OpenSSH has also read the session's login and host authority from our block.
    first = read_line(stdin)
    return (Way.RELAY if is_openssh_line(first) else Way.BRIDGE), first


def is_openssh_line(first: bytes) -> bool:
    """Return whether the first bytes from a client are the version line of an OpenSSH."""
    return first.startswith(OPENSSH.encode())


def check_descriptors(host: str = "HOST", stdin: int = 0, stdout: int = 1) -> None:
    """Raise UsageError unless stdin and stdout can lead to an SSH client of this user.

    `host` is the machine's name for the hint.
    """
    for fd in (stdin, stdout):
        if not _is_open(fd) or os.isatty(fd):
            raise UsageError(
                "this command is for SSH clients, which run it as their ProxyCommand",
                hint=f"to log in, type: ssh {host}",
            )
        if stat.S_ISSOCK(os.fstat(fd).st_mode) and _family(fd) != socket.AF_UNIX:
            raise UsageError(
                "stdin or stdout is a network connection, so a program on another computer could"
                " log in",
                hint="let an SSH client run dcs-proxy as its ProxyCommand",
            )


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _family(fd: int) -> int:
    with socket.socket(fileno=os.dup(fd)) as sock:
        return sock.family


def read_line(stdin: int = 0) -> bytes:
    """Return the client's first line, and anything read with it, or what arrived in time."""
    end = time.monotonic() + _LINE_S
    poll = select.poll()
    poll.register(stdin, select.POLLIN)
    data = b""
    while b"\n" not in data and len(data) < _MAX_LINE and (left := end - time.monotonic()) > 0:
        if not poll.poll(left * 1000) or not (part := os.read(stdin, _MAX_LINE - len(data))):
            break
        data += part
    return data
