"""Programs on top of OpenSSH, and other SSH clients, as their users run them."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.clients.programs import GIT, Start, needs, succeed, wrap_openssh
from tests.support.processes import processes
from tests.support.user import User
from tests.support.waiting import wait_until


@pytest.mark.client("git: push", "works")
@pytest.mark.client("git: submodule of another machine", "works")
def test_git_pushes_and_clones_a_submodule_of_another_machine(
    start_emulator: Start, user: User, tmp_path: Path
) -> None:
    emulator = start_emulator(
        "--machine", "dm-foo", "--machine", "dm-bar:sleeping", "--wake-seconds", "1"
    )
    user.use(emulator)
    wrap_openssh(user)
    for machine, repository in (("dm-foo", "whole"), ("dm-bar", "part")):
        succeed(user, ["ssh", machine, f"{' '.join(GIT)} init -q --bare {repository}"])
        work = str(tmp_path / repository)
        succeed(user, [*GIT, "clone", "-q", f"{machine}:{repository}", work])
        (tmp_path / repository / "file").write_text(f"{repository}\n")
        succeed(user, [*GIT, "-C", work, "add", "file"])
        succeed(user, [*GIT, "-C", work, "commit", "-q", "-m", "first"])
        succeed(user, [*GIT, "-C", work, "push", "-q", "origin", "HEAD:main"])
    whole = [*GIT, "-C", str(tmp_path / "whole")]
    succeed(user, [*whole, "submodule", "--quiet", "add", "dm-bar:part", "sub"])
    succeed(user, [*whole, "commit", "-q", "-m", "second"])
    succeed(user, [*whole, "push", "-q", "origin", "HEAD:main"])
    clone = tmp_path / "clone"
    succeed(user, [*GIT, "clone", "-q", "--recurse-submodules", "dm-foo:whole", str(clone)])
    assert (clone / "sub" / "file").read_text() == "part\n"
    assert len(emulator.sessions_created()) == 2


@needs("sshfs", "fusermount3")
@pytest.mark.client("sshfs", "works")
def test_a_machines_files_are_mounted(start_emulator: Start, user: User, tmp_path: Path) -> None:
    user.use(start_emulator("--machine", "dm-foo", "--home", str(tmp_path / "machines")))
    wrap_openssh(user)
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    done = user.run(["sshfs", "dm-foo:", str(mounted)])
    if "fusermount3:" in done.stderr or "fuse device" in done.stderr:
        pytest.skip(f"FUSE does not work here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    try:
        (mounted / "file").write_text("text\n")
        assert (tmp_path / "machines" / "dm-foo" / "file").read_text() == "text\n"
        (mounted / "file").rename(mounted / "other")
        assert os.listdir(mounted) == ["other"]
    finally:
        succeed(user, ["fusermount3", "-u", str(mounted)])


def children(parent: int, words: str) -> list[int]:
    """Return the process numbers of a process's children with these words in their arguments."""
    return [pid for pid, (of, line) in processes().items() if of == parent and words in line]


@needs("autossh")
@pytest.mark.client("autossh", "works")
def test_autossh_comes_back_with_the_same_session(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    # Otherwise it takes a connection that ends in its first half minute for a mistake.
    user.environment["AUTOSSH_GATETIME"] = "0"
    program = user.start("autossh", "-M", "0", "-N", "-F", str(user.config), "dm-foo")
    wait_until(lambda: len(emulator.events(event="login")) == 1)
    (first,) = children(program.pid, "-N")
    # As a connection breaks: SIGKILL, SIGTERM and SIGINT end autossh too.
    os.kill(first, signal.SIGABRT)
    wait_until(lambda: len(emulator.events(event="login")) == 2)
    (second,) = children(program.pid, "-N")
    assert second != first
    assert len(emulator.sessions_created()) == 1
    program.terminate()
    program.wait()


@needs("docker")
@pytest.mark.client("docker: -H ssh://dm-foo", "works")
def test_docker_speaks_to_a_machines_daemon(
    start_emulator: Start, user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs ``ssh -o ConnectTimeout=30 -T -- dm-foo docker system dial-stdio``, once or more."""
    daemon = tmp_path / "docker"
    source = Path(__file__).with_name("fake_docker.py")
    daemon.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{source}' \"$@\"\n")
    daemon.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1")
    user.use(emulator)
    wrap_openssh(user)
    docker = ["docker", "-H", "ssh://dm-foo", "version", "--format", "{{.Server.Version}}"]
    assert succeed(user, docker) == "1.2.3-fake\n"
    assert len(emulator.sessions_created()) == 1


@needs("lftp")
@pytest.mark.client("lftp: sftp://dm-foo", "works")
def test_lftp_puts_and_gets(start_emulator: Start, user: User, tmp_path: Path) -> None:
    user.use(start_emulator("--machine", "dm-foo", "--home", str(tmp_path / "machines")))
    wrap_openssh(user)
    (tmp_path / "file").write_text("text\n")
    succeed(user, ["lftp", "-c", f"open sftp://dm-foo; put {tmp_path}/file -o there"])
    assert (tmp_path / "machines" / "dm-foo" / "there").read_text() == "text\n"
    assert succeed(user, ["lftp", "-c", "open sftp://dm-foo; cat there"]) == "text\n"
