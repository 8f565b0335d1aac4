"""Files written whole, and directories that only their owner can use."""

from __future__ import annotations

import os
import stat

from dcs_proxy.errors import StateError


def write_whole(path: str, data: bytes, mode: int = 0o600) -> None:
    """Replace the file at `path`, or the file that a symbolic link there leads to.

    Whoever reads it sees the old bytes or the new ones, also after a crash.  Raises StateError.
    """
    target = os.path.realpath(path)
    temporary = os.path.join(
        os.path.dirname(target), f".{os.path.basename(target)[:100]}.{os.getpid()}.tmp"
    )
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        # Left by a process of the same number that was killed before it could rename.
        os.unlink(temporary)
        return write_whole(path, data, mode)
    except OSError as error:
        raise cannot_write(path, error) from None
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)  # whatever the umask took away
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.replace(temporary, target)
    except OSError as error:
        _unlink_quietly(temporary)
        raise cannot_write(path, error) from None


def read_small(path: str, limit: int = 256 * 1024) -> bytes | None:
    """Return a file's bytes; None if there is no such file, or it is no file of ours to read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        with os.fdopen(fd, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(fd)
    return data if len(data) <= limit else None


def remove_file(path: str) -> None:
    """Remove a file if it is there.  Raises StateError if it cannot be removed."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise cannot_write(path, error) from None


def make_private_directory(path: str) -> None:
    """Make sure that `path` is a directory that only we can write to (made 0700, with parents).

    Raises StateError if it is something else, belongs to another user or others can write to it:
    they could hand us an agent, a certificate or a known_hosts file of their own.
    """
    try:
        _make_directories(path)
        status = os.stat(path)
    except OSError as error:
        raise cannot_write(path, error) from None
    if not stat.S_ISDIR(status.st_mode):
        raise StateError(f"{path} is in the way: a directory belongs there", hint="move it away")
    if status.st_uid != os.geteuid():
        raise StateError(
            f"the state directory {path} belongs to another user",
            hint="set DCS_PROXY_HOME to a directory of your own",
        )
    if stat.S_IMODE(status.st_mode) & 0o022:
        raise StateError(
            f"the state directory {path} can be changed by others", hint=f"chmod 700 '{path}'"
        )


def _make_directories(path: str) -> None:
    """Make the missing part of `path`, parents too (a new ``~/.ssh`` among them), 0700."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent != path:
        _make_directories(parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass


def cannot_write(path: str, error: OSError) -> StateError:
    """Say that `path` cannot be written, in the system's words."""
    return StateError(
        f"{path} cannot be written: {error.strerror}",
        hint="make room or mend its permissions, or set DCS_PROXY_HOME to another directory",
    )


def _unlink_quietly(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
