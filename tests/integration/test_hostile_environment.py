"""Variables that name what other users own, or what is in the current directory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.emulator import Emulator
from tests.support.fake_agent import socket_directory
from tests.support.user import User
from tests.support.waiting import wait_until

Start = Callable[..., Emulator]
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")

STRANGER = 65534
# A bus of another user, which answers whatever it is asked, and writes down what it hears.
BUS = """
import os, socket, sys
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[3]))
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1].replace("@", "\\0"))
listener.listen()
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    connection.settimeout(10)
    heard = connection.recv(65536)
    with open(sys.argv[2], "ab") as file:
        file.write(heard.hex().encode() + b"\\n")
    connection.close()
"""


@pytest.fixture
def tls(start_emulator: Start, user: User, tmp_path: Path) -> Path:
    """The file with the authority of an API with TLS, which a variable of the user's names."""
    authority = tmp_path / "tls.pem"
    emulator = start_emulator("--machine", "dm-foo", "--tls", str(authority))
    user.environment["REQUESTS_CA_BUNDLE"] = str(authority)
    user.use(emulator)
    return authority


@pytest.mark.parametrize("kind", ["file", "fifo", "directory"])
def test_the_secrets_of_tls_are_written_nowhere(
    tls: Path, user: User, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "secrets"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    user.environment["SSLKEYLOGFILE"] = str(path)
    done = user.proxy("list", timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    if kind == "file":
        assert not path.exists()


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_authorities_of_others_are_not_believed(
    tls: Path, user: User, tmp_path: Path, variable: str
) -> None:
    del user.environment["REQUESTS_CA_BUNDLE"]
    directory = tmp_path / "authorities"
    directory.mkdir()
    (directory / "0a1b2c3d.0").write_bytes(tls.read_bytes())
    for path, place in ((tls, tls), (directory, directory), (directory, directory / "0a1b2c3d.0")):
        user.environment[variable] = str(path)
        place.chmod(place.stat().st_mode | 0o022)
        done = user.proxy("list")
        assert done.returncode == 3
        assert f"{variable} names {path}, which is not trusted: " in done.stderr
        assert f"{place} is writable by other users" in done.stderr
        place.chmod(place.stat().st_mode & ~0o022)
        if os.geteuid() == 0:
            os.chown(place, STRANGER, STRANGER)
            done = user.proxy("list")
            assert done.returncode == 3
            assert f"{place} belongs to another user" in done.stderr
            os.chown(place, 0, 0)
    user.environment[variable] = str(tls)
    assert user.proxy("list").returncode == 0


def test_the_current_directory_holds_no_settings(
    start_emulator: Start, user: User, tmp_path: Path
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    here = tmp_path / "repository"
    (here / "dcs-proxy").mkdir(parents=True)
    (here / "dcs-proxy" / "config.toml").write_text("not a config file\n")
    (here / "python_keyring").mkdir()
    (here / "python_keyring" / "keyringrc.cfg").write_text(
        "[backend]\ndefault-keyring=trap.Trap\nkeyring-path=.\n"
    )
    (here / "trap.py").write_text("open('mark', 'w')\n")
    del user.environment["DCS_PROXY_CONFIG"]
    user.environment["XDG_CONFIG_HOME"] = "."
    assert user.proxy("list", cwd=here).returncode == 0
    del user.environment["DEDALUS_API_KEY"]
    # As the installed program is started: with -m, Python itself looks in the current directory.
    program = str(Path(sys.executable).with_name("dcs-proxy"))
    done = user.run([program, "list"], cwd=here)
    assert "there is no API key" in done.stderr
    assert not (here / "mark").exists()


@pytest.mark.parametrize("home", [".", "~", "", None])
def test_the_current_directory_is_nobodys_home(
    start_emulator: Start, user: User, tmp_path: Path, home: str | None
) -> None:
    """HOME is relative; or missing, for a user who is not in the user database."""
    user.use(start_emulator("--machine", "dm-foo"))
    here = tmp_path / "repository"
    for base in (here, here / "~"):
        (base / ".config" / "dcs-proxy").mkdir(parents=True)
        (base / ".config" / "dcs-proxy" / "config.toml").write_text("not a config file\n")
        (base / ".config" / "python_keyring").mkdir()
        (base / ".config" / "python_keyring" / "keyringrc.cfg").write_text(
            f"[backend]\ndefault-keyring=trap.Trap\nkeyring-path={here}\n"
        )
    (here / "trap.py").write_text("open('mark', 'w')\n")
    program = [str(Path(sys.executable).with_name("dcs-proxy"))]
    number = 1_000_000 + os.getpid()
    if home is None:
        del user.environment["HOME"]
        program = ["unshare", "--user", f"--map-user={number}", "--map-group=0", *program]
    else:
        user.environment["HOME"] = home
    for name in ("DCS_PROXY_CONFIG", "DEDALUS_API_KEY"):
        del user.environment[name]
    done = user.run([*program, "list"], cwd=here)
    assert "there is no API key" in done.stderr
    assert not (here / "mark").exists()
    assert sorted(os.listdir(here)) == [".config", "trap.py", "~"]


@pytest.mark.parametrize("place", ["keyringrc.cfg", "python_keyring"])
def test_others_do_not_choose_the_keyring(user: User, place: str) -> None:
    directory = user.home / ".config" / "python_keyring"
    directory.mkdir(parents=True)
    chosen = directory / "keyringrc.cfg"
    mark = user.root / "mark"
    (directory / "trap.py").write_text(f"open({str(mark)!r}, 'w')\n")
    chosen.write_text(f"[backend]\ndefault-keyring=trap.Trap\nkeyring-path={directory}\n")
    wrong = chosen if place == chosen.name else directory
    wrong.chmod(0o777)
    done = user.proxy("list")
    assert done.returncode == 4
    assert f"{chosen} is not trusted" in done.stderr or f"{chosen} is writable" in done.stderr
    assert "chmod go-w" in done.stderr
    assert not mark.exists()
    wrong.chmod(0o700)
    assert user.proxy("list").returncode == 4
    assert mark.exists(), "it would do harm"


@only_root
@pytest.mark.parametrize("kind", ["path", "abstract", "link"])
def test_a_bus_of_another_user_is_told_nothing(user: User, kind: str) -> None:
    with socket_directory() as directory:
        os.chmod(directory, 0o1777)
        path = f"{directory}/bus"
        heard = Path(directory) / "heard"
        words = [f"@{path}" if kind == "abstract" else path, str(heard), str(STRANGER)]
        bus = subprocess.Popen([sys.executable, "-c", BUS, *words], stdout=subprocess.PIPE)
        try:
            assert bus.stdout and bus.stdout.readline() == b"ready\n"
            if kind == "link":
                os.symlink(path, f"{directory}/link")
                path = f"{directory}/link"
            address = f"unix:{'abstract' if kind == 'abstract' else 'path'}={path},guid=00"
            user.environment["DBUS_SESSION_BUS_ADDRESS"] = address
            for words in (["list"], ["logout"], ["login"], ["doctor"]):
                done = user.proxy(*words)
                said = done.stdout + done.stderr
                assert "DBUS_SESSION_BUS_ADDRESS" in said, words
                assert f"belongs to another user (user id {STRANGER})" in said
            # It may be connected to, to see whose it is.
            wait_until(lambda: kind != "abstract" or heard.exists())
            assert not heard.exists() or set(heard.read_text().splitlines()) == {""}
        finally:
            bus.kill()
            bus.communicate()


IN_REMOVED = """
import os, sys
os.mkdir("removed")
os.chdir("removed")
os.rmdir("../removed")
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_current_directory_that_was_removed_is_named_if_it_matters(
    start_emulator: Start, user: User
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    program = str(Path(sys.executable).with_name("dcs-proxy"))
    removed = [sys.executable, "-c", IN_REMOVED, program]
    assert user.run([*removed, "list"]).returncode == 0
    for words, variables in (
        (["config-ssh", "--ssh-config", "config"], {}),
        (["doctor", "--ssh-config", "config"], {}),
        (["uninstall", "--ssh-config", "config"], {}),
        (["--home", "state", "list"], {}),
        (["--config", "x.toml", "status"], {}),
        (["status"], {"DCS_PROXY_HOME": "state"}),
        (["status"], {"DCS_PROXY_CONFIG": "x.toml"}),
    ):
        done = user.run([*removed, *words], env={**user.environment, **variables})
        assert done.returncode == 2, done.stderr
        assert "is relative to the current directory, which was removed" in done.stderr
        assert done.stderr.count("\n") == 2


# Programs that ssh, git and others start where these variables say so.
_STARTED = (
    "SSH_ASKPASS", "SUDO_ASKPASS", "GIT_ASKPASS", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_PROXY_COMMAND",
    "GIT_EDITOR", "EDITOR", "VISUAL", "PAGER", "GIT_PAGER", "MANPAGER", "BROWSER", "LESSOPEN",
    "SSH_SK_PROVIDER", "SSH_SK_HELPER", "SSH_PKCS11_HELPER",
)  # fmt: skip
_ODD = {
    "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":99", "WAYLAND_DISPLAY": "none",
    "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.sshCommand", "GIT_CONFIG_VALUE_0": "false",
    "IFS": "/-.dcs", "TERM": "../../x\x1b]52;c;eA==\x07", "COLUMNS": "-1", "LINES": "x",
    "LC_ALL": "../../x", "LANGUAGE": "tr", "TMPDIR": "/nowhere", "TZ": "../../../etc/passwd",
    "PYTHONIOENCODING": "utf-16", "PYTHONWARNINGS": "error", "PYTHONUTF8": "x",
    "CDPATH": "/", "POSIXLY_CORRECT": "1", "ENV": "/nowhere", "PS4": "$(exit 1)",
}  # fmt: skip


def test_odd_variables_start_nothing_and_change_nothing(
    start_emulator: Start, user: User, tmp_path: Path
) -> None:
    """PYTHONUTF8 alone would end every Python that has not got -I."""
    user.use(start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1"))
    trap, mark = tmp_path / "trap", tmp_path / "mark"
    trap.write_text(f"#!/bin/sh\necho $0 $* >>'{mark}'\n")
    trap.chmod(0o755)
    user.environment.update({name: str(trap) for name in _STARTED}, **_ODD)
    done = user.ssh("dm-foo", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    # Python itself ends with an unusable PYTHONUTF8 where a user types the command.
    del user.environment["PYTHONUTF8"], user.environment["PYTHONIOENCODING"]
    config = ("--ssh-config", str(user.config))
    for words in (
        ("doctor", *config, "dm-foo"), ("config-ssh", *config), ("list",), ("status",),
        ("log",), ("close", "dm-foo"), ("config-ssh", *config, "--remove"),
    ):  # fmt: skip
        done = user.proxy(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        assert "\x1b" not in done.stdout + done.stderr
    assert not mark.exists(), mark.read_text()
