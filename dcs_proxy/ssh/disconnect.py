"""Report a failure through ssh, as the reason of an SSH disconnect message.

ssh prints that reason, and so do the programs that run it.  Under ControlPersist, ssh discards
the stderr of its ProxyCommand, so this is the only way to the user.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time

from dcs_proxy.errors import ClientGone
from dcs_proxy.ssh.handover import hand_over
from dcs_proxy.text import safe_line

# How long a failed connection stays open for ssh to read the reason.
_DRAIN_S = 10
# RFC 4253 §11.1 and §12.
_MSG_DISCONNECT = 1
_BY_APPLICATION = 11
_MAX_DESCRIPTION = 2000


def disconnect_bytes(message: str) -> bytes:
    """Return a version line and one unencrypted SSH_MSG_DISCONNECT (RFC 4253 §4.2, §6, §11.1).

    byte 1, uint32 reason, string description (UTF-8), string language tag.  `message` is made one
    safe line (text.py).
    """
    description = (
        safe_line(message)
        .encode(errors="replace")[:_MAX_DESCRIPTION]
        .decode(errors="ignore")
        .encode()
    )
    payload = struct.pack(">BII", _MSG_DISCONNECT, _BY_APPLICATION, len(description))
    payload += description + struct.pack(">I", 0)
    # The packet, with its length field, is a multiple of 8 bytes; at least 4 of them are padding.
    padding = 8 - (4 + 1 + len(payload)) % 8
    padding += 8 if padding < 4 else 0
    packet = struct.pack(">IB", 1 + len(payload) + padding, padding) + payload + bytes(padding)
    return b"SSH-2.0-dcs_proxy\r\n" + packet


def send_disconnect(message: str, *, fdpass: bool, stdin: int = 0, stdout: int = 1) -> None:
    """Make ssh print `message` as the reason why the connection ended.

    ssh writes its own version line before it reads ours.  If our end were closed by then, it
    would fail with a broken pipe instead, so our end stays open until ssh has closed its own.
    Never raises: if ssh cannot be reached, the message cannot be delivered at all.
    """
    data = disconnect_bytes(message)
    try:
        if not fdpass:
            os.write(stdout, data)
            _drain(stdin)
            return
        ours, theirs = socket.socketpair()
        ours.sendall(data)
        _drain_in_background(ours, theirs)
        hand_over(theirs, stdout)
    except (OSError, ClientGone):
        pass


def _drain(fd: int) -> None:
    """Read and discard what ssh sends until it closes its end, for _DRAIN_S at most."""
    end = time.monotonic() + _DRAIN_S
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while (left := end - time.monotonic()) > 0 and poll.poll(left * 1000):
        if not os.read(fd, 65536):
            return


def _drain_in_background(ours: socket.socket, theirs: socket.socket) -> None:
    """Keep `ours` open and drained in another process, because ssh waits for this one to exit."""
    if (child := os.fork()) != 0:
        os.waitpid(child, 0)
        ours.close()
        return
    # The child forks again and exits, so that init reaps the process that drains.  Whatever
    # happens, it must not return into the parent's code.
    try:
        os.setsid()
        if os.fork() == 0:
            theirs.close()
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            os.closerange(3, ours.fileno())
            os.closerange(ours.fileno() + 1, 256)
            _drain(ours.fileno())
    finally:
        os._exit(0)
