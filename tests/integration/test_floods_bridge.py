"""Floods of the bridge: what either side sends without end, or does not read, takes little memory.

`read_peak` looks at the most memory that the bridge has ever taken, so nothing escapes between two
looks.  The limit is that of the other floods; a bridge takes about 45 MiB without one.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dcs_proxy.ssh.wire import pack_string, pack_u32
from tests.support.bridge import set_rekeying
from tests.support.emulator import Emulator
from tests.support.rogues import (
    LOGIN,
    SUCCESS,
    Rogue,
    RogueClient,
    RogueGateway,
    RogueServer,
    rogue_gateway,
)
from tests.support.user import User
from tests.support.waiting import LIMIT_S, wait_until, wait_until_stuck

Start = Callable[..., Emulator]
_LIMIT_KIB = 96 * 1024
_BLOCK = bytes(30_000)
# 66 MB, which does not fit.  All of them together do not make either side renew its keys.
_MANY = 2200


def large(number: int, head: bytes = b"") -> bytes:
    """Return a large message: a number, `head`, and a string that fills it."""
    return bytes([number]) + head + pack_string(_BLOCK)


def is_marker(message: bytes) -> bool:
    return message == MARKER


# A global request that the other side hears when everything before it has been dealt with.
MARKER = b"\x50" + pack_string(b"marker@example.com") + b"\0"
IGNORED = {
    "ignore": [large(2)] * _MANY,
    "debug": [large(4, b"\1")] * _MANY,
    "unimplemented": [large(3)] * _MANY,
    "extensions": [large(7, pack_u32(2**32 - 1))] * _MANY,
    "host keys": [b"\x50" + pack_string(b"hostkeys-00@openssh.com") + b"\0" + _BLOCK] * _MANY,
    "banners": [large(53)] * _MANY,
}
PASSED = {
    "global requests": [b"\x50" + pack_string(b"x" * 30) + b"\1"] * 20_000,
    "channels": [b"\x5a" + pack_string(b"session") + pack_u32(n) + pack_u32(2**32 - 1) * 2
                 for n in range(20_000)],
    "data to no channel": [b"\x5e" + pack_u32(2**32 - 1) + pack_string(_BLOCK)] * _MANY,
    "windows": [b"\x5d" + pack_u32(0) + pack_u32(2**32 - 1)] * 20_000,
    "closed twice": [b"\x61" + pack_u32(7)] * 20_000,
}  # fmt: skip


@dataclass
class Flooded:
    """A bridge, started for the test, between a rogue client and a rogue gateway."""

    user: User
    gateway: RogueGateway
    near: socket.socket = field(init=False)
    program: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.near, far = socket.socketpair()
        with far:
            command = shutil.which("dcs-proxy") or "dcs-proxy"
            self.program = self.user.start(
                command, "--bridge", "dm-foo", "22", stdin=far, stdout=far
            )

    def connect(self) -> RogueClient:
        return RogueClient(self.near)

    def reach(self) -> RogueServer:
        """Return the gateway once the bridge has logged in there."""
        server = wait_until(
            lambda: next((server for server in self.gateway.served if server.logins), None)
        )
        assert server.has_answered.wait(LIMIT_S)
        return server

    def read_peak(self) -> int:
        """Return the most memory that the bridge has taken, in KiB (VmHWM of proc(5))."""
        text = Path(f"/proc/{self.program.pid}/status").read_text()
        found = [line for line in text.splitlines() if line.startswith("VmHWM:")]
        return int(found[0].split()[1]) if found else 0  # it has ended

    def is_small(self) -> bool:
        """Return whether the bridge has never taken more memory than the limit."""
        return self.read_peak() < _LIMIT_KIB


@pytest.fixture
def gateway(start_emulator: Start, user: User, tmp_path: Path) -> Iterator[RogueGateway]:
    with rogue_gateway(tmp_path) as made:
        user.use(start_emulator("--machine", "dm-foo", *made.arguments), config=False)
        yield made


@pytest.fixture
def start(gateway: RogueGateway, user: User) -> Iterator[Callable[[], Flooded]]:
    with ExitStack() as started:

        def begin() -> Flooded:
            made = Flooded(user, gateway)
            started.callback(made.near.close)
            return made

        yield begin


def flood(source: Rogue, sink: Rogue, messages: list[bytes]) -> None:
    """Say the messages, and wait until they are dealt with."""
    sink.heard.clear()
    source.say(*messages, MARKER)
    wait_until(lambda: sink.heard and is_marker(sink.heard[-1]))


SIDES = pytest.mark.parametrize("by", ["gateway", "client"])


def sides(flooded: Flooded, by: str) -> tuple[Rogue, Rogue]:
    """Log the client in; return the side that floods, and the other."""
    client = flooded.connect()
    client.log_in()
    server = flooded.reach()
    return (server, client) if by == "gateway" else (client, server)


@SIDES
def test_messages_without_end_fill_no_memory(start: Callable[[], Flooded], by: str) -> None:
    flooded = start()
    source, sink = sides(flooded, by)
    for name, messages in (IGNORED | PASSED).items():
        if by == "client" and name == "banners":
            continue  # only a server sends them
        flood(source, sink, messages)
        assert flooded.is_small(), name


def test_banners_before_the_login_fill_no_memory(
    start: Callable[[], Flooded], gateway: RogueGateway
) -> None:
    gateway.answers = [*IGNORED["banners"], SUCCESS]
    flooded = start()
    source, sink = sides(flooded, "gateway")
    flood(source, sink, [])
    assert flooded.is_small()


# The question whether a key would do, which the bridge answers by repeating the key.
QUERY = (
    b"\x32" + b"".join(map(pack_string, [b"anybody", b"ssh-connection", b"publickey"]))
    + b"\0" + pack_string(b"ssh-ed25519") + pack_string(_BLOCK)
)  # fmt: skip


@pytest.mark.parametrize(
    "requests",
    [[QUERY] * _MANY, [LOGIN] * 20_000, [b"\x05" + pack_string(b"ssh-userauth")] * 20_000],
    ids=["keys", "logins", "services"],
)
def test_requests_before_the_login_fill_no_memory(
    start: Callable[[], Flooded], requests: list[bytes]
) -> None:
    flooded = start()
    client = flooded.connect()
    client.say(*requests)
    client.log_in()
    flood(client, flooded.reach(), [])
    assert flooded.is_small()


def test_a_client_that_reads_no_answer_is_not_asked_for_more(start: Callable[[], Flooded]) -> None:
    flooded = start()
    client = flooded.connect()
    client.reads.clear()
    saying = threading.Thread(target=client.say, args=[QUERY] * _MANY)
    saying.start()
    wait_until_stuck(lambda: client.said)
    assert flooded.is_small()
    client.reads.set()
    saying.join(LIMIT_S)
    client.log_in()


@SIDES
def test_a_side_that_reads_nothing_holds_the_other_up(
    start: Callable[[], Flooded], by: str
) -> None:
    flooded = start()
    source, sink = sides(flooded, by)
    sink.reads.clear()
    flooding = threading.Thread(target=flood, args=(source, sink, PASSED["data to no channel"]))
    flooding.start()
    wait_until_stuck(lambda: source.said)
    assert source.said < _MANY
    assert flooded.is_small()
    sink.reads.set()
    flooding.join(LIMIT_S)
    assert len(sink.heard) == _MANY + 1


def test_a_client_that_does_not_log_in_holds_the_gateway_up(
    start: Callable[[], Flooded], gateway: RogueGateway
) -> None:
    flooded = start()
    client = flooded.connect()
    server = flooded.reach()
    flooding = threading.Thread(target=flood, args=(server, client, PASSED["data to no channel"]))
    flooding.start()
    wait_until_stuck(lambda: server.said)
    assert server.said < _MANY
    assert flooded.is_small()
    client.log_in()
    flooding.join(LIMIT_S)
    assert len(client.heard) == _MANY + 1


@SIDES
def test_a_key_exchange_that_does_not_end_holds_the_other_side_up(
    start: Callable[[], Flooded], by: str
) -> None:
    flooded = start()
    source, sink = sides(flooded, by)
    sink.leave_exchange()
    # It ends with the connection.
    flooding = threading.Thread(target=fail_to_say, args=(source, PASSED["data to no channel"]))
    flooding.start()
    wait_until_stuck(lambda: source.said)
    assert source.said < _MANY
    assert flooded.is_small()
    assert flooded.program.poll() is None
    for side in (source, sink):
        side.close()
    flooding.join(LIMIT_S)
    flooded.program.wait(LIMIT_S)


@SIDES
def test_a_side_that_renews_no_keys_is_left_before_it_fills_memory(
    start: Callable[[], Flooded], user: User, by: str
) -> None:
    """The bridge may not wait in its own key exchange, so it holds what the other cannot take."""
    set_rekeying(user, 1)
    flooded = start()
    source, sink = sides(flooded, by)
    sink.leave_exchange()
    source.ignore_exchanges()
    with pytest.raises((EOFError, OSError)):
        for _ in range(_MANY):
            source.say(*PASSED["data to no channel"][:1])
            assert flooded.is_small()
    flooded.program.wait(LIMIT_S)


@SIDES
def test_keys_that_are_renewed_again_and_again_fill_no_memory(
    start: Callable[[], Flooded], by: str
) -> None:
    flooded = start()
    source, sink = sides(flooded, by)
    for _ in range(20):
        source.renegotiate_keys()
    flood(source, sink, [])
    assert flooded.is_small()


def fail_to_say(source: Rogue, messages: list[bytes]) -> None:
    with contextlib.suppress(EOFError, OSError):
        source.say(*messages)
