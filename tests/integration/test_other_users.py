"""Files and directories of other users, which could decide for this one.

The agent of another user is in test_agent_of_others.py, a config file in test_secrets.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dcs_proxy.api.credentials import remove_key_file, write_key_file
from dcs_proxy.errors import ConfigError, CredentialsError, StateError
from dcs_proxy.local.files import check_private_directory, make_private_directory
from dcs_proxy.local.trusted_file import read_trusted
from dcs_proxy.openssh.config_file import edit
from tests.support.emulator import Emulator
from tests.support.user import User

Start = Callable[..., Emulator]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")

STRANGER = 65534
# What another user does where the parent of the state directory lets them.
REPLACE = """
import os, sys
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
os.rename(sys.argv[1], sys.argv[1] + ".old")
os.mkdir(sys.argv[1], 0o777)
os.mkfifo(sys.argv[1] + "/log", 0o666)
"""


def test_a_state_directory_that_another_user_could_replace_is_refused(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.state = user.root / "shared" / "state"
    user.environment["DCS_PROXY_HOME"] = str(user.state)
    user.use(emulator)
    user.state.parent.chmod(0o777)
    user.root.chmod(0o711)
    done = user.ssh("dm-foo", "true")
    assert done.returncode == 255
    assert f"{user.state.parent} is writable by other users" in done.stderr
    assert f"chmod go-w '{user.state.parent}'" in done.stderr
    assert not emulator.creates()
    # And rightly so.  The other user's log may be a FIFO, which would keep the writer waiting.
    subprocess.run([sys.executable, "-c", REPLACE, str(user.state), str(STRANGER)], check=True)
    done = user.proxy("prepare", "dm-foo")
    assert done.returncode != 0
    assert "belongs to another user" in done.stderr
    assert os.listdir(user.state) == ["log"]
    assert (user.state / "log").is_fifo()
    user.state.parent.chmod(0o700)
    user.state = user.state.with_name("state.old")


def test_a_directory_for_sockets_that_another_user_has_made_first_is_refused(user: User) -> None:
    # In the place of the user's number, so that no other test and no real user meets it.
    number = 1_000_000 + os.getpid()
    taken = Path(f"/tmp/dcs-proxy-{number}")
    taken.mkdir(mode=0o777)
    try:
        os.chown(taken, STRANGER, STRANGER)
        state = user.root / ("x" * 100)
        done = user.run(
            ["unshare", "--user", f"--map-user={number}", "--map-group=0",
             sys.executable, "-m", "dcs_proxy", "--home", str(state), "status"],
        )  # fmt: skip
        assert done.returncode != 0, done.stdout
        assert f"{taken} belongs to another user" in done.stderr
        assert f"sudo rm -r {taken}" in done.stderr
        assert os.listdir(taken) == []
    finally:
        taken.rmdir()


def test_an_ssh_config_of_another_user_is_reported(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    os.chown(user.config, STRANGER, STRANGER)
    said = f"{user.config} belongs to another user"
    written = user.proxy("config-ssh", "--ssh-config", str(user.config))
    assert f"{said} (user id {STRANGER}), so ssh will refuse it" in written.stderr
    assert user.config.stat().st_uid == STRANGER
    checked = user.proxy("doctor", "--ssh-config", str(user.config))
    assert checked.returncode == 1
    assert said in checked.stdout


@pytest.mark.parametrize("what", ["link", "directory", "file"])
@pytest.mark.parametrize("option", [[], ["--remove"], ["--dry-run"]])
def test_an_ssh_config_that_another_user_chooses_is_not_edited(
    start_emulator: Start, user: User, what: str, option: list[str]
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    shared, chosen = user.root / "shared", user.root / "chosen"
    shared.mkdir()
    shared.chmod(0o1777)
    chosen.mkdir()
    (chosen / "config").write_text("Host mine\n")
    path = shared / what
    if what == "link":
        path.symlink_to(chosen / "config")
    elif what == "directory":
        path.symlink_to(chosen)
        path = path / "config"
    else:
        path.write_text("Host mine\n")
    os.chown(shared / what, STRANGER, STRANGER, follow_symlinks=False)
    done = user.proxy("config-ssh", "--ssh-config", str(path), *option)
    assert done.returncode == 3, done.stderr
    assert f"{shared / what} belongs to another user (user id {STRANGER})" in done.stderr
    assert (chosen / "config").read_text() == "Host mine\n"
    assert path.read_text() == "Host mine\n"
    # Our own link there is followed.
    os.chown(shared / what, 0, 0, follow_symlinks=False)
    assert user.proxy("config-ssh", "--ssh-config", str(path)).returncode == 0
    assert "dcs-proxy top" in path.read_text() and path.is_symlink() == (what == "link")


@pytest.mark.parametrize("mode", [0o606, 0o644])
def test_no_command_of_an_ssh_config_that_others_can_change_is_run(
    start_emulator: Start, user: User, mode: int
) -> None:
    user.use(start_emulator("--machine", "dm-foo"), config=False)
    mark = user.root / "mark"
    user.config.write_text(f"Match exec \"touch '{mark}'\"\n    Compression yes\n")
    user.config.chmod(mode)
    if mode == 0o644:
        os.chown(user.config, STRANGER, STRANGER)
    done = user.proxy("config-ssh", "--ssh-config", str(user.config))
    assert done.returncode == 0 and "so ssh will refuse it" in done.stderr
    checked = user.proxy("doctor", "--ssh-config", str(user.config), "dm-foo")
    assert checked.returncode == 1 and "so ssh refuses it" in checked.stdout
    shared = user.root / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    user.config.chmod(0o600)
    os.chown(user.config, 0, 0)
    (shared / "link").symlink_to(user.config)
    os.chown(shared / "link", STRANGER, STRANGER, follow_symlinks=False)
    checked = user.proxy("doctor", "--json", "--ssh-config", str(shared / "link"), "dm-foo")
    checks = {check["name"]: check for check in json.loads(checked.stdout)["checks"]}
    assert "link belongs to another user" in checks["ssh-config"]["text"]
    assert not mark.exists()


# Another user, who puts a link in the place of what somebody makes there, or a directory, and takes
# it away again, without end.
SWAP = """
import os, sys
path, target = sys.argv[1:3]
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[3]))
print("ready", flush=True)
while True:
    for put, take in ((os.symlink, os.unlink), (lambda _, path: os.mkdir(path), os.rmdir)):
        try:
            put(target, path)
            take(path)
        except OSError:
            pass
