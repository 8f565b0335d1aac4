"""Clients that read the same config without OpenSSH's handover: asyncssh and paramiko."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncssh
import paramiko
import pytest

from tests.integration.harness import Emulator, User

Start = Callable[..., Emulator]


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


def test_paramiko_runs_commands_through_its_own_config_parser(
    start_emulator: Start, place: User, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    me = getpass.getuser()
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1", "--login", me)
    use(place, emulator, monkeypatch)
    options = paramiko.SSHConfig.from_path(str(place.config)).lookup("dm-foo")
    # paramiko knows neither Include nor IdentityAgent: the private agent is named by hand.
    monkeypatch.setenv("SSH_AUTH_SOCK", place.agent())
    client = paramiko.SSHClient()
    # Nor authorities in known_hosts.
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    proxy = paramiko.ProxyCommand(options["proxycommand"])
    try:
        client.connect("dm-foo", username=me, sock=proxy, allow_agent=True, look_for_keys=False)
        stdin, stdout, _ = client.exec_command("cat; exit 3")
        stdin.write("through\n")
        stdin.channel.shutdown_write()
        assert stdout.read() == b"through\n"
        assert stdout.channel.recv_exit_status() == 3
    finally:
        client.close()
        proxy.close()
        proxy.process.communicate()
