"""What OpenSSH itself can do with a machine, beyond a login: jumps, forwardings, shared masters."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.programs import GIT, Start, needs, plain_sshd, succeed
from tests.support.keys import line_of, make_key
from tests.support.sshd import Sshd, authorised_sshd
from tests.support.user import User, insert_between_blocks
from tests.support.waiting import wait_until


@pytest.fixture(params=["gateway", "sshd"])
def either(
    request: pytest.FixtureRequest, start_emulator: Start, user: User, tmp_path: Path
) -> Iterator[User]:
    """A user whose machine dm-foo is behind the emulator's gateway, or behind a real sshd."""
    # ssh hands the config's name on to its jump unquoted.
    user.config = tmp_path / "ssh_config"
    if request.param == "gateway":
        yield user.use(start_emulator("--machine", "dm-foo"))
        return
    with authorised_sshd(tmp_path) as (_, arguments):
        yield user.use(start_emulator("--machine", "dm-foo", *arguments))


@pytest.mark.client("scp: -3, between two machines", "works")
def test_scp_copies_from_one_machine_to_another(
    start_emulator: Start, user: User, tmp_path: Path
) -> None:
    emulator = start_emulator(
        "--machine", "dm-foo", "--machine", "dm-bar:sleeping", "--wake-seconds", "1",
        "--home", str(tmp_path / "machines"),
    )  # fmt: skip
    user.use(emulator)
    assert user.ssh("dm-foo", "echo text >file").returncode == 0
    succeed(user, ["scp", "-3", "-q", "-F", str(user.config), "dm-foo:file", "dm-bar:copy"])
    assert (tmp_path / "machines" / "dm-bar" / "copy").read_text() == "text\n"
    assert len(emulator.sessions_created()) == 2


@pytest.mark.client("ssh: -J dm-foo other", "works")
def test_a_machine_is_a_jump_to_the_users_own_server(either: User, tmp_path: Path) -> None:
    with plain_sshd(either, tmp_path) as other:
        done = either.ssh("-v", "-J", "dm-foo", "other", "echo over the jump")
        assert done.stdout == "over the jump\n", done.stderr
        assert "Accepted publickey" in other.said()
        assert "Authenticated to dm-foo" in done.stderr


@pytest.mark.client("ssh: -J other dm-foo", "cannot: the jump takes our ProxyCommand's place")
def test_a_machine_behind_a_jump_is_not_found(either: User, tmp_path: Path) -> None:
    with plain_sshd(either, tmp_path) as other:
        done = either.ssh("-J", "other", "dm-foo", "echo in")
        assert (done.returncode, done.stdout) == (255, "")
        assert done.stderr.startswith(
            "dcs-proxy: dm-foo: ssh is about to connect through other and not through dcs-proxy, "
            "so it cannot reach the machine\n"
            "dcs-proxy: hint: leave out -J, ProxyJump and ProxyCommand\n"
        )
        # The jump asks its own resolver for the machine's name.
        assert "stdio forwarding failed" in done.stderr
        assert "Accepted publickey" in other.said()
        assert either.record("dm-foo") == {}
        # A warm connection is not woken for it, but the reason is the same.
        assert either.ssh("dm-foo", "true").returncode == 0
        done = either.ssh("-o", "ProxyJump=other", "dm-foo", "echo in")
        assert done.returncode == 255 and "through other and not through dcs-proxy" in done.stderr


@pytest.mark.client(
    "ssh: through a hop", 'with: ProxyUseFdpass=no, ProxyCommand="ssh -W GATEWAY:22 other"'
)
def test_a_hop_of_the_users_own_leads_to_the_gateway(either: User, tmp_path: Path) -> None:
    with plain_sshd(either, tmp_path) as other:
        assert either.proxy("prepare", "dm-foo").returncode == 0
        port = either.record("dm-foo")["ready"]["port"]
        hop = f"ssh -F '{either.config}' -W localhost:{port} other"
        done = either.ssh("-o", "ProxyUseFdpass=no", "-o", f"ProxyCommand={hop}",
                          "dm-foo", "echo in")  # fmt: skip
        assert done.stdout == "in\n", done.stderr
        assert "Accepted publickey" in other.said()


@pytest.mark.client("ssh: -W", "works")
def test_a_connection_is_forwarded_to_stdio(either: User) -> None:
    with socket.create_server(("127.0.0.1", 0)) as far:
        ssh = either.start_ssh("-W", f"127.0.0.1:{far.getsockname()[1]}", "dm-foo")
        far.settimeout(60)
        near, _ = far.accept()
        with near:
            near.sendall(b"through\n")
        assert ssh.stdout is not None
        assert ssh.stdout.read() == b"through\n"


