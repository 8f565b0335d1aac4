"""Variables and local files as people have them, met by the real ssh (and by doctor)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.emulator import Emulator
from tests.support.user import User
from tests.support.waiting import LIMIT_S

Start = Callable[..., Emulator]
Call = Callable[..., subprocess.CompletedProcess[str]]
Meet = Callable[[str, str], None]


@pytest.fixture
def tls(start_emulator: Start, user: User, tmp_path: Path) -> Emulator:
    """An API with TLS, whose authority is in `tls.pem`."""
    emulator = start_emulator("--machine", "dm-foo", "--tls", str(tmp_path / "tls.pem"))
    user.environment["REQUESTS_CA_BUNDLE"] = str(tmp_path / "tls.pem")
    user.use(emulator)
    return emulator


@pytest.fixture
def meet(user: User, call: Call) -> Meet:
    """Type ssh and `dcs-proxy list`: both name the cause, and neither takes it for a bug."""

    def check(said: str, hint: str) -> None:
        for done in (user.ssh("dm-foo", "true"), call("list")):
            assert done.returncode != 0
            assert said in done.stderr, done.stderr
            assert f"hint: {hint}" in done.stderr, done.stderr
            assert "internal error" not in done.stderr

    return check


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("kind", ["missing", "empty", "unreadable", "text", "broken"])
def test_a_ca_file_that_cannot_be_used_is_named(
    tls: Emulator, user: User, meet: Meet, variable: str, kind: str
) -> None:
    path = user.root / "ca.pem"
    del user.environment["REQUESTS_CA_BUNDLE"]
    user.environment[variable] = str(path)
    problem = {
        "missing": "does not exist",
        "empty": "is empty",
        "unreadable": "cannot be read: ",
        "text": "has no PEM certificate",
        "broken": "has a broken certificate",
    }[kind]
    match kind:
        case "empty":
            path.touch()
        case "unreadable":
            path.symlink_to(path)
        case "text":
            path.write_text("<html>")
        case "broken":
            path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    hint = "see: openssl" if kind == "broken" else f"unset {variable}, or name a file with PEM"
    meet(f"{variable} names {path}, which {problem}", hint)


def test_a_program_without_an_environment_finds_a_companys_authority(
    tls: Emulator, user: User, meet: Meet
) -> None:
    path = user.environment.pop("REQUESTS_CA_BUNDLE")
    meet("presents a TLS certificate that is not trusted\n", "something may be intercepting")
    user.settings(f'ca_file = "{path}"\n')
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"
    # It overrides a variable that names the wrong one.
    user.environment["REQUESTS_CA_BUNDLE"] = str(user.root / "none")
    assert user.proxy("list").returncode == 0
    user.settings(f'ca_file = "{user.root}/none"\n')
    assert (
        f"ca_file in the config file names {user.root}/none, which does not exist"
        in user.proxy("list").stderr
    )


def test_an_authority_of_others_is_named(
    tls: Emulator, user: User, meet: Meet, tmp_path: Path
) -> None:
    from dcs_proxy.emulator.tls import make_context

    path = tmp_path / "other.pem"
    make_context(str(path), "other")
    user.environment["REQUESTS_CA_BUNDLE"] = str(path)
    meet(
        f"presents a TLS certificate that is not trusted by {path} (REQUESTS_CA_BUNDLE)",
        "something may be intercepting",
    )


@pytest.mark.parametrize(
    "url",
    [
        "http://a..b", f"https://{'a' * 64}.example", "https://exam ple.com", "https://b\u00fccher",
        "https://api.example:99999", "https://me:s3cret@api.example", "https://api.example/#x",
        "https://[::1", "https://api.example:port", "//", "https://\udcff.example",
    ],
)  # fmt: skip
def test_an_impossible_base_url_is_named(
    start_emulator: Start, user: User, call: Call, url: str
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    user.environment["DEDALUS_BASE_URL"] = url
    for done in (user.ssh("dm-foo", "true"), call("list"), call("doctor")):
        assert done.returncode != 0
        assert "DEDALUS_BASE_URL must " in done.stderr + done.stdout or (
            "DEDALUS_BASE_URL has an impossible host or port" in done.stderr + done.stdout
        )
        assert "internal error" not in done.stderr + done.stdout
        assert "s3cret" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("variable", "value", "said", "hint"),
    [
        ("ALL_PROXY", "socks5h://localhost:1080", "names a SOCKS proxy, which is not supported",
         "name an HTTP proxy in HTTPS_PROXY"),
        ("https_proxy", "http://me:s3cret#x@localhost:3128",
         "has a user or password with #, / or ?", "for example: export https_proxy="),
        ("HTTPS_PROXY", "http://me:12/s3cret@localhost:3128",
         "has a user or password with #, / or ?", "for example"),
        ("HTTPS_PROXY", "http://local host:3128", "has an impossible host or port", "for example"),
        ("all_proxy", "localhost:port", "has an impossible host or port", "for example"),
        ("HTTPS_PROXY", "gopher://localhost:70", 'must begin with "http://"', "for example"),
    ],
)  # fmt: skip
def test_a_proxy_variable_that_cannot_work_is_named(
    start_emulator: Start, user: User, meet: Meet, variable: str, value: str, said: str, hint: str
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    user.environment["DEDALUS_BASE_URL"] = "https://api.test"
    user.environment[variable] = value
    meet(f"{variable} {said}", hint)
    assert "s3cret" not in user.proxy("list").stderr


def make_odd(path: Path, kind: str) -> str:
    """Put something odd at `path`; return what is said of it."""
    match kind:
        case "fifo":
            os.mkfifo(path, 0o600)
            return "is a FIFO, and nothing was written to it within 10 s"
        case "directory":
            path.mkdir()
            return "is a directory"
        case "socket":
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(os.path.relpath(path))
            return "is a socket"
        case "device":
            path.symlink_to("/dev/zero")
            return "is a device"
        case _:
            with path.open("wb") as file:
                file.truncate(1 << 30)
            path.chmod(0o600)
            return "is larger than 256 KiB"


@pytest.mark.parametrize("kind", ["fifo", "directory", "socket", "device", "huge"])
@pytest.mark.parametrize("which", ["key", "config"])
def test_a_file_that_is_none_is_named(
    start_emulator: Start, user: User, which: str, kind: str
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    path = user.root / "odd"
    said = make_odd(path, kind)
    if which == "key":
        del user.environment["DEDALUS_API_KEY"]
        user.settings(f'key_file = "{path}"\n')
    else:
        (user.root / "config.toml").unlink()
        path.rename(user.root / "config.toml")
        path = user.root / "config.toml"
    done = user.ssh("dm-foo", "true")
    assert done.returncode == 255
    assert f"the {which} file {path} {said}" in done.stderr


def test_a_fifo_of_a_password_manager_is_read(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    del user.environment["DEDALUS_API_KEY"]
    path = user.root / "fifo"
    os.mkfifo(path, 0o600)
    user.settings(f'key_file = "{path}"\n')
    for command in (["ssh", "-F", str(user.config), "dm-foo", "true"],
                    [sys.executable, "-m", "dcs_proxy", "list"]):  # fmt: skip
        writer = user.start("sh", "-c", f'printf %s "{emulator.key}" >"{path}"')
        done = user.run(command)
        assert done.returncode == 0, done.stderr
        assert writer.wait(LIMIT_S) == 0


@pytest.mark.parametrize("way", ["soft", "hard"])
def test_a_low_limit_of_open_files_is_raised_or_named(
    start_emulator: Start, user: User, way: str
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    limit = "ulimit -S -n 20" if way == "soft" else "ulimit -n 20"
    command = ["bash", "-c", f'{limit}; exec "$@"', "bash"]
    done = user.run([*command, "ssh", "-F", str(user.config), "dm-foo", "echo in"])
    if way == "soft":
        assert done.stdout == "in\n", done.stderr
        return
    assert done.returncode == 255
    assert "may open only 20 files (ulimit -n), and dcs-proxy needs 64" in done.stderr
    by_hand = user.run([*command, sys.executable, "-m", "dcs_proxy", "wake", "dm-foo"])
    assert (by_hand.returncode, by_hand.stdout) == (3, "")
    # With 10, dash cannot even open a script; doctor tells.
    command[2] = 'ulimit -n 10; exec "$@"'
    doctor = user.run([*command, sys.executable, "-m", "dcs_proxy", "doctor"])
    assert "may open only 10 files" in doctor.stdout


def test_a_state_directory_on_a_file_system_without_sockets(
    start_emulator: Start, user: User, tmp_path: Path
) -> None:
    server = shutil.which("sftp-server", path="/usr/lib/openssh:/usr/libexec/openssh:/usr/libexec")
    (tmp_path / "far").mkdir()
    user.state.mkdir(mode=0o700)
    script = tmp_path / "server"
    script.write_text(f"#!/bin/sh\nexec {server}\n")
    script.chmod(0o700)
    command = ["sshfs", "-o", f"ssh_command={script}", f"x:{tmp_path}/far", str(user.state)]
    if not server or not shutil.which("sshfs") or subprocess.run(
        command, check=False, capture_output=True
    ).returncode:  # fmt: skip
        pytest.skip("nothing can be mounted here by sshfs: see unit/ssh/test_private_agents")
    try:
        user.environment["XDG_RUNTIME_DIR"] = str(user.root)
        user.use(start_emulator("--machine", "dm-foo"))
        for _ in range(2):
            done = user.ssh("dm-foo", "echo in")
            assert (done.returncode, done.stdout, done.stderr) == (0, "in\n", "")
        status = user.proxy("status").stdout
        assert f"private, {user.root}/dcs-proxy/" in status and "1 identity" in status
        assert user.proxy("close", "--all").returncode == 0
    finally:
        subprocess.run(["fusermount", "-u", str(user.state)], check=True)


READ_ONLY = 'mount --bind "$TMPDIR" "$TMPDIR" && mount -o remount,bind,ro "$TMPDIR" && exec "$@"'


@pytest.mark.parametrize("is_new", [True, False])
def test_what_needs_no_writing_works_on_a_read_only_disk(
    start_emulator: Start, user: User, is_new: bool
) -> None:
    alone = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespace with mounts of its own can be made")
    user.use(start_emulator("--machine", "dm-foo"), config=not is_new)
    if not is_new:
        assert user.ssh("dm-foo", "true").returncode == 0
    for words in ("list", "list --json", "status", "status --json", "alias", "--help", "log",
                  "completion bash", "--version"):  # fmt: skip
        program = [sys.executable, "-m", "dcs_proxy", *words.split()]
        done = user.run([*alone, "sh", "-c", READ_ONLY, "sh", *program])
        assert done.returncode == 0, (words, done.stderr)
        assert "cannot" not in done.stderr
    doctor = user.run([*alone, "sh", "-c", READ_ONLY, "sh", sys.executable, "-m", "dcs_proxy",
                       "doctor", "--ssh-config", str(user.config)])  # fmt: skip
    assert "cannot be written: Read-only file system" in doctor.stdout
    assert " api " in doctor.stdout and "internal error" not in doctor.stdout
