from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from dcs_proxy.errors import StateError
from dcs_proxy.local import lock as module
from dcs_proxy.local.lock import (
    FileLock,
    LockHeld,
    describe_holder,
    lock_holder,
    try_lock,
    wait_for_lock,
)

HOLD = """
import sys
from dcs_proxy.local.lock import try_lock
with try_lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(path: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder


def take(path: str) -> FileLock:
    lock = try_lock(path)
    assert lock is not None
    return lock


def test_a_lock_excludes_other_processes_and_names_its_holder(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with held_elsewhere(path) as holder:
        assert try_lock(path) is None
        assert lock_holder(path) == holder.pid
    with take(path):
        assert lock_holder(path) == os.getpid()


def test_nothing_is_left_of_the_number_of_the_last_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("4194303999\n")
    path.chmod(0o600)
    with take(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


def test_waiting_for_a_lock_ends_with_the_name_of_its_holder(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with held_elsewhere(path) as holder, pytest.raises(LockHeld) as held:
        wait_for_lock(path, timeout_s=0.1, what="config-ssh")
    assert held.value.message == (
        f"another config-ssh (process {holder.pid}) has held {path} for 0.1 s"
    )
    assert "end that process" in held.value.hint


def test_waiting_for_a_lock_ends_when_it_is_free(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with ThreadPoolExecutor() as pool:
        with take(path):
            waiting = pool.submit(wait_for_lock, path, timeout_s=60, what="config-ssh")
        waiting.result(60).release()
    with take(path):
        assert lock_holder(path) == os.getpid()


def test_a_lock_excludes_the_same_process_too(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with take(path):
        assert try_lock(path) is None
    take(path).release()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with held_elsewhere(path) as holder:
        holder.kill()
        holder.wait()
        take(path).release()


def test_the_lock_file_is_private_and_not_inherited(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    before = os.umask(0)
    try:
        lock = take(str(path))
    finally:
        os.umask(before)
    with lock:
        assert path.stat().st_mode & 0o777 == 0o600
        assert not os.get_inheritable(lock._fd)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_lock_file_removed_while_it_is_taken_is_created_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_replaced: bool
) -> None:
    path = tmp_path / "lock"
    take_it, removed = module.flock, []

    def overtaken(fd: int) -> bool:
        if not removed:
            removed.append(path.stat().st_ino)
            os.link(path, tmp_path / "kept")  # so that the next file has another inode
            path.unlink()
            if is_replaced:
                path.touch()
        return take_it(fd)

    monkeypatch.setattr(module, "flock", overtaken)
    with take(str(path)):
        assert path.stat().st_ino != removed[0]
        assert try_lock(str(path)) is None


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match=r"cannot open the lock .*/lock: "):
        try_lock(str(tmp_path / "lock"))
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_cannot_be_opened_is_a_state_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="Is a directory"):
        try_lock(str(tmp_path))
    with pytest.raises(StateError, match="No such file"):
        try_lock(str(tmp_path / "none" / "lock"))


def test_a_file_system_without_locks_is_a_state_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(module.fcntl, "flock", refuse)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StateError, match="No locks available"):
        try_lock(str(tmp_path / "lock"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_full_disk_does_not_prevent_locking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    path = str(tmp_path / "lock")
    with take(path):
        assert try_lock(path) is None
        assert lock_holder(path) is None


@pytest.mark.parametrize("content", [b"", b"12x", b"-1", b"\xff", b"1" * 300_000])
def test_a_holder_that_cannot_be_read_is_unknown(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock").write_bytes(content)
    assert lock_holder(str(tmp_path / "lock")) is None
    assert lock_holder(str(tmp_path / "none")) is None


def test_a_lock_is_waited_for_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]

    def sleep(seconds: float) -> None:
        assert 0.01 <= seconds <= 0.1
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    path = str(tmp_path / "lock")
    held = try_lock(path)
    assert held is not None
    with held, pytest.raises(LockHeld) as caught:
        wait_for_lock(path, timeout_s=1.5, what="dcs-proxy")
    assert 1001.5 <= now[0] < 1001.6
    assert caught.value.message == (
        f"another dcs-proxy (process {os.getpid()}) has held {path} for 1.5 s"
    )
    wait_for_lock(path, timeout_s=0, what="dcs-proxy").release()
    assert now[0] < 1001.6


def test_a_holder_that_is_not_known_is_not_named(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    for text in (None, "", "x", "-4", "12 13"):
        if text is not None:
            (tmp_path / "lock").write_text(text)
        assert (lock_holder(path), describe_holder(path)) == (None, "")
    (tmp_path / "lock").write_text(" 123\n")
    assert (lock_holder(path), describe_holder(path)) == (123, " (process 123)")


def test_a_name_of_a_lock_is_shown_clean_and_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StateError) as caught:
        try_lock(str(tmp_path / "a\x1b[2Jb" / "lock"))
    assert caught.value.message.isprintable() and "DCS_PROXY_HOME" in caught.value.hint
    path = str(tmp_path / "a\x1b[2Jb")
    held = try_lock(path)
    assert held is not None
    with held, pytest.raises(LockHeld) as again:
        wait_for_lock(path, timeout_s=0, what="dcs-proxy")
    assert again.value.message.isprintable()


def test_no_descriptor_of_a_lock_stays_open(tmp_path: Path) -> None:
    before = os.listdir("/dev/fd")
    held = try_lock(str(tmp_path / "lock"))
    assert held is not None
    assert try_lock(str(tmp_path / "lock")) is None
    held.release()
    with pytest.raises(StateError):
        try_lock(str(tmp_path))
    assert os.listdir("/dev/fd") == before
