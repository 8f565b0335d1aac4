"""The bridge under load: keys renewed on both sides, many channels, clients that stop."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncssh
import pytest

from tests.support.bridge import set_rekeying, start_and_wait, wait_until_gone, write_config
from tests.support.emulator import Emulator
from tests.support.processes import resident_bytes
from tests.support.sshd import authorised_sshd
from tests.support.user import User
from tests.support.waiting import LIMIT_S

Start = Callable[..., Emulator]
MIB = 1024 * 1024


@pytest.fixture
def behind_sshd(start_emulator: Start, user: User, tmp_path: Path) -> Iterator[User]:
    """A user whose machine is behind a real sshd, as fast as one is."""
    with authorised_sshd(tmp_path) as (_, arguments):
        write_config(user, start_emulator("--machine", "dm-foo", *arguments))
        yield user


def feed(ssh: subprocess.Popen[bytes], block: bytes, count: int) -> None:
    assert ssh.stdin is not None
    for _ in range(count):
        ssh.stdin.write(block)
    ssh.stdin.close()
    ssh.stdin = None  # communicate, in the end, would flush it


@pytest.mark.parametrize("cipher", ["aes128-gcm@openssh.com", "aes128-ctr"])
def test_keys_are_renewed_on_both_sides_under_load_both_ways(
    behind_sshd: User, cipher: str
) -> None:
    set_rekeying(behind_sshd, 1)
    count, block = 40, os.urandom(MIB)
    expected = hashlib.sha256(block * count).hexdigest()
    options = ["-v", "-c", cipher, "-o", "RekeyLimit=1M"]
    ssh = behind_sshd.start_ssh(*options, "dm-foo", "cat", stdin=subprocess.PIPE)
    errors: list[bytes] = []
    assert ssh.stderr is not None and ssh.stdout is not None
    threads = [
        threading.Thread(target=feed, args=(ssh, block, count)),
        # The assertion above does not reach into a lambda.
        threading.Thread(target=lambda: errors.append(ssh.stderr.read())),  # type: ignore[union-attr]
    ]
    for thread in threads:
        thread.start()
    digest = hashlib.sha256()
    while data := ssh.stdout.read(MIB):
        digest.update(data)
    for thread in threads:
        thread.join(LIMIT_S)
    assert ssh.wait(LIMIT_S) == 0, errors
    assert digest.hexdigest() == expected
    assert errors[0].count(b"SSH2_MSG_NEWKEYS received") > 20


def test_a_client_that_is_stopped_costs_no_memory_and_goes_on(behind_sshd: User) -> None:
    ssh, bridge = start_and_wait(behind_sshd, "dm-foo", "echo; head -c 100000000 /dev/zero")
    assert ssh.stdout is not None
    # What it has not read yet holds everything up: its own output is a pipe.
    os.kill(ssh.pid, signal.SIGSTOP)
    before = resident_bytes(bridge)
    peak = 0
    # The machine goes on sending until every buffer between is full.
    end = time.monotonic() + 3
    while time.monotonic() < end:
        peak = max(peak, resident_bytes(bridge))
        time.sleep(0.05)
    os.kill(ssh.pid, signal.SIGCONT)
    count = 0
    while data := ssh.stdout.read(MIB):
        count += len(data)
    assert ssh.wait(LIMIT_S) == 0
    assert count == 100_000_000
    assert peak - before < 16 * MIB
    wait_until_gone(behind_sshd)


def test_a_bridge_that_is_stopped_goes_on(behind_sshd: User) -> None:
    ssh, bridge = start_and_wait(behind_sshd, "dm-foo", "echo; exec cat", stdin=subprocess.PIPE)
    os.kill(bridge, signal.SIGSTOP)
    assert ssh.stdin is not None
    ssh.stdin.write(b"while it was stopped\n")
    ssh.stdin.flush()
    os.kill(bridge, signal.SIGCONT)
    out, _ = ssh.communicate(b"and after\n", timeout=LIMIT_S)
    assert (ssh.returncode, out) == (0, b"while it was stopped\nand after\n")


def test_many_channels_share_a_bridge(
    start_emulator: Start, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(user, start_emulator("--machine", "dm-foo"))
    assert user.ssh("dm-foo", "true").returncode == 0
    for name, value in user.environment.items():
        monkeypatch.setenv(name, value)

    async def talk() -> list[str]:
        async with asyncssh.connect(
            "dm-foo", username="anybody", config=None, client_keys=None, agent_path=None,
            proxy_command=["dcs-proxy", "dm-foo", "22"],
            known_hosts=str(user.state / "known_hosts"),
        ) as connection:  # fmt: skip
            # All of them are open before the first is given anything to say.
            opened = [await connection.create_process("cat") for _ in range(200)]
            for number, process in enumerate(opened):
                process.stdin.write(f"{number}\n")
                process.stdin.write_eof()
            return [str(await process.stdout.read()) for process in opened]

    assert asyncio.run(talk()) == [f"{number}\n" for number in range(200)]
    wait_until_gone(user)


def test_many_bridges_at_once(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    write_config(user, emulator)
    running = [user.start_ssh("dm-foo", f"echo {number}") for number in range(12)]
    for number, ssh in enumerate(running):
        out, errors = ssh.communicate(timeout=LIMIT_S)
        assert (ssh.returncode, out) == (0, f"{number}\n".encode()), errors
    assert len(emulator.creates()) == 1
    wait_until_gone(user)
