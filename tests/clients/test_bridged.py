"""SSH clients other than OpenSSH with the block: by ProxyCommand alone, as their users run them.

None of them can use a session's certificate.  Each checks the host key as strictly as it can.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import fabric
import paramiko
import pytest
from pylibsshext.session import Session as PylibsshSession
from ssh.key import SSHKey
from ssh.options import HOST, KNOWNHOSTS, PROXYCOMMAND, USER
from ssh.session import Session as LibsshSession
from ssh2.knownhost import LIBSSH2_KNOWNHOST_KEYENC_RAW, LIBSSH2_KNOWNHOST_TYPE_PLAIN
from ssh2.session import Session as Libssh2Session

from tests.clients.programs import Start, needs, succeed
from tests.support.bridge import wait_until_gone, write_config
from tests.support.client_table import ONE_LINE
from tests.support.user import User
from tests.support.waiting import wait_until

PROXY = "dcs-proxy dm-foo 22"
WAKE = ("--machine", "dm-foo:sleeping", "--wake-seconds", "1")
_NODE_MODULES = os.environ.get("DCS_PROXY_NODE_MODULES")
_HERE = Path(__file__).parent
_JSCH = Path("/usr/share/java/jsch.jar")


@pytest.fixture
def place(start_emulator: Start, user: User, monkeypatch: pytest.MonkeyPatch) -> Iterator[User]:
    """A user who has run config-ssh, whose machine sleeps and whose environment is this process's.

    Clients that run inside it need that.  In the end no bridge may be left.
    """
    emulator = start_emulator(*WAKE)
    user.use(emulator)
    for name in set(os.environ) - set(user.environment):
        monkeypatch.delenv(name)
    for name, value in user.environment.items():
        monkeypatch.setenv(name, value)
    # paramiko runs Match exec through invoke, which reads our stdin for it.
    with Path(os.devnull).open() as null:
        monkeypatch.setattr("sys.stdin", null)
        yield user
    wait_until_gone(user)


def known_hosts(user: User) -> str:
    return str(user.state / "known_hosts")


def end(client: paramiko.SSHClient) -> None:
    """End paramiko's connection, its thread and then its ProxyCommand."""
    transport = client.get_transport()
    assert transport is not None
    client.close()
    transport.join(60)
    transport.sock.process.communicate()


@pytest.mark.client("ssh: without the block", ONE_LINE)
def test_openssh_logs_in_with_a_config_by_hand(place: User) -> None:
    place.config.write_text(
        "Host dm-*\n    ProxyCommand dcs-proxy %h %p\n"
        f'    UserKnownHostsFile "{known_hosts(place)}"\n    StrictHostKeyChecking yes\n'
    )
    done = place.ssh("anybody@dm-foo", "cat; exit 3", input="through\n")
    assert (done.returncode, done.stdout) == (3, "through\n"), done.stderr


@pytest.mark.client("asyncssh", "works")
@pytest.mark.parametrize("is_warm", [False, True])
def test_asyncssh_runs_commands_and_copies_files(
    place: User, tmp_path: Path, is_warm: bool
) -> None:
    if is_warm:  # then there is a snippet, which asyncssh could not use
        assert place.ssh("dm-foo", "true").returncode == 0
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


@pytest.mark.client("paramiko", ONE_LINE)
def test_paramiko_runs_commands_and_copies_files(place: User, tmp_path: Path) -> None:
    client = paramiko.SSHClient()
    client.load_host_keys(known_hosts(place))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    proxy = paramiko.ProxyCommand(PROXY)
    data = os.urandom(100_000)
    (tmp_path / "file").write_bytes(data)
    try:
        # Without a password or a key it would offer nothing at all.
        client.connect("dm-foo", username="anybody", password="any", sock=proxy)
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


