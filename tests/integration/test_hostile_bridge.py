"""Gateways and clients that break the protocol which the bridge speaks with both."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dcs_proxy.ssh.wire import pack_string, pack_u32
from tests.support.bridge import bridges_of, wait_until_gone, write_config
from tests.support.emulator import Emulator
from tests.support.rogues import FAILURE, SUCCESS, RogueGateway, RogueServer, rogue_gateway
from tests.support.user import User
from tests.support.waiting import LIMIT_S, wait_until, wait_until_stuck

Start = Callable[..., Emulator]
DATA = b"\x5e" + pack_u32(0) + pack_u32(30_000) + bytes(30_000)


@pytest.fixture
def gateway(start_emulator: Start, user: User, tmp_path: Path) -> Iterator[RogueGateway]:
    """A rogue gateway, and a user whose ssh to dm-foo reaches it through the bridge."""
    with rogue_gateway(tmp_path) as made:
        write_config(user, start_emulator("--machine", "dm-foo", *made.arguments))
        yield made


def test_a_gateway_that_changes_its_answer_and_floods_is_left(
    gateway: RogueGateway, user: User
) -> None:
    """The thread that reads from it waited for a client that was never let in."""
    gateway.answers = [SUCCESS, FAILURE, *[DATA] * 200]
    done = user.ssh("dm-foo", "true")
    assert done.returncode == 255
    assert "internal error" not in done.stderr
    wait_until_gone(user)


def test_a_bridge_ends_with_its_client_although_the_gateway_reads_nothing(
    gateway: RogueGateway, user: User
) -> None:
    with open("/dev/zero", "rb") as zeros:
        ssh = user.start_ssh("dm-foo", "cat", stdin=zeros)
        server = wait_until(lambda: gateway.served and gateway.served[0])
        wait_until(lambda: server.logins and server.heard)
        # The session is opened and its command accepted, with a window that never ends.
        server.say(b"\x5b" + pack_u32(0) * 2 + pack_u32(2**31) + pack_u32(32768))
        server.say(b"\x63" + pack_u32(0))
        wait_until(lambda: any(message[0] == 94 for message in server.heard))
        server.reads.clear()
        wait_until_stuck(lambda: read_bytes(ssh))
    # It sends no SIGHUP then.
    os.kill(ssh.pid, signal.SIGKILL)
    wait_until_gone(user)


def read_bytes(program: subprocess.Popen[bytes]) -> int:
    """Return how much a program has read."""
    return int(Path(f"/proc/{program.pid}/io").read_text().split()[1])


def reset(sock: socket.socket) -> None:
    """Close a connection that has said nothing, so that the other end gets an error."""
    time.sleep(0.2)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize(
    "options", [(), ("-o", "ProxyUseFdpass=no"), None], ids=["handover", "relay", "bridge"]
)
def test_a_gateway_that_resets_the_connection_is_no_internal_error(
    gateway: RogueGateway, user: User, options: tuple[str, ...] | None
) -> None:
    gateway.serve = reset
    if options is not None:
        assert user.proxy("config-ssh", "--ssh-config", str(user.config)).returncode == 0
        options = (*options, "-o", "ConnectTimeout=300")
    done = user.ssh(*(options or ()), "dm-foo", "true")
    assert done.returncode == 255
    assert "internal error" not in done.stderr
    assert "reset" in done.stderr or "clos" in done.stderr
    assert not bridges_of(user)


# What a gateway may ask the client to open, though the client has not asked for it (RFC 4254 §5.1,
# §6.3.2, §7.2; OpenSSH's PROTOCOL).
_PEER = pack_string(b"localhost") + pack_u32(22)
UNASKED = {
    b"auth-agent@openssh.com": b"",
    b"x11": _PEER,
    b"forwarded-tcpip": _PEER + _PEER,
    b"forwarded-streamlocal@openssh.com": pack_string(b"/tmp/socket") + pack_string(b""),
    b"direct-tcpip": _PEER + _PEER,
    b"session": b"",
}


def test_the_client_refuses_what_a_gateway_opens_unasked(gateway: RogueGateway, user: User) -> None:
    """The bridge decides nothing: it does not know what the client has asked for."""
    user.start_agent()
    ssh = user.start_ssh("dm-foo", "true")
    server = wait_until(lambda: gateway.served and gateway.served[0])
    wait_until(lambda: server.heard)
    for number, (kind, more) in enumerate(UNASKED.items()):
        channel = pack_u32(number) + pack_u32(2**20) + pack_u32(2**15)
        server.say(b"\x5a" + pack_string(kind) + channel + more)
    refused = [b"\x5c" + pack_u32(number) for number in range(len(UNASKED))]
    wait_until(lambda: [m[:5] for m in server.heard if m[0] in (91, 92)] == refused)
    server.close()
    ssh.wait(LIMIT_S)


def test_a_gateways_last_words_are_shown_in_one_clean_line(
    gateway: RogueGateway, user: User
) -> None:
    words = "\x1b[31mred \u202e\x00 and\r\nanother line" + " without end" * 5000
    gateway.play = lambda server: server.say(
        b"\x01" + pack_u32(2) + pack_string(words.encode()) + pack_string(b"")
    )
    errors = user.ssh("dm-foo", "true").stderr
    (line,) = [line for line in errors.splitlines() if "red" in line]
    assert "[31mred and another line without end" in line
    assert line.isprintable() and len(line) < 2200


def test_a_gateways_debug_texts_reach_ssh_which_shows_no_escapes(
    gateway: RogueGateway, user: User
) -> None:
    """A text goes from one end to the other (RFC 4253 §11.3), as it would without the bridge."""
    words = b"\x04\x01" + pack_string(b"key options \x1b]52;c;eA==\x07") + pack_string(b"")

    def play(server: RogueServer) -> None:
        wait_until(lambda: server.heard)
        server.say(words, b"\x01" + pack_u32(2) + pack_string(b"bye") * 2)

    gateway.play = play
    errors = user.ssh("-v", "dm-foo", "true").stderr
    assert "Remote: key options \\033]52;c" in errors
    assert "\x1b" not in errors
