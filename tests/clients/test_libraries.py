"""Libraries that speak SSH themselves, without OpenSSH's handover, and what they need for it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import fabric
import paramiko
import pytest
from ssh2.session import Session

from tests.clients.programs import Start, login_of
from tests.integration.harness import Emulator, User

_UNBOUND = "with: destination_constraint = false"
# libssh2 has one socket for both ways, as ssh has it under ProxyUseFdpass.
_PROXY = "dcs-proxy --relay dm-foo 22"
_NODE_MODULES = os.environ.get("DCS_PROXY_NODE_MODULES")
_SSH2 = Path(__file__).with_name("ssh2_login.js")


@pytest.fixture
def place(user: User, monkeypatch: pytest.MonkeyPatch) -> Iterator[User]:
    """A user whose environment is this process's, for clients that run inside it.

    Neither library binds the agent to its session, so an identity with a destination constraint
    is of no use to them: the config file turns it off.
    """
    user.settings("destination_constraint = false\n")
    for name in set(os.environ) - set(user.environment):
        monkeypatch.delenv(name)
    for name, value in user.environment.items():
        monkeypatch.setenv(name, value)
    # paramiko runs Match exec through invoke, which reads our stdin for it.
    with Path(os.devnull).open() as null:
        monkeypatch.setattr("sys.stdin", null)
        yield user


def use(user: User, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    user.use(emulator)
    monkeypatch.setenv("DEDALUS_BASE_URL", emulator.api)
    monkeypatch.setenv("DEDALUS_API_KEY", emulator.key)


@pytest.mark.client("asyncssh", f"{_UNBOUND}, dcs-proxy prepare first")
def test_asyncssh_runs_commands_and_copies_files(
    start_emulator: Start, place: User, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1")
    use(place, emulator, monkeypatch)
    # asyncssh does not tell Match exec the host's name.
    assert place.proxy("prepare", "dm-foo").returncode == 0
    data = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(data)

    async def session() -> tuple[int | None, str, bytes]:
        async with asyncssh.connect("dm-foo", config=[str(place.config)]) as connection:
            done = await connection.run("cat; echo end; exit 3", input="through\n")
            async with connection.start_sftp_client() as sftp:
                await sftp.put(str(tmp_path / "file"), "copy")
                await sftp.get("copy", str(tmp_path / "back"))
            return done.exit_status, str(done.stdout), (tmp_path / "back").read_bytes()

    status, out, back = asyncio.run(session())
    assert (status, out) == (3, "through\nend\n")
    assert back == data


def end(client: paramiko.SSHClient) -> None:
    """End paramiko's connection, its thread and then its ProxyCommand."""
    transport = client.get_transport()
    assert transport is not None
    client.close()
    transport.join(60)
    transport.sock.process.communicate()


@pytest.mark.client("paramiko", f"{_UNBOUND}, login and agent from ssh -G")
def test_paramiko_runs_commands_and_copies_files(
    start_emulator: Start, place: User, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(place, start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1"), monkeypatch)
    login, agent = login_of(place)
    monkeypatch.setenv("SSH_AUTH_SOCK", agent)
    client = paramiko.SSHClient()
    # paramiko knows no authorities in known_hosts.
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    proxy = paramiko.ProxyCommand(_PROXY)
    data = os.urandom(100_000)
    (tmp_path / "file").write_bytes(data)
    try:
        client.connect("dm-foo", username=login, sock=proxy, look_for_keys=False)
        stdin, stdout, _ = client.exec_command("cat; exit 3")
        stdin.write("through\n")
        stdin.channel.shutdown_write()
        assert stdout.read() == b"through\n"
        assert stdout.channel.recv_exit_status() == 3
        with client.open_sftp() as sftp:
            sftp.put(str(tmp_path / "file"), "copy")
            sftp.get("copy", str(tmp_path / "back"))
        assert (tmp_path / "back").read_bytes() == data
    finally:
        end(client)


@pytest.mark.client("Fabric", f"{_UNBOUND}, login and agent from ssh -G")
def test_fabric_runs_commands_and_puts_files(
    start_emulator: Start, place: User, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(place, start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1"), monkeypatch)
    login, agent = login_of(place)
    monkeypatch.setenv("SSH_AUTH_SOCK", agent)
    config = fabric.Config(runtime_ssh_path=str(place.config))
    # Without a gateway of its own it takes the config's ProxyCommand, with the local user for %r.
    (tmp_path / "file").write_text("text\n")
    with fabric.Connection("dm-foo", user=login, config=config, gateway=_PROXY) as machine:
        done = machine.run("echo through; exit 3", hide=True, warn=True, in_stream=False)
        assert (done.stdout, done.exited) == ("through\n", 3)
        machine.put(str(tmp_path / "file"), "copy")
        assert machine.run("cat copy", hide=True, in_stream=False).stdout == "text\n"
        end(machine.client)


@pytest.mark.client("ssh2-python", f"{_UNBOUND}, login and agent from ssh -G")
def test_libssh2_runs_commands_over_a_socket_pair(
    start_emulator: Start, place: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(place, start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1"), monkeypatch)
    login, agent = login_of(place)
    monkeypatch.setenv("SSH_AUTH_SOCK", agent)
    near, far = socket.socketpair()
    with near:
        with far:
            place.start(*_PROXY.split(), stdin=far, stdout=far)
        session = Session()
        session.handshake(near)
        session.agent_auth(login)
        channel = session.open_session()
        channel.execute("echo through; exit 3")
        assert channel.read() == (8, b"through\n")
        channel.wait_eof()
        channel.close()
        channel.wait_closed()
        assert channel.get_exit_status() == 3


@pytest.mark.skipif(
    not (_NODE_MODULES and shutil.which("node")),
    reason="node is not installed, or DCS_PROXY_NODE_MODULES does not say where ssh2 is",
)
@pytest.mark.client("ssh2 (node)", "cannot: it knows no certificates")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "All configured authentication methods failed\n"),
        # It is the certificate: the bare key of a gateway that wants none is taken.
        (("--without", "certificate"), "ready\n"),
    ],
    ids=["certificate", "key"],
)
def test_ssh2_of_node_can_use_the_agents_keys_but_no_certificates(
    start_emulator: Start, place: User, arguments: tuple[str, ...], said: str
) -> None:
    """Editors such as open-remote-ssh are built on it, and do the same."""
    place.use(start_emulator("--machine", "dm-foo", *arguments))
    login, agent = login_of(place)
    environment = {**place.environment, "NODE_PATH": str(_NODE_MODULES)}
    node = ["node", str(_SSH2), login, agent, *_PROXY.split()]
    assert place.run(node, env=environment).stdout == said