def test_a_client_that_knows_no_patterns_finds_the_host_key_under_each_name(
    start_emulator: Start, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """paramiko compares the names in known_hosts literally."""
    emulator = start_emulator("--machine", "dm-foo", "--machine", "dm-bar", "--ids", "uuid")
    user.use(emulator)
    full, other = user.full_names["dm-foo"], user.full_names["dm-bar"]
    user.settings(f'[aliases]\ndm-web = "{full}"\n')
    assert user.proxy("config-ssh", "--ssh-config", str(user.config)).returncode == 0
    hosts = paramiko.HostKeys(known_hosts(user))
    short = [f"dm-{name.rpartition('-')[2][-4:]}" for name in (full, other)]
    for host in (full, other, "dm-web", *short):
        assert hosts.lookup(host) is not None, host
    for name, value in user.environment.items():
        monkeypatch.setenv(name, value)
    for host in (full, short[1], "dm-web"):
        client = paramiko.SSHClient()
        client.load_host_keys(known_hosts(user))
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        client.connect(
            host, username="any", password="any", sock=paramiko.ProxyCommand(f"dcs-proxy {host} 22")
        )
        _, stdout, _ = client.exec_command("echo in")
        assert stdout.read() == b"in\n"
        end(client)
    wait_until_gone(user)


@pytest.mark.client("paramiko", ONE_LINE)
def test_the_log_says_why_paramiko_was_not_let_in(place: User) -> None:
    proxy = paramiko.ProxyCommand("dcs-proxy dm-none 22")
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.WarningPolicy())
    with pytest.warns(UserWarning, match="dm-none"), pytest.raises(paramiko.SSHException):
        client.connect("dm-none", username="any", password="any", sock=proxy)
    # It ends its ProxyCommand as soon as it is disconnected, and shows nobody the reason.
    proxy.close()
    proxy.process.communicate()
    assert "no such machine" in place.proxy("log", "dm-none").stdout