@pytest.mark.client("ssh: -A", "works")
@pytest.mark.client("ssh: ForwardAgent yes", "works")
def test_a_push_from_the_machine_is_signed_by_the_users_own_agent(
    either: User, tmp_path: Path
) -> None:
    here, there = tmp_path / "work", tmp_path / "origin.git"
    key = make_key(either.root / "forwarded")
    succeed(either, [*GIT, "init", "-q", "--bare", str(there)])
    succeed(either, [*GIT, "init", "-q", str(here)])
    succeed(either, [*GIT, "-C", str(here), "commit", "-q", "--allow-empty", "-m", "first"])
    either.start_agent()
    with Sshd(tmp_path / "third", authorized_keys=[line_of(key)]) as third:
        succeed(either, ["ssh-add", "-q", str(key)])
        ssh = "ssh -F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"

        def push(branch: str, *options: str) -> bool:
            command = (
                f"cd '{here}' && GIT_SSH_COMMAND='{ssh} -p {third.port}' "
                f"git push -q '127.0.0.1:{there}' HEAD:{branch}"
            )
            return either.ssh(*options, "dm-foo", command).returncode == 0

        assert not push("none")
        assert push("by-option", "-A")
        insert_between_blocks(either.config, "Host dm-*\n    ForwardAgent yes\n")
        assert push("by-config")
    branches = succeed(either, ["git", "-C", str(there), "branch", "--format=%(refname:short)"])
    assert branches.split() == ["by-config", "by-option"]


def connected(path: Path) -> socket.socket | None:
    """Return a connection to a Unix socket, None if nobody listens yet."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        return None
    sock.settimeout(60)
    return sock


@pytest.mark.client("ssh: -L and -R of Unix sockets", "works")
@pytest.mark.parametrize("way", ["-L", "-R"])
def test_a_unix_socket_is_forwarded(either: User, way: str) -> None:
    near, far = either.root / "near", either.root / "far"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(far))
        listener.listen()
        listener.settimeout(60)
        ssh = either.start_ssh("-N", way, f"{near}:{far}", "dm-foo")
        with wait_until(lambda: connected(near)) as one, listener.accept()[0] as other:
            one.sendall(b"ping")
            assert other.recv(4) == b"ping"
            other.sendall(b"pong")
            assert one.recv(4) == b"pong"
        ssh.kill()
        ssh.wait()


@pytest.mark.client("ssh: ControlMaster beyond the end of its session", "works")
@pytest.mark.parametrize(("name", "logins"), [("%n", 1), ("%C", 2)])
def test_a_master_outlives_its_session_under_a_name_without_the_login(
    start_emulator: Start, user: User, name: str, logins: int
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    user.settings("reuse_seconds = 0\n")
    shared = ("-o", "ControlMaster=auto", "-o", "ControlPersist=60",
              "-o", f'ControlPath="{user.root}/{name}.master"')  # fmt: skip

    def run(command: str) -> str:
        # A master holds on to our stderr: a pipe would not end before it does.
        return user.ssh(*shared, "dm-foo", command, stderr=None).stdout

    def end_masters(count: int) -> None:
        paths = list(user.root.glob("*.master"))
        assert len(paths) == count
        for path in paths:
            assert user.ssh("-S", str(path), "-O", "exit", "dm-foo").returncode == 0

    assert run("echo one") == "one\n"
    emulator.control("POST", "machines/dm-foo/close-sessions")
    assert run("echo two") == "two\n"
    # %C holds the login, which is the session's: the next session has a master of its own.
    assert len(emulator.events(event="login")) == logins
    end_masters(logins)
    assert run("echo three") == "three\n"
    assert len(emulator.events(event="login")) == logins + 1
    assert len(emulator.sessions_created()) == 2
    end_masters(1)


@needs("tmux")
@pytest.mark.client("ssh: in a tmux whose agent has gone", "works")
@pytest.mark.parametrize("option", ["-a", "-A"])
def test_an_agent_that_has_gone_does_not_matter(
    start_emulator: Start, user: User, option: str
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    agent = Path(user.start_agent())
    user.environment["TMUX_TMPDIR"] = str(user.root)
    tmux = ("tmux", "-f", "/dev/null")
    succeed(user, [*tmux, "new-session", "-d", "-x", "200"])
    try:
        user.programs[-1].kill()
        user.programs[-1].wait()
        agent.unlink(missing_ok=True)
        ssh = f"ssh -F '{user.config}' {option} dm-foo 'echo in; ssh-add -l || echo no agent'"
        succeed(user, [*tmux, "send-keys", f"{ssh} >said 2>&1; echo >>said ended $?", "Enter"])
        said = user.root / "said"
        wait_until(lambda: said.exists() and "ended" in said.read_text())
    finally:
        succeed(user, [*tmux, "kill-server"])
    assert {"in", "no agent", "ended 0"} <= set(said.read_text().splitlines())
