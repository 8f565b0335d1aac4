"""Atomic writes, bounded reads, and directories that only their owner can use."""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import stat
import threading
from collections.abc import Callable

from dcs_proxy.errors import StateError
from dcs_proxy.local.trusted_file import distrusted, find_distrust, judge, real_path

# From <fcntl.h> and <linux/fs.h>, and from macOS's <sys/stdio.h>.
_AT_FDCWD, _RENAME_EXCHANGE, _RENAME_SWAP = -100, 2, 2

_WRITE_HINT = "fix its permissions, or set DCS_PROXY_HOME to another directory"
_SPACE_HINT = "free some space on its disk, which is full or has reached your quota; see: df -h"
_SIZE_HINT = "raise the limit of a file's size where it is set: ulimit -f, limits.conf, systemd"


def write_atomically(
    path: str,
    data: bytes,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
    put: Callable[[str, str], None] | None = None,
) -> None:
    """Replace the file at `path`, or the file that a symbolic link there points to.

    Readers see either the old bytes or the new ones, even after a crash.  `owner` is the user id
    and group id of the new file, by default ours.  `put` moves the new file from the first path to
    the second, by default with :func:`os.replace`.  Raises StateError.
    """
    target = real_path(path)
    # Two threads of one process may write the same file at the same time.
    unique = threading.get_native_id()
    temporary = os.path.join(
        os.path.dirname(target), f".{os.path.basename(target)[:100]}.{unique}.tmp"
    )
    try:
        fd = _create(temporary, mode)
        try:
            with os.fdopen(fd, "wb") as file:
                if owner is not None:
                    os.fchown(fd, *owner)
                os.fchmod(fd, mode)  # the umask may have removed bits
                file.write(data)
                file.flush()
                _sync(fd)
            (put or os.replace)(temporary, target)
        except BaseException:
            _unlink_quietly(temporary)
            raise
    except OSError as error:
        raise cannot_write(path, error) from error


def exchange(one: str, other: str) -> bool:
    """Swap two files atomically; return False if the system or file system does not support that.

    Raises OSError.
    """
    import ctypes  # rarely needed

    library = ctypes.CDLL(None, use_errno=True)
    names = (os.fsencode(one), os.fsencode(other))
    if hasattr(library, "renameat2"):  # Linux: renameat2(2)
        failed = library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    elif hasattr(library, "renamex_np"):  # macOS: rename(2)
        failed = library.renamex_np(*names, _RENAME_SWAP)
    else:
        return False
    number = ctypes.get_errno() if failed else 0
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    if number:
        raise OSError(number, os.strerror(number))
    return True


def _sync(fd: int) -> None:
    """Write a file's bytes to the disk; on macOS, fsync leaves them in the disk's cache."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        try:
            fcntl.fcntl(fd, full)
            return
        except OSError:
            pass  # not supported by this file system, such as a network one
    os.fsync(fd)


def _create(path: str, mode: int) -> int:
    """Create a file and return its descriptor; replace the leftover of a killed process."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, mode)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, mode)


def read_small(path: str, limit: int = 256 * 1024, *, of_others: bool = False) -> bytes | None:
    """Return a regular file's bytes; None if it is missing, unreadable or longer than `limit`.

    A file that other users own or can change counts as missing, unless `of_others` is True.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or not (of_others or judge(path, status) is None):
            return None
        with os.fdopen(fd, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(fd)
    return data if len(data) <= limit else None


def remove_file(path: str) -> None:
    """Remove a file if it exists.  Raises StateError if it cannot be removed."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise cannot_write(path, error) from None


def make_directories(path: str) -> None:
    """Create `path` and its missing parents with mode 0700.  Raises StateError."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent != path:
        make_directories(parent)
    try:
        _refuse_as_root(parent)
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise cannot_write(path, error) from None


def _refuse_as_root(parent: str) -> None:
    """Raise StateError if root is about to create a directory in a user's own (``sudo -E``).

    It would belong to root, and the user could not use it.
    """
    status = os.stat(parent)
    if os.geteuid() == 0 != status.st_uid and not status.st_mode & stat.S_ISVTX:
        raise StateError(
            f"{parent} belongs to user id {status.st_uid}, which could not use what root creates"
            " there",
            hint="run it as that user, without sudo; for root itself: sudo -H",
        )


def make_private_directory(path: str) -> None:
    """Make sure that `path` is a directory that only we can write to.

    It and its parents are created with mode 0700 if they are missing.  Raises StateError if it is
    not a directory, or if other users own it, can write to it or could replace it: they could put
    an agent's socket, a certificate or a known_hosts file into it.
    """
    make_directories(path)
    if not check_private_directory(path):
        raise StateError(
            f"{path} is a link to a missing directory",
            hint=f"create that directory, or remove the link: rm {shlex.quote(path)}",
        )


def check_private_directory(path: str) -> bool:
    """Return whether `path` exists.  Raises StateError unless only we can write to it."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise cannot_write(path, error) from None
    if not stat.S_ISDIR(status.st_mode):
        raise StateError(f"{path} is not a directory", hint="move it away")
    if status.st_uid != os.geteuid():
        raise StateError(
            f"the state directory {path} belongs to another user",
            hint="set DCS_PROXY_HOME to a directory of your own",
        )
    if stat.S_IMODE(status.st_mode) & 0o022:
        raise StateError(
            f"the state directory {path} is writable by other users",
            hint=f"chmod 700 {shlex.quote(path)}",
        )
    if distrust := find_distrust(path, status):
        raise distrusted(path, "the state directory", StateError, distrust)
    return True


def cannot_write(path: str, error: OSError) -> StateError:
    """Return the error for a failed write to `path`."""
    return StateError(f"{path} cannot be written: {error.strerror}", hint=write_hint(error))


def write_hint(error: OSError) -> str:
    """Return what to do if a file cannot be written."""
    if error.errno == errno.EFBIG:
        return _SIZE_HINT
    return _SPACE_HINT if error.errno in (errno.ENOSPC, errno.EDQUOT) else _WRITE_HINT


def _unlink_quietly(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