@pytest.mark.client("Fabric", ONE_LINE)
def test_fabric_runs_commands_and_puts_files(place: User, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text\n")
    config = fabric.Config()
    config.load_ssh_config = False
    with fabric.Connection(
        "dm-foo", user="anybody", gateway=PROXY, connect_kwargs={"password": "any"}
    ) as machine:
        machine.client.load_host_keys(known_hosts(place))
        machine.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        done = machine.run("echo through; exit 3", hide=True, warn=True, in_stream=False)
        assert (done.stdout, done.exited) == ("through\n", 3)
        machine.put(str(tmp_path / "file"), "copy")
        assert machine.run("cat copy", hide=True, in_stream=False).stdout == "text\n"
        end(machine.client)


@pytest.mark.client("ssh2-python", ONE_LINE)
def test_libssh2_runs_commands_over_a_socket_pair(place: User) -> None:
    near, far = socket.socketpair()
    with near:
        with far:
            # One socket for both ways, as ssh has it under ProxyUseFdpass.
            place.start(*PROXY.split(), stdin=far, stdout=far)
        session = Libssh2Session()
        session.handshake(near)
        key, _ = session.hostkey()
        hosts = session.knownhost_init()
        hosts.readfile(known_hosts(place))
        hosts.checkp(
            b"dm-foo", 22, key, LIBSSH2_KNOWNHOST_TYPE_PLAIN | LIBSSH2_KNOWNHOST_KEYENC_RAW
        )
        assert session.userauth_list("anybody") is None, "it was let in at once"
        assert session.userauth_authenticated()
        channel = session.open_session()
        channel.execute("echo through; exit 3")
        assert channel.read() == (8, b"through\n")
        channel.wait_eof()
        channel.close()
        channel.wait_closed()
        assert channel.get_exit_status() == 3
        session.disconnect()


@pytest.mark.client("ssh-python", ONE_LINE)
def test_libssh_runs_commands_by_its_own_proxy_command(place: User) -> None:
    session = LibsshSession()
    session.options_set(HOST, "dm-foo")
    session.options_set(USER, "anybody")
    session.options_set(KNOWNHOSTS, known_hosts(place))
    session.options_set(PROXYCOMMAND, PROXY)
    session.connect()
    try:
        assert isinstance(session.get_server_publickey(), SSHKey)
        session.userauth_none()
        channel = session.channel_new()
        channel.open_session()
        channel.request_exec("echo through; exit 3")
        assert channel.read() == (8, b"through\n")
        channel.send_eof()
        assert wait_until(lambda: max(channel.get_exit_status(), 0)) == 3
    finally:
        session.disconnect()


@pytest.mark.client("ansible-pylibssh", ONE_LINE)
def test_ansibles_libssh_runs_commands_and_copies_files(place: User, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text\n")
    session = PylibsshSession()
    session.connect(
        host="dm-foo", user="anybody", password="any", look_for_keys=False, proxycommand=PROXY,
        host_key_checking=True, knownhosts=known_hosts(place),
    )  # fmt: skip
    try:
        channel = session.new_channel()
        done = channel.exec_command("echo through; exit 3")
        channel.close()
        assert (done.returncode, done.stdout) == (3, b"through\n")
        sftp = session.sftp()
        sftp.put(str(tmp_path / "file"), "copy")
        sftp.get("copy", str(tmp_path / "back"))
        sftp.close()
        assert (tmp_path / "back").read_text() == "text\n"
    finally:
        session.close()


needs_ssh2 = pytest.mark.skipif(
    not (_NODE_MODULES and shutil.which("node")),
    reason="node is not installed, or DCS_PROXY_NODE_MODULES does not say where ssh2 is",
)


@needs_ssh2
@pytest.mark.client("ssh2 (node)", ONE_LINE)
def test_ssh2_of_node_runs_commands_a_shell_and_sftp_and_forwards(
    start_emulator: Start, user: User
) -> None:
    """Editors such as open-remote-ssh are built on it.  It is let in before the machine wakes."""
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "600")
    write_config(user, emulator)
    environment = {**user.environment, "NODE_PATH": str(_NODE_MODULES)}
    with socket.create_server(("127.0.0.1", 0)) as far:
        port = far.getsockname()[1]
        script = str(_HERE / "ssh2_bridge.js")
        node = user.start(
            "node", script, "100000", str(port), "dcs-proxy", "'dm-foo'", "22", env=environment
        )
        assert node.stderr is not None
        while (line := node.stderr.readline()) != b"ready\n":
            assert line, "it ended"
        emulator.control("PUT", "machines/dm-foo", phase="running")
        far.settimeout(60)
        connection, _ = far.accept()
        with connection:
            connection.sendall(b"from afar")
        out, errors = node.communicate(timeout=60)
    assert json.loads(out) == {
        "banners": ["dcs-proxy: dm-foo: waking up, at most 300 s\r\n"],
        "exec": ["through", 3],
        "shell": [True, 4],
        "sftp": True,
        "forwardOut": "from afar",
    }, errors
    wait_until_gone(user)


@needs_ssh2
@pytest.mark.parametrize("is_warm", [False, True])
@pytest.mark.client("VS Code Agents window: its ssh -G, ssh2", "works")
def test_the_agents_window_takes_our_proxy_command_from_ssh(
    start_emulator: Start, user: User, is_warm: bool
) -> None:
    """As microsoft/vscode, sshProxyCommand.ts: ``ssh -G``, then its ProxyCommand through a shell.

    Versions of summer 2026 connected to the name itself (issue 313164).
    """
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1")
    user.use(emulator)
    if is_warm:  # then ssh -G says the session's login
        assert user.ssh("dm-foo", "true").returncode == 0
    lines = user.ssh("-G", "dm-foo").stdout.splitlines()
    assert len(emulator.creates()) == is_warm, "ssh -G wakes nothing"
    options = dict(line.split(" ", 1) for line in lines if " " in line)
    command = options["proxycommand"]
    for token, value in (("%r", options["user"]), ("%h", "dm-foo"), ("%p", options["port"])):
        command = command.replace(token, value)
    with socket.create_server(("127.0.0.1", 0)) as far:
        script = [str(_HERE / "ssh2_bridge.js"), "30000", str(far.getsockname()[1])]
        environment = {**user.environment, "NODE_PATH": str(_NODE_MODULES)}
        node = user.start("node", *script, "sh", "-c", command, env=environment)
        far.settimeout(60)
        far.accept()[0].close()
        out, errors = node.communicate(timeout=60)
    assert json.loads(out)["exec"] == ["through", 3], errors
    assert len(emulator.creates()) == 1
    wait_until_gone(user)


@needs("dbclient")
@pytest.mark.client("dbclient", ONE_LINE)
def test_dbclient_runs_a_command(place: User) -> None:
    (place.home / ".ssh").mkdir(exist_ok=True)
    shutil.copy(known_hosts(place), place.home / ".ssh" / "known_hosts")
    done = place.run(["dbclient", "-T", "-J", PROXY, "anybody@dm-foo", "cat; exit 3"], input="in\n")
    assert (done.returncode, done.stdout) == (3, "in\n"), done.stderr
    # It asks on a terminal, or else on stdin.
    stranger = place.run(
        ["dbclient", "-T", "-J", PROXY, "anybody@dm-bar", "true"],
        input="n\n", start_new_session=True,
    )  # fmt: skip
    assert stranger.returncode == 1 and "not in the trusted hosts" in stranger.stderr


def putty_options(user: User) -> list[str]:
    """Return what PuTTY's programs have in common; they know no known_hosts file."""
    listed = succeed(user, ["ssh-keygen", "-lf", known_hosts(user)])
    fingerprints = [line.split()[1] for line in listed.splitlines() if "ED25519" in line]
    return ["-batch", "-proxycmd", PROXY, "-hostkey", fingerprints[0]]


@needs("plink")
@pytest.mark.client("plink", ONE_LINE)
def test_plink_runs_a_command(place: User) -> None:
    command = ["plink", *putty_options(place), "anybody@dm-foo", "cat; exit 3"]
    done = place.run(command, input="in\n")
    assert (done.returncode, done.stdout) == (3, "in\n"), done.stderr


@needs("pscp")
@pytest.mark.client("pscp", ONE_LINE)
def test_pscp_copies_files(place: User) -> None:
    data = os.urandom(1_000_000)
    (place.root / "file").write_bytes(data)
    copy = ["pscp", "-q", *putty_options(place)]
    succeed(place, [*copy, "file", "anybody@dm-foo:copy"])
    succeed(place, [*copy, "anybody@dm-foo:copy", "back"])
    assert (place.root / "back").read_bytes() == data


@needs("psftp")
@pytest.mark.client("psftp", ONE_LINE)
def test_psftp_copies_files(place: User) -> None:
    data = os.urandom(1_000_000)
    (place.root / "file").write_bytes(data)
    (place.root / "batch").write_text("put file copy\nget copy back\n")
    succeed(place, ["psftp", *putty_options(place), "-b", "batch", "anybody@dm-foo"])
    assert (place.root / "back").read_bytes() == data


@needs("java", "javac")
@pytest.mark.skipif(
    not (_JSCH.exists() and shutil.which("java")),
    reason="JSch or Java is not installed (libjsch-java, default-jre-headless)",
)
@pytest.mark.client("JSch", ONE_LINE)
def test_jsch_runs_a_command_and_copies_files(place: User) -> None:
    program = ["java", "-cp", str(_JSCH), str(_HERE / "Jsch.java")]
    done = place.run([*program, known_hosts(place), *PROXY.split()])
    assert (done.returncode, done.stdout) == (0, "through\nstatus 3\ncopied true\n"), done.stderr
