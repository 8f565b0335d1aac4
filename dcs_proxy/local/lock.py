"""Locks between processes: an flock on a file, which contains the holder's process id.

The kernel releases a lock when its holder exits, so lock files may stay, and a killed process
leaves nothing to clean up.
"""

from __future__ import annotations

import fcntl
import os
import time

from dcs_proxy.errors import StateError
from dcs_proxy.local.files import read_small, write_hint
from dcs_proxy.text import clean_text

_TURN_S = 0.02
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class LockHeld(StateError):
    """Another process has held a lock for longer than we could wait."""


class FileLock:
    """A lock that this process holds until release(), or the end of a ``with`` block."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        """Release the lock; call it once."""
        os.close(self._fd)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def try_lock(path: str) -> FileLock | None:
    """Take the lock at `path` without waiting; return None if another process or thread has it.

    The file is created if missing (0600); a symbolic link is not followed.  Raises StateError if
    it cannot be opened or locked.
    """
    try:
        while True:
            fd = os.open(path, _FLAGS, 0o600)
            is_locked = is_ours = False
            try:
                is_locked = flock(fd)
                is_ours = is_locked and is_current(fd, path)
            finally:
                if not is_ours:
                    os.close(fd)
            if is_ours:
                _write_holder(fd)
                return FileLock(fd)
            if not is_locked:
                return None
            # The file was removed or replaced between open and flock: lock the new one.
    except OSError as error:
        message = f"cannot open the lock {clean_text(path)}: {error.strerror}"
        raise StateError(message, hint=write_hint(error)) from None


def wait_for_lock(path: str, *, timeout_s: float, what: str) -> FileLock:
    """Take the lock at `path`, and wait for it at most `timeout_s`.

    `what` completes "another …" and names what takes this lock.  Raises LockHeld, which names the
    process that still has it, or StateError as :func:`try_lock`.
    """
    end = time.monotonic() + timeout_s
    while (lock := try_lock(path)) is None:
        if time.monotonic() >= end:
            raise LockHeld(
                f"another {what}{describe_holder(path)} has held {clean_text(path)} for"
                f" {timeout_s:.3g} s",
                hint="end that process if it is stopped, and try again",
            )
        time.sleep(_TURN_S)
    return lock


def describe_holder(path: str) -> str:
    """Return " (process N)" for the process that last took the lock at `path`, "" if unknown."""
    holder = lock_holder(path)
    return "" if holder is None else f" (process {holder})"


def flock(fd: int) -> bool:
    """Take an exclusive flock on an open file without waiting; return whether that worked.

    The lock belongs to the file, not to its name: check is_current() afterwards.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_current(fd: int, path: str) -> bool:
    """Return whether `path` still names the open file `fd`."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def lock_holder(path: str) -> int | None:
    """Return the number of the process that last took the lock at `path`; None if unknown."""
    text = (read_small(path) or b"").strip()
    return int(text) if text.isdigit() else None


def _write_holder(fd: int) -> None:
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except OSError:
        pass  # a full disk: the number only serves error messages
