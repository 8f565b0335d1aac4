"""OpenSSH through the bridge, by a config written by hand: what a session can meet."""

from __future__ import annotations

import array
import os
import secrets
import shlex
import socket
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from fcntl import ioctl
from pathlib import Path

import paramiko
import pytest
import requests

from tests.support.bridge import (
    bridges_of,
    is_waking,
    start_and_wait,
    wait_until_gone,
    write_config,
)
from tests.support.emulator import Emulator
from tests.support.keys import make_key
from tests.support.sshd import authorised_sshd
from tests.support.terminal import Terminal
from tests.support.user import User
from tests.support.waiting import LIMIT_S, wait_until

Start = Callable[..., Emulator]
LONG = "echo; exec sleep 1000"


def test_ssh_logs_in_by_the_one_line_and_leaves_nothing(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    write_config(user, emulator)
    done = user.ssh("dm-foo", "cat; echo err >&2; exit 7", input="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "in\n", "err\n")
    # Any login name will do.
    done = user.ssh("-l", "nobody", "dm-foo", 'echo "$USER"')
    (session,) = emulator.sessions_created()
    assert done.stdout == f"{session}\n", done.stderr
    wait_until_gone(user)


def test_a_wake_does_not_count_against_connect_timeout_and_is_shown(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "7")
    write_config(user, emulator)
    done = user.ssh("-o", "ConnectTimeout=5", "dm-foo", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    assert done.stderr.splitlines() == ["dcs-proxy: dm-foo: waking up, at most 300 s"]
    quiet = user.ssh("-q", "dm-foo", "echo in")
    assert (quiet.stdout, quiet.stderr) == ("in\n", "")


def test_a_client_on_one_socket_that_speaks_only_during_the_wake_is_bridged(
    start_emulator: Start, user: User
) -> None:
    """Until then it could have been ssh, which waits for the connection to be handed over."""
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "3600")
    write_config(user, emulator)
    near, far = socket.socketpair()
    with near:
        with far:
            user.start("dcs-proxy", "dm-foo", "22", stdin=far, stdout=far)
        wait_until(lambda: is_waking(user))
        transport = paramiko.Transport(near)
        # The version line is its first, and is sent before anything is read.
        talk = threading.Thread(target=transport.start_client, kwargs={"timeout": LIMIT_S})
        talk.start()
        wait_until(lambda: has_unread(near))
        emulator.control("PUT", "machines/dm-foo", phase="running")
        talk.join(LIMIT_S)
        transport.auth_none("anybody")
        channel = transport.open_session(timeout=LIMIT_S)
        channel.exec_command("echo in")
        assert channel.makefile().read() == b"in\n"
        transport.close()
    wait_until_gone(user)


def has_unread(sock: socket.socket) -> bool:
    """Return whether the other end has not read all that was written into a socket of a pair."""
    # SIOCOUTQ; for Unix sockets, Linux counts the buffers that are still in the queue.
    queued = array.array("i", [0])
    ioctl(sock.fileno(), termios.TIOCOUTQ, queued)
    return queued[0] > 0


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("404", "dm-foo: no such machine"),
        ("gateway-refuses", "dm-foo: the gateway localhost:"),
        ("gateway-resets", "dm-foo: the gateway localhost:"),
        ("gateway-unsigned-key", "has no host certificate"),
        ("gateway-other-name", "the gateway's host key cannot be trusted: it does not name"),
        ("gateway-expired", "the gateway's host key cannot be trusted: it ended at"),
        ("gateway-other-authority", "it is not signed by the session's authority"),
    ],
)
def test_a_failure_is_told_through_ssh(
    start_emulator: Start, user: User, fault: str, said: str
) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--fault", f"dm-foo={fault}")
    write_config(user, emulator)
    done = user.ssh("-T", "dm-foo", "echo in")
    assert (done.returncode, done.stdout) == (255, "")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Received disconnect")]
    assert said in line, done.stderr
    assert "Traceback" not in done.stderr
    assert emulator.events(event="login") == []
    wait_until_gone(user)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            "link as key",
            "the bridge's host key {state}/bridge_ed25519_key is not a file of yours; hint: remove",
        ),
        ("open state directory", "the state directory {state} is writable by other users"),
    ],
)
def test_what_is_wrong_before_the_bridge_can_answer_is_told_through_ssh(
    start_emulator: Start, user: User, kind: str, said: str
) -> None:
    write_config(user, start_emulator("--machine", "dm-foo"))
    assert user.ssh("dm-foo", "true").returncode == 0
    if kind == "link as key":
        key = user.state / "bridge_ed25519_key"
        key.rename(user.root / "key")
        key.symlink_to(user.root / "key")
    else:
        user.state.chmod(0o777)
    # As a client that discards stderr, such as an ssh with ControlPersist.
    done = user.ssh(
        "-o", "ControlMaster=auto", "-o", "ControlPath=~/%C", "-o", "ControlPersist=1", "dm-foo",
        "true",
    )  # fmt: skip
    assert done.returncode == 255
    assert said.format(state=user.state) in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "ProxyUseFdpass=no"], ""),
        (["-oProxyUseFdpass no", "-p99", "-4", "-v"], ""),
        ([], ""),  # a handover
        (["-o", "ProxyUseFdpass=no", "-l", "root"], "is about to log in as root, but"),
    ],
)
def test_an_ssh_that_has_read_our_block_expects_the_gateway_whatever_its_proxy_command_says(
    start_emulator: Start, user: User, words: list[str], said: str
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    program = shlex.join([sys.executable, "-m", "dcs_proxy"])
    done = user.ssh("-o", f"ProxyCommand={program} %h %p", *words, "dm-foo", "echo in")
    if said:
        assert done.returncode == 255 and said in done.stderr
    else:
        assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr


@pytest.mark.parametrize("how", ["empty", "readable"])
def test_a_host_key_that_cannot_be_used_is_replaced_and_ssh_gets_in(
    start_emulator: Start, user: User, how: str
) -> None:
    write_config(user, start_emulator("--machine", "dm-foo"))
    assert user.ssh("dm-foo", "true").returncode == 0
    key = user.state / "bridge_ed25519_key"
    if how == "empty":
        key.write_text("")
    else:
        key.chmod(0o644)
    # ssh reads its known_hosts only after the bridge has written the new key there.
    done = user.ssh("dm-foo", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_gateway_that_says_nothing_is_given_up(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--fault", "dm-foo=gateway-silent")
    write_config(user, emulator)
    done = user.ssh("dm-foo", "echo in")
    assert done.returncode == 255
    assert "the gateway localhost:" in done.stderr


def test_another_host_key_than_the_bridges_is_refused_by_ssh(
    start_emulator: Start, user: User
) -> None:
    write_config(user, start_emulator("--machine", "dm-foo"))
    assert user.ssh("dm-foo", "true").returncode == 0
    for name in ("bridge_ed25519_key", "bridge_ecdsa_key"):
        (user.state / name).unlink()
    known_hosts = (user.state / "known_hosts").read_text()
    mine = user.root / "mine"
    mine.write_text(known_hosts)
    done = user.ssh("-o", f'UserKnownHostsFile="{mine}"', "dm-foo", "true")
    assert done.returncode == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr
    wait_until_gone(user)


@pytest.mark.parametrize(
    ("options", "cipher"),
    [
        ((), "aes128-gcm@openssh.com"),
        (("-c", "aes256-ctr", "-m", "hmac-sha2-512"), "aes256-ctr"),
        (("-c", "aes192-ctr,aes256-gcm@openssh.com"), "aes256-gcm@openssh.com"),
    ],
)
def test_ssh_gets_the_fastest_cipher_that_its_config_allows(
    either: User, options: tuple[str, ...], cipher: str
) -> None:
    done = either.ssh("-v", *options, "dm-foo", "cat", input="through\n")
    assert (done.returncode, done.stdout) == (0, "through\n"), done.stderr
    assert f"server->client cipher: {cipher} " in done.stderr
    assert f"client->server cipher: {cipher} " in done.stderr


def test_the_gateways_own_host_keys_are_kept_from_ssh(
    start_emulator: Start, user: User, tmp_path: Path
) -> None:
    with authorised_sshd(tmp_path) as (_, arguments):
        write_config(user, start_emulator("--machine", "dm-foo", *arguments))
        assert user.ssh("dm-foo", "true").returncode == 0
        before = (user.state / "known_hosts").read_bytes()
        done = user.ssh("-v", "-o", "UpdateHostKeys=yes", "dm-foo", "true")
        assert done.returncode == 0
        assert "hostkeys-00" not in done.stderr
        assert (user.state / "known_hosts").read_bytes() == before


def test_a_session_that_was_closed_elsewhere_is_replaced_at_once(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    write_config(user, emulator)
    assert user.ssh("dm-foo", "true").returncode == 0
    (session,) = emulator.sessions_created()
    done = requests.delete(
        f"{emulator.api}/v1/machines/dm-foo/ssh/{session}",
        headers={"Authorization": f"Bearer {emulator.key}", "Idempotency-Key": "elsewhere"},
        timeout=60,
    )
    assert done.ok, done.text
    done = user.ssh("dm-foo", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    assert len(emulator.sessions_created()) == 2


@pytest.fixture(params=["gateway", "sshd"])
def either(
    request: pytest.FixtureRequest, start_emulator: Start, user: User, tmp_path: Path
) -> Iterator[User]:
    """A user whose machine dm-foo is behind the emulator's gateway, or behind a real sshd."""
    if request.param == "gateway":
        write_config(user, start_emulator("--machine", "dm-foo"))
        yield user
        return
    with authorised_sshd(tmp_path) as (_, arguments):
        write_config(user, start_emulator("--machine", "dm-foo", *arguments))
        yield user


def test_statuses_signals_and_the_ends_of_input_and_output_arrive(either: User) -> None:
    done = either.ssh("dm-foo", "exec <&-; exec >&-; exit 5", input="")
    assert (done.returncode, done.stdout) == (5, "")
    done = either.ssh("-v", "dm-foo", "kill -TERM $$; sleep 100")
    assert done.returncode == 255
    assert "exit-signal" in done.stderr
    done = either.ssh("dm-foo", "cat; echo end", input="line\n")
    assert (done.returncode, done.stdout) == (0, "line\nend\n")


def test_a_terminal_has_the_clients_size_and_its_changes(either: User) -> None:
    report = "trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.1; done"
    ssh = ["ssh", "-F", str(either.config), "-tt", "dm-foo", report]
    with Terminal(either, *ssh, lines=30, columns=91) as terminal:
        terminal.wait_for("30 91")
        terminal.resize(31, 92)
        terminal.wait_for("31 92")
    wait_until_gone(either)


def far_server() -> socket.socket:
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(60)
    return server


def test_connections_are_forwarded_both_ways(either: User) -> None:
    with far_server() as far, socket.create_server(("127.0.0.1", 0)) as spare:
        here = spare.getsockname()[1]
        spare.close()
        target = f"127.0.0.1:{far.getsockname()[1]}"
        ssh, _ = start_and_wait(
            either, "-L", f"127.0.0.1:{here}:{target}", "-R", f"127.0.0.1:0:{target}",
            "-o", "ExitOnForwardFailure=yes", "dm-foo", LONG,
        )  # fmt: skip
        assert ssh.stderr is not None
        said = ssh.stderr.readline().decode()
        there = int(said.split("Allocated port ")[1].split()[0])
        for port in (here, there):
            with socket.create_connection(("127.0.0.1", port), 60) as near:
                near.sendall(b"question")
                accepted, _ = far.accept()
                with accepted:
                    accepted.settimeout(60)
                    assert accepted.recv(99) == b"question"
                    accepted.sendall(b"answer")
                    assert near.recv(99) == b"answer"
                    # A half-closed connection goes on the other way.
                    near.shutdown(socket.SHUT_WR)
                    assert accepted.recv(99) == b""
                    accepted.sendall(b"more")
                    assert near.recv(99) == b"more"
        ssh.kill()


def test_a_socks_proxy_leads_through_the_machine(either: User) -> None:
    with far_server() as far, socket.create_server(("127.0.0.1", 0)) as spare:
        here = spare.getsockname()[1]
        spare.close()
        ssh, _ = start_and_wait(
            either, "-D", f"127.0.0.1:{here}", "dm-foo", "echo; exec sleep 1000"
        )
        with socket.create_connection(("127.0.0.1", here), 60) as near:
            # RFC 1928: version 5, no authentication; connect to an IPv4 address.
            near.sendall(b"\5\1\0")
            assert near.recv(2) == b"\5\0"
            port = far.getsockname()[1].to_bytes(2, "big")
            near.sendall(b"\5\1\0\1\x7f\0\0\1" + port)
            accepted, _ = far.accept()
            with accepted:
                assert near.recv(99)[:2] == b"\5\0"
                accepted.sendall(b"answer")
                assert near.recv(99) == b"answer"
        ssh.kill()


def test_the_users_own_agent_is_forwarded_and_no_other(either: User) -> None:
    either.start_agent()
    key = make_key(either.root / "own", comment="own")
    assert either.run(["ssh-add", "-q", str(key)]).returncode == 0
    listed = either.ssh("-A", "dm-foo", "ssh-add -l")
    assert " own " in listed.stdout and "dm-foo" not in listed.stdout
    assert either.ssh("dm-foo", "ssh-add -l").returncode == 2


def test_files_are_copied_by_every_program(either: User) -> None:
    data = secrets.token_bytes(3_000_000)
    (either.root / "file").write_bytes(data)
    copies = [("scp", "-q"), ("scp", "-q", "-O")]
    where = "/tmp" if os.path.isdir("/tmp") else "."
    name = f"{where}/bridge-{secrets.token_hex(8)}"
    try:
        for number, copy in enumerate(copies):
            options = [*copy, "-F", str(either.config)]
            done = either.run([*options, "file", f"dm-foo:{name}"])
            assert done.returncode == 0, done.stderr
            done = either.run([*options, f"dm-foo:{name}", f"back{number}"])
            assert done.returncode == 0, done.stderr
            assert (either.root / f"back{number}").read_bytes() == data
        batch = either.root / "batch"
        batch.write_text(f"put file {name}\nget {name} back-sftp\n")
        done = either.run(["sftp", "-q", "-F", str(either.config), "-b", str(batch), "dm-foo"])
        assert done.returncode == 0, done.stderr
        assert (either.root / "back-sftp").read_bytes() == data
    finally:
        Path(name).unlink(missing_ok=True)


def test_a_master_serves_many_through_one_bridge(either: User) -> None:
    # Short, for a socket's path.
    path = f"/tmp/dcs-{secrets.token_hex(4)}"
    options = ["-o", "ControlMaster=auto", "-o", f"ControlPath={path}"]
    try:
        done = either.ssh(*options, "-o", "ControlPersist=60", "-fN", "dm-foo",
                          stdout=None, stderr=None)  # fmt: skip
        assert done.returncode == 0
        for number in range(5):
            done = either.ssh(*options, "dm-foo", f"echo {number}; exit {number}")
            assert (done.returncode, done.stdout) == (number, f"{number}\n"), done.stderr
        assert len(bridges_of(either)) == 1
    finally:
        either.ssh(*options, "-O", "exit", "dm-foo")
    wait_until_gone(either)