"""
# Of the tries that were refused; until then the other user has had hardly any time.
_RACES = 50


@contextlib.contextmanager
def swapping(path: Path, target: Path) -> Iterator[None]:
    """Let another user put a link to `target` at `path`, and remove it, all the time."""
    other = subprocess.Popen(
        [sys.executable, "-c", SWAP, path, target, str(STRANGER)], stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline()
        try:
            yield
        finally:
            other.kill()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A sticky directory like /tmp, in which another user changes ``state`` all the time.

    The link leads to a directory of our own, so that all looks right at the other end.
    """
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        Path(made).chmod(0o755)
        directory, own = Path(made) / "shared", Path(made) / "own"
        directory.mkdir()
        directory.chmod(0o1777)
        own.mkdir(mode=0o700)
        with swapping(directory / "state", own):
            yield directory


@pytest.mark.parametrize("check", [make_private_directory, check_private_directory])
def test_a_directory_that_another_user_swaps_is_never_taken_for_ours(
    shared: Path, check: Callable[[str], object]
) -> None:
    path = shared / "state"
    refused = 0
    while refused < _RACES:
        try:
            is_ours = check(str(path))
        except StateError:
            refused += 1
            continue
        # Nobody else can remove what is ours from there.
        if check is make_private_directory or is_ours:
            status = path.lstat()
            assert stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            path.rmdir()


def test_a_file_behind_a_link_that_another_user_swaps_is_never_believed(shared: Path) -> None:
    own = shared.parent / "own" / "config.toml"
    own.write_text("of another program")
    refused = 0
    while refused < _RACES:
        try:
            file = read_trusted(f"{shared}/state/config.toml", "the config file", ConfigError)
        except ConfigError:
            refused += 1
        else:
            assert file is None


@pytest.mark.parametrize("name", ["state", "state/config"])
def test_an_ssh_config_that_another_user_swaps_while_it_is_edited_leads_nowhere(
    shared: Path, user: User, name: str
) -> None:
    """The other user's link leads to a directory of ours with our real ssh config."""
    own = shared.parent / "own" / "config"
    own.write_text("Host mine\n")
    path = str(shared / name)
    for _ in range(_RACES):
        with pytest.raises(ConfigError):
            edit(path, lambda old: (old or b"") + b"Host theirs\n")
    for option in ([], ["--dry-run"], ["--remove"]):
        done = user.proxy("config-ssh", "--ssh-config", path, *option)
        assert done.returncode == 3 and "Host mine" not in done.stdout, done
    assert own.read_text() == "Host mine\n"
    assert os.listdir(own.parent) == ["config"]


@pytest.mark.parametrize("use", [remove_key_file, lambda path: write_key_file(path, "dsk-1")])
def test_a_key_file_that_another_user_swaps_for_a_link_leads_nowhere(
    use: Callable[[str], object],
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        Path(made).chmod(0o755)
        shared, precious = Path(made) / "shared", Path(made) / "precious"
        shared.mkdir()
        shared.chmod(0o1777)
        precious.write_text("mine\n")
        with swapping(shared / "api-key", precious):
            for _ in range(_RACES):
                with pytest.raises(CredentialsError):
                    use(str(shared / "api-key"))
        assert precious.read_text() == "mine\n"
