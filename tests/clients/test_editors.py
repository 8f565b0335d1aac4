"""Editors that work on a machine: with the arguments they give OpenSSH, or themselves.

An editor that cannot run here is played: its ssh commands word for word, in its order.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dcs_proxy.emulator.loopback import closed_port
from tests.clients.programs import Start, needs, succeed, wrap_openssh
from tests.support.emulator import Emulator
from tests.support.ssh_config_package import as_editors_read
from tests.support.sshd import authorised_sshd
from tests.support.user import User
from tests.support.waiting import connects, wait_until

vs_code = pytest.mark.client("VS Code: the ssh of Remote-SSH", "works")


# What Remote-SSH sets for each ssh, beside what a desktop start leaves of the environment.
HANDLE = "/run/user/1000/vscode-ssh-askpass.sock"
# As long as the script that Remote-SSH sends to the machine.
SCRIPT = "".join(f"true {number} {'x' * 60}\n" for number in range(3000)) + "echo ready: $((6*7))\n"


class Window:
    """A window of VS Code: an ssh with a SOCKS proxy, and a script that goes in on its stdin.

    The arguments are those in the logs of Remote-SSH, as in microsoft/vscode-remote-release issues
    2072 (with ``bash``), 10651 (with ``sh``) and 11457 (with ``-v``); ``-F`` is what its setting
    ``remote.SSH.configFile`` adds.
    """

    def __init__(self, user: User, log: Path | None = None, shell: str = "bash") -> None:
        """Start ssh; `log` gets what VS Code shows in its panel, ssh's stderr."""
        self.socks = closed_port()
        environment = {**user.environment, "VSCODE_SSH_ASKPASS_HANDLE": HANDLE, "DISPLAY": ":0"}
        with (log or Path(os.devnull)).open("wb") as panel:
            self.ssh = user.start_ssh(
                "-v", "-T", "-D", str(self.socks), "-o", "ConnectTimeout=15", "dm-foo", shell,
                stdin=subprocess.PIPE, stderr=panel, env=environment,
            )  # fmt: skip
        assert self.ssh.stdin is not None and self.ssh.stdout is not None
        self._input, self._output = self.ssh.stdin, self.ssh.stdout

    def run(self, script: str) -> str:
        """Give the shell on the machine one line; return the line it answers with."""
        self.send(f"{script}\n")
        return self.answer()

    def send(self, script: str) -> None:
        """Write lines to the shell's stdin; what an ssh that ends does not take is dropped."""
        with contextlib.suppress(BrokenPipeError):
            self._input.write(script.encode())
            self._input.flush()

    def answer(self) -> str:
        return self._output.readline().decode()

    def reaches(self, far: socket.socket) -> bool:
        """Tell whether a server on the machine answers through the SOCKS proxy (RFC 1928)."""
        with wait_until(lambda: connects(self.socks)) as near:
            near.sendall(b"\x05\x01\x00")
            assert near.recv(2) == b"\x05\x00"
            target = socket.inet_aton("127.0.0.1") + far.getsockname()[1].to_bytes(2, "big")
            near.sendall(b"\x05\x01\x00\x01" + target)
            assert near.recv(10)[1] == 0
            with far.accept()[0] as other:
                other.sendall(b"ping")
                return near.recv(4) == b"ping"


@pytest.fixture(params=["gateway", "sshd"])
def sleeper(
    request: pytest.FixtureRequest, start_emulator: Start, user: User, tmp_path: Path
) -> Iterator[tuple[Emulator, User]]:
    """A user whose machine dm-foo sleeps, behind the emulator's gateway or a real sshd."""
    sleeps = ("--machine", "dm-foo:sleeping", "--wake-seconds", "1")
    with authorised_sshd(tmp_path) as (_, arguments):
        emulator = start_emulator(*sleeps, *(arguments if request.param == "sshd" else ()))
        yield emulator, user.use(emulator)


@vs_code
def test_a_window_runs_its_script_and_reaches_its_server(sleeper: tuple[Emulator, User]) -> None:
    window = Window(sleeper[1])
    assert window.run("uname -s") == "Linux\n"
    with socket.create_server(("127.0.0.1", 0)) as far:
        assert window.reaches(far)
    # The end of its input ends the shell, and with it ssh.
    assert window.ssh.communicate(b"echo last\n") == (b"last\n", None)
    assert window.ssh.returncode == 0


@vs_code
def test_the_panel_tells_what_to_do_until_a_retry_gets_in(
    start_emulator: Start, user: User, tmp_path: Path
) -> None:
    """The first seconds against a machine that wakes for longer than VS Code waits.

    VS Code's timer is played by the test, which ends ssh once the panel has told what to do.
    """
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "600")
    user.use(emulator)
    assert user.run(["ssh", "-V"]).stderr.startswith("OpenSSH_")
    panel = tmp_path / "panel"
    first = Window(user, panel, "sh")
    sent = threading.Thread(target=first.send, args=[SCRIPT])
    sent.start()
    wait_until(lambda: "waking up" in panel.read_text())
    said = [line for line in panel.read_text().splitlines() if line.startswith("dcs-proxy:")]
    assert said == [
        "dcs-proxy: dm-foo: VS Code gives up after 17 s: then press Retry; the wake continues "
        "(to make VS Code wait: dcs-proxy config-ssh --vscode)",
        "dcs-proxy: dm-foo: waking up, at most 300 s",
    ]
    first.ssh.terminate()
    sent.join()
    retry = Window(user, panel, "sh")
    emulator.control("PUT", "machines/dm-foo", phase="running")
    retry.send(SCRIPT)
    assert retry.answer() == "ready: 42\n"
    assert len(emulator.creates()) == 1, "the second ssh resumed the session of the first"
    lines = panel.read_text().splitlines()
    assert not [line for line in lines if "not connected" in line or "hint" in line]


