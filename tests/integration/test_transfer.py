"""Everything that rides on ssh: copies, clones, forwardings, terminals, shared connections.

Each is done with the socket handed over, by relay, and against a real sshd.
"""

from __future__ import annotations

import filecmp
import os
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dcs_proxy.emulator.loopback import closed_port
from tests.support.emulator import Emulator
from tests.support.sshd import authorised_sshd
from tests.support.user import User
from tests.support.waiting import connects, wait_until

Start = Callable[..., Emulator]


class Place:
    """A user, a running machine, and the machine's home directory."""

    def __init__(self, user: User, machine_home: Path, options: list[str], where: str) -> None:
        self.user = user
        self.remote = machine_home
        self.options = options
        self.where = where

    def at(self, name: str) -> str:
        """Return how a file on the machine is named."""
        return f"dm-foo:{self.where}{name}"

    def run(self, program: str, *arguments: str) -> str:
        """Run scp, sftp or ssh with the user's config; return its output."""
        command = [program, "-F", str(self.user.config), *self.options, *arguments]
        done = self.user.run(command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def rsh(self) -> str:
        return " ".join(["ssh", "-F", f"'{self.user.config}'", *self.options])


@pytest.fixture(params=["handover", "relay", "sshd"])
def place(
    request: pytest.FixtureRequest, start_emulator: Start, user: User, tmp_path: Path
) -> Iterator[Place]:
    home = tmp_path / "machines" / "dm-foo"
    if request.param == "sshd":
        # Its home is the tester's own: files are named by their whole path.
        home.mkdir(parents=True)
        with authorised_sshd(tmp_path) as (_, arguments):
            user.use(start_emulator("--machine", "dm-foo", *arguments))
            yield Place(user, home, [], f"{home}/")
        return
    user.use(start_emulator("--machine", "dm-foo", "--home", str(home.parent)))
    options = ["-o", "ProxyUseFdpass=no"] if request.param == "relay" else []
    yield Place(user, home, options, "")


def write_noise(path: Path, megabytes: int) -> None:
    noise = random.Random(1)
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(noise.randbytes(1 << 20))


def assert_same_tree(one: Path, other: Path) -> None:
    compared = filecmp.dircmp(one, other)
    assert not compared.left_only
    assert not compared.right_only
    _, different, failed = filecmp.cmpfiles(one, other, compared.common_files, shallow=False)
    assert not different
    assert not failed
    for name in compared.common_dirs:
        assert_same_tree(one / name, other / name)


@pytest.mark.client("scp", "works")
@pytest.mark.client("scp: -O", "works")
@pytest.mark.parametrize("protocol", [[], ["-O"]], ids=["sftp", "rcp"])
def test_scp_copies_both_ways(place: Place, tmp_path: Path, protocol: list[str]) -> None:
    write_noise(tmp_path / "file", 3)
    place.run("scp", *protocol, "-q", str(tmp_path / "file"), place.at("copy"))
    place.run("scp", *protocol, "-q", place.at("copy"), str(tmp_path / "back"))
    assert filecmp.cmp(tmp_path / "file", place.remote / "copy", shallow=False)
    assert filecmp.cmp(tmp_path / "file", tmp_path / "back", shallow=False)


@pytest.mark.client("sftp", "works")
def test_sftp_runs_a_batch(place: Place, tmp_path: Path) -> None:
    write_noise(tmp_path / "file", 1)
    batch = tmp_path / "batch"
    batch.write_text(
        f'cd "{place.remote}"\nmkdir d\n'
        f'put "{tmp_path}/file" d/f\nget d/f "{tmp_path}/back"\nls d\n'
    )
    place.remote.mkdir(parents=True, exist_ok=True)
    assert "f" in place.run("sftp", "-q", "-b", str(batch), "dm-foo")
    assert filecmp.cmp(tmp_path / "file", tmp_path / "back", shallow=False)


@pytest.mark.client("rsync", "works")
def test_rsync_copies_a_thousand_files(place: Place, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(1000):
        file = tree / str(number % 10) / f"file {number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(random.Random(number).randbytes(number))
    for source, target in ((f"{tree}/", place.at("tree")), (place.at("tree/"), f"{tmp_path}/back")):
        done = place.user.run(["rsync", "-a", "-e", place.rsh, source, target])
        assert done.returncode == 0, done.stderr
    assert_same_tree(tree, place.remote / "tree")
    assert_same_tree(tree, tmp_path / "back")


@pytest.mark.client("rsync", "works")
def test_rsync_copies_200_megabytes(place: Place, tmp_path: Path) -> None:
    write_noise(tmp_path / "large", 200)
    done = place.user.run(["rsync", "-a", "-W", "-e", place.rsh, f"{tmp_path}/large", place.at("")])
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(tmp_path / "large", place.remote / "large", shallow=False)


@pytest.mark.client("git: clone", "works")
def test_git_clones(place: Place, tmp_path: Path) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    place.run("ssh", "dm-foo", "true")
    for command in (
        [*git, "init", "-q", str(place.remote / "repo")],
        [*git, "-C", str(place.remote / "repo"), "commit", "-q", "--allow-empty", "-m", "first"],
        ["env", f"GIT_SSH_COMMAND={place.rsh}", "git", "clone", "-q", place.at("repo"),
         str(tmp_path / "clone")],
    ):  # fmt: skip
        done = place.user.run(command)
        assert done.returncode == 0, done.stderr
    log = place.user.run(["git", "-C", str(tmp_path / "clone"), "log", "--format=%s"])
    assert log.stdout == "first\n"


@pytest.mark.client("ssh: -L", "works")
def test_a_local_port_is_forwarded(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as far:
        port = closed_port()
        ssh = place.user.start_ssh(
            *place.options, "-N", "-L", f"127.0.0.1:{port}:127.0.0.1:{far.getsockname()[1]}",
            "dm-foo",
        )  # fmt: skip
        near = wait_until(lambda: connects(port))
        other, _ = far.accept()
        near.sendall(b"ping")
        assert other.recv(4) == b"ping"
        near.close()
        other.close()
        # Not by SIGTERM: ssh 9.2 misses one that comes just before it waits.
        ssh.kill()
        ssh.wait()


@pytest.mark.client("ssh: -D", "works")
def test_a_socks_proxy_is_offered(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as far:
        port = closed_port()
        ssh = place.user.start_ssh(*place.options, "-N", "-D", f"127.0.0.1:{port}", "dm-foo")
        near = wait_until(lambda: connects(port))
        # SOCKS5 (RFC 1928): no authentication, CONNECT to an IPv4 address.
        near.sendall(b"\x05\x01\x00")
        assert near.recv(2) == b"\x05\x00"
        target = socket.inet_aton("127.0.0.1") + far.getsockname()[1].to_bytes(2, "big")
        near.sendall(b"\x05\x01\x00\x01" + target)
        assert near.recv(10)[1] == 0
        other, _ = far.accept()
        near.sendall(b"ping")
        assert other.recv(4) == b"ping"
        near.close()
        other.close()
        # Not by SIGTERM: ssh 9.2 misses one that comes just before it waits.
        ssh.kill()
        ssh.wait()


@pytest.mark.client("ssh", "works")
def test_a_terminal_is_a_terminal(place: Place) -> None:
    assert "/dev/" in place.run("ssh", "-tt", "dm-foo", "tty")


@pytest.mark.client("ssh: ControlMaster", "works")
def test_a_connection_is_shared_and_persists(place: Place) -> None:
    path = f'"{place.user.root}/%C"'
    shared = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", f"ControlPath={path}"]
    place.run("ssh", *shared, "dm-foo", "true")
    checked = place.user.ssh(*place.options, *shared, "-O", "check", "dm-foo")
    assert "Master running" in checked.stderr
    assert place.run("ssh", *shared, "dm-foo", "echo second") == "second\n"
    place.run("ssh", *shared, "-q", "-O", "exit", "dm-foo")


@pytest.mark.client("ssh", "works")
def test_input_ends_before_output(place: Place, tmp_path: Path) -> None:
    write_noise(tmp_path / "file", 20)
    with (tmp_path / "file").open("rb") as file, (tmp_path / "out").open("wb") as out:
        done = place.user.ssh(
            *place.options, "dm-foo", "cat; echo end", stdin=file, stdout=out, text=False
        )
    assert done.returncode == 0
    expected = (tmp_path / "file").read_bytes() + b"end\n"
    assert (tmp_path / "out").read_bytes() == expected
    assert os.path.getsize(tmp_path / "out") == len(expected)
