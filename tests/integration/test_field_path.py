"""The connection to the gateway, as long as it is idle, and programs that only look at ssh's
config.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import dcs_proxy
from tests.support.bridge import write_config
from tests.support.emulator import Emulator
from tests.support.user import User
from tests.support.waiting import wait_until

Start = Callable[..., Emulator]
START = Path(dcs_proxy.__file__).with_name("start.py")
ESTABLISHED = "01"
KEEPALIVE = "02"
# proc(5): times in /proc/net/tcp are in hundredths of a second.
MINUTE = 60 * 100


def idle_timers(port: int) -> list[int]:
    """Return, for each connection to `port` here, when keepalive will ask the other end."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, _, remote, state, _, timer, *_ = line.split()
            kind, _, when = timer.partition(":")
            if remote.endswith(f":{port:04X}") and (state, kind) == (ESTABLISHED, KEEPALIVE):
                found.append(int(when, 16))
    return found


def check_timer(ssh: subprocess.Popen[bytes], emulator: Emulator) -> None:
    """Wait until the connection is idle; look when it will be probed, and end the ssh."""
    assert ssh.stdout and ssh.stdout.readline() == b"in\n", ssh.stderr and ssh.stderr.read()
    (timer,) = wait_until(lambda: idle_timers(emulator.ready["gateway"]))
    assert timer <= MINUTE
    ssh.kill()
    ssh.wait()
    wait_until(lambda: not idle_timers(emulator.ready["gateway"]))


@pytest.mark.parametrize("options", [(), ("-o", "ProxyUseFdpass=no")], ids=["handover", "relay"])
def test_an_idle_connection_is_probed_after_a_minute(
    start_emulator: Start, user: User, options: tuple[str, ...]
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    for _ in range(2):  # cold and warm
        ssh = user.start_ssh(*options, "dm-foo", "echo in; sleep 1000")
        check_timer(ssh, emulator)


def test_an_idle_bridge_is_probed_after_a_minute(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    write_config(user, emulator)
    check_timer(user.start_ssh("dm-foo", "echo in; sleep 1000"), emulator)


PATIENT = ("-o", "ConnectTimeout=300")


@pytest.mark.parametrize("options", [(), ("-o", "ProxyUseFdpass=no")], ids=["handover", "relay"])
def test_a_silent_gateway_ends_a_patient_ssh(
    start_emulator: Start, user: User, options: tuple[str, ...]
) -> None:
    """Cold and warm, with what VS Code and Ansible make of a raised limit."""
    emulator = start_emulator("--machine", "dm-foo", "--fault", "dm-foo=gateway-silent")
    user.use(emulator)
    user.settings("connect_seconds = 1\n")
    for _ in range(2):
        done = user.ssh(*options, *PATIENT, "dm-foo", "true")
        assert done.returncode == 255
        assert "accepts connections but sends nothing" in done.stderr
        assert "hint: try again in a minute" in done.stderr


def test_a_patient_ssh_is_warm_too(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    for _ in range(2):
        done = user.ssh(*PATIENT, "dm-foo", "echo in")
        assert (done.returncode, done.stdout, done.stderr) == (0, "in\n", "")
    assert " warm=yes " in user.log().splitlines()[-1]


def test_a_gateway_that_waits_for_the_clients_line_is_served(
    start_emulator: Start, user: User
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as front:
        port = front.getsockname()[1]
        emulator = start_emulator(
            "--machine", "dm-foo", "--fault", f"dm-foo=set:connection.port={port}"
        )
        threading.Thread(
            target=serve_late, args=[front, emulator.ready["gateway"]], daemon=True
        ).start()
        user.use(emulator)
        for options in ((), PATIENT, PATIENT, ("-o", "ProxyUseFdpass=no", *PATIENT)):
            done = user.ssh(*options, "dm-foo", "echo in")
            assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
        front.shutdown(socket.SHUT_RDWR)


def serve_late(front: socket.socket, port: int) -> None:
    """Pass connections on to the gateway once the client has spoken."""

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve(client: socket.socket) -> None:
        first = client.recv(65536)
        with client, socket.create_connection(("127.0.0.1", port)) as gateway:
            gateway.sendall(first)
            back = threading.Thread(target=copy, args=[gateway, client], daemon=True)
            back.start()
            copy(client, gateway)
            back.join()

    while True:
        try:
            client, _ = front.accept()
        except OSError:
            return
        threading.Thread(target=serve, args=[client], daemon=True).start()


def test_a_host_that_is_not_expanded_ends_at_once(start_emulator: Start, user: User) -> None:
    """So VS Code evaluates Match exec, for each host that it lists."""
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    before = emulator.events(event="request")
    launched = user.run(["/bin/sh", str(user.state / "launcher"), "prepare", "%h"])
    assert (launched.returncode, launched.stdout, launched.stderr) == (1, "", "")
    command = [sys.executable, "-I", "-S", "-X", "importtime", str(START), "--home",
               str(user.state), "prepare", "%h"]  # fmt: skip
    bare = [sys.executable, "-I", "-S", "-X", "importtime", "-c", "pass"]
    modules, usual = (
        {line.split("|")[-1].strip() for line in user.run(words).stderr.splitlines()}
        for words in (command, bare)
    )
    assert modules - usual <= {"_socket"}
    assert emulator.events(event="request") == before