@vs_code
def test_a_list_of_hosts_wakes_nothing_and_asks_the_api_nothing(
    start_emulator: Start, user: User
) -> None:
    """The library of the list runs Match exec itself, for each host, and expands no %h."""
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--machine", "dm-bar:sleeping")
    user.use(emulator)
    before = emulator.events()
    read = as_editors_read(user.config, "dm-foo", "dm-bar", "other")
    for version, found in read.items():
        assert "dm-foo" in found["names"] and "dm-bar" in found["names"], version
        assert found["computed"]["dm-foo"]["HostName"] == "dm-foo", version
    assert emulator.events() == before


@vs_code
def test_windows_that_open_at_once_share_one_session(sleeper: tuple[Emulator, User]) -> None:
    emulator, user = sleeper
    windows = [Window(user) for _ in range(12)]
    assert [window.run("echo $((6*7))") for window in windows] == ["42\n"] * 12
    assert len(emulator.creates()) == 1


@vs_code
def test_a_window_resumes_with_a_new_ssh_before_the_old_one_ends(
    sleeper: tuple[Emulator, User],
) -> None:
    emulator, user = sleeper
    old = Window(user)
    assert old.run("echo old") == "old\n"
    new = Window(user)
    assert new.run("echo new") == "new\n"
    old.ssh.kill()
    old.ssh.wait()
    assert new.run("echo still there") == "still there\n"
    with socket.create_server(("127.0.0.1", 0)) as far:
        assert new.reaches(far)
    assert len(emulator.sessions_created()) == 1


@pytest.mark.client("Zed: its ssh, sftp and scp", "works")
def test_zed_sends_its_server_and_talks_to_it_through_one_master(
    sleeper: tuple[Emulator, User], tmp_path: Path
) -> None:
    """The commands are those of zed-industries/zed, crates/remote/src/transport/ssh.rs."""
    emulator, user = sleeper
    wrap_openssh(user)
    # A name as Zed's temporary directory has: it quotes none.
    socket_path = f"ControlPath={tmp_path}/ssh.sock"
    master = user.start(
        "ssh", "-N", "-o", "ControlPersist=no", "-o", "ControlMaster=yes", "-o", socket_path,
        "dm-foo",
    )  # fmt: skip
    # Zed takes the end of the master's output for its being connected: nobody may hold it open.
    assert master.stdout is not None
    assert master.stdout.read() == b""
    assert master.poll() is None
    shared = ["-o", "ControlMaster=no", "-o", socket_path]

    def run(command: str, **more: str) -> str:
        done = user.run(["ssh", *shared, "dm-foo", "-T", f"cd; {command}"], **more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("uname -sm").startswith("Linux ")
    assert run("sh -c 'echo $SHELL'").strip()
    server = tmp_path / "zed-remote-server"
    server.write_text('#!/bin/sh\nread line; echo "$1 $2: $line"\n')
    there = f"{tmp_path}/uploaded-server"
    done = user.run(["sftp", *shared, "-b", "-", "dm-foo"], input=f"put {server} {there}\n")
    assert done.returncode == 0, done.stderr
    succeed(user, ["scp", *shared, "-C", "-r", str(server), f"dm-foo:{tmp_path}/by-scp"])
    assert (tmp_path / "by-scp").read_text() == server.read_text()
    run(f"sh -c 'chmod 755 {there}'")
    assert run(f"env {there} proxy --identifier", input="hello\n") == "proxy --identifier: hello\n"
    assert len(emulator.sessions_created()) == 1


@pytest.mark.client("ssh: -T, a shell on its stdin", "works")
def test_a_shell_reads_commands_from_stdin(sleeper: tuple[Emulator, User]) -> None:
    """What an editor does that knows no more of ssh than how to run it."""
    done = sleeper[1].ssh("-T", "dm-foo", input="echo one\necho two\nexit 3\n")
    assert (done.returncode, done.stdout) == (3, "one\ntwo\n"), done.stderr


_TRAMP = """
(require 'tramp)
(setq make-backup-files nil)
(with-current-buffer (find-file-noselect "/ssh:dm-foo:note")
  (insert "written by TRAMP\\n")
  (save-buffer))
(let ((default-directory "/ssh:dm-foo:"))
  (princ (shell-command-to-string "cat note; echo $DCS_MACHINE"))
  (princ (format "%S\\n" (directory-files default-directory nil "^note$"))))
"""


@needs("emacs")
@pytest.mark.client("Emacs TRAMP", "works")
def test_tramp_writes_and_reads_a_file(start_emulator: Start, user: User, tmp_path: Path) -> None:
    emulator = start_emulator(
        "--machine", "dm-foo:sleeping", "--wake-seconds", "1", "--home", str(tmp_path / "machines")
    )
    user.use(emulator)
    wrap_openssh(user)
    script = tmp_path / "tramp.el"
    script.write_text(_TRAMP)
    said = succeed(user, ["emacs", "--batch", "-Q", "-l", str(script)])
    assert said.endswith('written by TRAMP\ndm-foo\n("note")\n')
    assert (tmp_path / "machines" / "dm-foo" / "note").read_text() == "written by TRAMP\n"
    assert len(emulator.sessions_created()) == 1
